"""llama.cpp on this machine: quiet, portless, ends cleanly, and never sees a file that lies about itself."""

import json
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trainer.config import UserError
from trainer.export.header import read_header
from trainer.export.llamacpp import LlamaCpp

CHAT = [{"role": "user", "content": "這家飯店的服務很好，房間也乾淨。"}]


@pytest.fixture(scope="module")
def engine(tiny_gguf):
    with LlamaCpp(tiny_gguf("qwen3"), threads=1) as engine:
        yield engine


def test_a_chat_streams_the_greedy_answer(engine):
    pieces = list(engine.chat(CHAT, max_tokens=24))
    assert len(pieces) > 3
    assert "".join(pieces) == engine.complete(engine.render(CHAT), max_tokens=24)


def test_chats_at_the_same_time_wait_for_each_other(engine):
    alone = "".join(engine.chat(CHAT, max_tokens=24))
    found = []
    threads = [
        threading.Thread(target=lambda: found.append("".join(engine.chat(CHAT, max_tokens=24))))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone] * 6


def test_an_answer_follows_a_json_schema(engine):
    schema = {
        "type": "object",
        "properties": {"label": {"enum": ["good", "bad"]}},
        "required": ["label"],
        "additionalProperties": False,
    }
    answer = json.loads("".join(engine.chat(CHAT, max_tokens=40, schema=schema)))
    assert answer["label"] in ("good", "bad")
    assert json.loads(engine.complete("房", max_tokens=40, schema=schema)).keys() == {"label"}


def test_an_abandoned_chat_frees_the_queue(engine):
    stream = engine.chat(CHAT, max_tokens=400, temperature=1.5)
    next(stream)
    stream.close()
    assert engine.complete("房", max_tokens=2) is not None


def test_a_prompt_beyond_the_context_is_an_error_not_a_cut(engine):
    assert engine.context == 512, "cut to what the model was made for"
    long = [{"role": "user", "content": "房間 " * 600}]
    with pytest.raises(UserError, match="the context 512"):
        list(engine.chat(long))
    with pytest.raises(UserError, match="the context 512"):
        engine.complete("房間 " * 600)


def test_no_port_is_opened_and_nothing_is_left(tiny_gguf):
    import psutil

    engine = LlamaCpp(tiny_gguf("qwen3"), threads=1)
    (child,) = [process for process in psutil.Process().children() if process.pid == engine._process.pid]
    assert child.net_connections(kind="inet") == []
    (channel,) = [found.laddr for found in child.net_connections(kind="unix") if found.laddr]
    folder = Path(channel).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    list(engine.chat(CHAT, max_tokens=4))
    assert (folder / "stderr").read_text() == "", "llama.cpp must be quiet"
    engine.close()
    engine.close()
    assert not child.is_running()
    assert not folder.exists()


