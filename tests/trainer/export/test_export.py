"""From a finished run to a chat: every stage lands in the run folder, is proven, and is handed to Ollama only then."""

import json
import shutil

import pytest
from replay import Reply, ollama, serving

from trainer.config import UserError
from trainer.export import export
from trainer.export.llamacpp import LlamaCpp
from trainer.export.modelfile import CHATML, go_template, model_name, modelfile
from trainer.export.push import check_name


def names(folder):
    return {file.name for file in (folder.path / "export").iterdir()}


def spoil_merged(folder):
    """Another rope base in config.json of the merged folder, as if the GGUF file were an older one."""
    path = folder.path / "export" / "merged" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["rope_parameters"]["rope_theta"] = 100.0
    path.unlink()  # it is a link to the run's own model
    path.write_text(json.dumps(config), encoding="utf-8")
    (folder.path / "export" / "model.gguf").touch()
    (folder.path / "export" / "parity.json").unlink()


def test_a_finished_run_becomes_a_model_to_chat_with(finished):
    folder = finished()
    made = export(folder)
    assert {
        "merged",
        "model.gguf",
        "base.gguf",
        "parity.json",
        "Modelfile",
        "status.json",
        "merge.json",
    } <= names(folder)
    assert made["parity"]["ready"] is True
    status = folder.status("export")
    assert (status["state"], status["ready"], status["message"]) == ("done", True, "")
    assert folder.status()["state"] == "queued", "the status of training is not touched"
    with LlamaCpp(made["gguf"], threads=1) as engine:
        assert "".join(engine.chat([{"role": "user", "content": "Hello world"}], max_tokens=8))


def test_exporting_again_does_no_stage_twice(finished):
    folder = finished()
    export(folder)
    watched = [folder.path / "export" / name for name in ("model.gguf", "base.gguf", "parity.json")]
    before = [path.stat().st_mtime_ns for path in watched]
    export(folder)
    assert [path.stat().st_mtime_ns for path in watched] == before
    watched[0].unlink()
    export(folder)
    assert watched[2].stat().st_mtime_ns > before[2], "a new file is proven again"


def test_merged_alone_writes_no_gguf(finished):
    folder = finished()
    export(folder, to="merged")
    assert names(folder) == {"merged", "merge.json", "status.json"}


def test_an_adapter_run_is_exported_with_its_base(adapted):
    from trainer.data.splits import Splits
    from trainer.data.stage import Staged, freeze, read_rows

    folder = adapted()
    rows = read_rows(folder.path / "data" / "train.jsonl")
    freeze(Staged(Splits(rows, [], rows * 5), {"labels": None}), folder.path / "data")
    made = export(folder)
    assert (made["parity"]["rows"], made["parity"]["ready"]) == (5, True)
    assert (folder.path / "export" / "base.gguf").read_bytes() != made["gguf"].read_bytes()


def test_a_model_that_fails_the_proof_is_kept_but_not_ready(finished):
    folder = finished()
    export(folder)
    spoil_merged(folder)
    made = export(folder)
    status = folder.status("export")
    assert (status["state"], status["ready"]) == ("done", False)
    assert made["parity"]["kind"] == "rope"
    assert (folder.path / "export" / "model.gguf").exists()


def test_too_little_disk_is_told_before_anything_is_written(finished, monkeypatch):
    folder = finished()
    usage = shutil.disk_usage(folder.path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"needs 0\.0 GB and 0\.0 GB are free; free some space"):
        export(folder)
    assert names(folder) == {"status.json"}
    assert folder.status("export")["state"] == "failed"
    assert "free some space" in folder.status("export")["message"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"to": "cloud"}, "choose one of merged, adapter, gguf, ollama"),
        ({"to": "hub"}, "write OWNER/NAME"),
        ({"to": "gguf", "quantize": "q4_K_M"}, "with --to gguf q8_0"),
        ({"to": "ollama", "quantize": "q2_K"}, "one of q8_0, q4_K_M, q4_K_S"),
        ({"to": "ollama", "name": "評論:v1"}, "ASCII letters"),
        ({"to": "ollama", "host": "http://127.0.0.1:9"}, "does not answer; start it"),
    ],
)
def test_what_cannot_be_done_is_told_before_the_work(arguments, said, finished):
    folder = finished()
    with pytest.raises(UserError, match=said):
        export(folder, **arguments)
    assert not (folder.path / "export" / "merged").exists()


def test_a_killed_export_goes_on_where_it_was(finished):
    """kill -9 in the middle of a file: what was done stays, what was half done is removed and made again."""
    import multiprocessing
    import os
    import signal

    folder = finished()

    def work():
        import trainer.export as exporting

        calls = iter(range(99))  # of the progress, once a piece
        exporting._reporter = lambda *_: lambda *_: next(calls) == 5 and os.kill(os.getpid(), signal.SIGKILL)
        export(folder)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    out = folder.path / "export"
    assert len(list(out.glob(".model.gguf.*.part"))) == 1 and not (out / "model.gguf").exists()
    merged = (out / "merged").stat().st_mtime_ns
    (out / ".merged.part").mkdir()
    assert export(folder)["parity"]["ready"] is True
    assert (out / "merged").stat().st_mtime_ns == merged
    assert list(out.glob(".*.part")) == []


def test_merged_names_the_command_that_serves_it(finished):
    folder = finished(max_length=200)
    command = export(folder, to="merged")["vllm"]
    assert command.startswith(f"vllm serve {folder.path}/export/merged --served-model-name reviews:v1 ")
    assert "--max-model-len 512" in command and "--host 127.0.0.1" in command


def test_adapters_are_served_beside_their_base(adapted, tiny_base):
    from trainer.export.serving import vllm_adapter_command

    folder = adapted()
    made = export(folder, to="adapter")
    assert {path.name for path in (made["adapter"], made["base"])} == {"adapter.gguf", "base.gguf"}
    assert names(folder) == {"adapter.gguf", "base.gguf", "status.json"}
    command = vllm_adapter_command(str(tiny_base), [folder], folder.config())
    assert f"--lora-modules reviews:v1={folder.path}/adapter" in command and "--max-lora-rank 16" in command


class Server:
    """An Ollama server's answers where the export needs them; renders ChatML, or as `spoiled` says."""

    def __init__(self, spoiled: str | None = None, shows: bool = True):
        self.spoiled, self.shows = spoiled, shows
        self.system = ""

    def chat(self, body):
        if not self.shows:
            return Reply(200, [b'{"message": {"content": "x"}, "done": true}'])
        messages = body["messages"]
        if self.system and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.system}, *messages]
        text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
        text = (text + "<|im_start|>assistant\n") if self.spoiled is None else self.spoiled
        return Reply(200, [json.dumps({"_debug_info": {"rendered_template": text}}).encode()])

    def respond(self, method, path, body):
        if path == "/api/create":
            self.system = body.get("system", "")
        return ollama(self.chat)(method, path, body)


def test_ollama_gets_the_file_its_template_and_its_settings(finished):
    folder = finished(system_prompt="你是評論分類器。", labels=True)
    server = Server()
    with serving(server.respond) as (host, seen):
        made = export(folder, to="ollama", host=host, quantize="q8_0")
    assert made["ollama"] == "reviews:v1"
    created = next(request["body"] for request in seen if request["path"] == "/api/create")
    assert list(created["files"]) == ["model.gguf"]
    assert created["template"] == CHATML
    assert created["system"] == "你是評論分類器。"
    assert created["quantize"] == "q8_0"
    assert created["parameters"] == {"num_ctx": 512, "temperature": 0, "stop": ["<|im_end|>"]}
    assert not [request for request in seen if request["method"] == "DELETE"]
    text = (folder.path / "export" / "Modelfile").read_text(encoding="utf-8")
    assert text.startswith("FROM ./model.gguf\nTEMPLATE ")
    assert 'SYSTEM """你是評論分類器。"""' in text


def test_a_model_that_ollama_prompts_otherwise_is_taken_off_again(finished):
    folder = finished()
    said = "reviews:v1: Ollama renders the chat template otherwise"
    with serving(Server(spoiled="User: a").respond) as (host, seen), pytest.raises(UserError, match=said):
        export(folder, to="ollama", host=host)
    assert [request["body"] for request in seen if request["method"] == "DELETE"] == [{"model": "reviews:v1"}]


def test_a_server_that_cannot_show_its_rendering_still_gets_the_model(finished):
    with serving(Server(shows=False).respond) as (host, seen):
        assert export(finished(), to="ollama", host=host, name="mine")["ollama"] == "mine"
    assert not [request for request in seen if request["method"] == "DELETE"]


def test_a_model_that_is_not_proven_is_not_handed_over(finished):
    folder = finished()
    export(folder)
    spoil_merged(folder)
    said = r"not handed to Ollama: .* only \d+ of 24 rows"
    with serving(Server().respond) as (host, seen), pytest.raises(UserError, match=said):
        export(folder, to="ollama", host=host)
    assert not [request for request in seen if request["path"] == "/api/create"]


def test_only_plain_chatml_gets_a_template_of_its_own(tiny_model):
    from transformers import AutoTokenizer

    from trainer.export.modelfile import PROBES

    def rendered(architecture):
        tokenizer = AutoTokenizer.from_pretrained(tiny_model(architecture))
        return [
            tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in PROBES
        ]

    assert go_template(rendered("qwen3")) == CHATML
    assert go_template(rendered("llama")) is None


def test_names_and_quotes_fit_ollama(tmp_path):
    assert model_name("Reviews/v3") == "reviews:v3"
    assert check_name("me/reviews:v3") == "me/reviews:v3"
    text = modelfile(tmp_path / "model.gguf", None, {"stop": ["a", "b"]}, 'say """no"""')
    assert text == (
        'FROM ./model.gguf\nPARAMETER stop """a"""\nPARAMETER stop """b"""\nSYSTEM """say \'\'\'no\'\'\'"""\n'
    )