LEFT_BEHIND = """
import os, sys, time
from trainer.export.llamacpp import LlamaCpp
engine = LlamaCpp(sys.argv[1], threads=1)
print(engine._process.pid, engine._folder, flush=True)
if sys.argv[2] == "killed":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("end", ["killed", "forgot to close"])
def test_llama_cpp_does_not_outlive_the_program(end, tiny_gguf):
    import psutil

    command = [sys.executable, "-c", LEFT_BEHIND, str(tiny_gguf("qwen3")), end]
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=root)
    assert done.stderr == ""
    pid, folder = done.stdout.split()
    for _ in range(100):
        if not psutil.pid_exists(int(pid)) and not Path(folder).exists():
            break
        time.sleep(0.1)
    else:
        pytest.fail("it still runs")


def test_a_crash_of_llama_cpp_is_one_line_and_not_ours(tiny_gguf):
    engine = LlamaCpp(tiny_gguf("qwen3"), threads=1)
    engine._process.kill()
    with pytest.raises(UserError, match=r"qwen3\.gguf: llama\.cpp ended: .*status -9; load it again"):
        engine.complete("a")
    engine.close()


def test_a_model_that_nobody_holds_is_freed(tiny_gguf):
    engine = LlamaCpp(tiny_gguf("qwen3"), threads=1)
    process = engine._process
    del engine
    assert process.poll() is not None


def test_closing_is_quick_and_ends_a_running_chat_with_one_line(tiny_gguf):
    engine = LlamaCpp(tiny_gguf("qwen3"), threads=1)
    stream = engine.chat(CHAT, max_tokens=450, temperature=5.0)
    next(stream)
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 5
    with pytest.raises(UserError, match="was closed"):
        list(stream)
        engine.complete("a")  # for the rare answer that had ended by then


def test_closing_while_other_threads_chat_ends_them(tiny_gguf):
    engine = LlamaCpp(tiny_gguf("qwen3"), threads=1)
    ended = []

    def chat():
        try:
            ended.append("".join(engine.chat(CHAT, max_tokens=450, temperature=5.0)))
        except UserError as error:
            ended.append(str(error))

    threads = [threading.Thread(target=chat) for _ in range(4)]
    for thread in threads:
        thread.start()
    engine.close()
    for thread in threads:
        thread.join(timeout=10)
    assert len(ended) == 4
    assert any("was closed" in text for text in ended)


def spoil(source: Path, target: Path, change) -> Path:
    data = bytearray(source.read_bytes())
    result = change(data)
    target.write_bytes(data if result is None else result)
    return target


def put(form, at, value):
    return lambda data: struct.pack_into("<" + form, data, at, value)


def after(key: bytes, form: str, value, skip: int = 0):
    """Overwrite what stands behind a metadata key or tensor name: `skip` bytes after it."""

    def change(data):
        at = data.index(key) + len(key) + skip
        struct.pack_into("<" + form, data, at, value)

    return change


LIES = {
    "magic": (put("I", 0, 0), "begins with"),
    "version": (put("I", 4, 99), "version 99"),
    "big endian": (put("I", 4, 0x03000000), "version"),
    "tensor count": (put("Q", 8, 2**40), "not believable"),
    "one tensor too many": (lambda data: struct.pack_into("<Q", data, 8, data[8] + 1), ""),
    "key count": (put("Q", 16, 2**63), "not believable"),
    "key length": (put("Q", 24, 2**62), "does not fit"),
    "array length": (after(b"tokenizer.ggml.token_type", "Q", 2**61, 8), "does not fit"),
    "array type": (after(b"tokenizer.ggml.token_type", "I", 77, 4), "unknown array type"),
    "value type": (after(b"qwen3.block_count", "I", 77), "unknown metadata type"),
    "heads": (after(b"qwen3.attention.head_count", "I", 0, 4), "head_count"),
    "blocks": (after(b"qwen3.block_count", "I", 2**22, 4), "block_count"),
    "context": (after(b"qwen3.context_length", "I", 0, 4), "context_length"),
    "epsilon": (after(b"layer_norm_rms_epsilon", "f", float("nan"), 4), "epsilon = nan"),
    "tensor dimensions": (after(b"output_norm.weight", "I", 9), "9 dimensions"),
    "tensor shape": (after(b"output_norm.weight", "Q", 2**50, 4), ""),
    "tensor type": (after(b"output_norm.weight", "I", 200, 12), "200"),
    "tensor offset": (after(b"output_norm.weight", "Q", 2**40, 16), ""),
    "odd offset": (after(b"output_norm.weight", "Q", 7, 16), "aligned"),
    "cut in its weights": (lambda data: data[: len(data) - 1000], "after the file"),
    "cut in its header": (lambda data: data[:3000], ""),
    "nothing": (lambda data: b"", "not a GGUF file"),
    "a web page": (lambda data: b"<!DOCTYPE html>" * 9, "begins with"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_header_is_refused_in_one_line(lie, tiny_gguf, tmp_path):
    change, said = LIES[lie]
    path = spoil(tiny_gguf("qwen3"), tmp_path / "lie.gguf", change)
    with pytest.raises(UserError, match=r"lie\.gguf: .*" + said) as caught:
        LlamaCpp(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(UserError, match="no such file; `tunesmith export"):
        LlamaCpp(tmp_path / "none.gguf")


def test_a_file_that_llama_cpp_cannot_run_is_named_with_its_architecture(tiny_gguf, tmp_path):
    path = spoil(
        tiny_gguf("qwen3"),
        tmp_path / "other.gguf",
        lambda data: bytes(data).replace(b"qwen3", b"qwenX"),
    )
    with pytest.raises(
        UserError, match=r"other\.gguf: llama\.cpp cannot load it: unknown model architecture: 'qwenX'"
    ):
        LlamaCpp(path)


def test_the_header_tells_architecture_context_and_vocabulary(tiny_gguf):
    header = read_header(tiny_gguf("llama"))
    assert (header.architecture, header.context_length) == ("llama", 512)
    assert header.metadata["tokenizer.ggml.tokens"][4] == "<|eot_id|>"
    assert header.tensors["token_embd.weight"] == ((64, 403), "F32")
