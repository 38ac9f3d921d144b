"""Choosing a backend, and what each kind does when its server is well, wrong, silent or gone."""

import time
from pathlib import Path

import pytest
from replay import Reply, events, ndjson, ollama, recorded, said, serving

from assistant import llm
from assistant.backends import token_bounds
from assistant.llm import BackendError, Settings, pick
from assistant.thoughts import without_thoughts

HI = [{"role": "user", "content": "Hi"}]
NOBODY = "http://127.0.0.1:9"


def openai(chat: Reply, models: Reply | None = None):
    """A server that speaks OpenAI's API."""
    listed = models or Reply(200, [b'{"data": [{"id": "tiny", "max_model_len": 4096}]}'])
    return lambda method, path, body: listed if path == "/v1/models" else chat


def delta(text: str, **more) -> dict:
    return {"choices": [{"delta": {"content": text, **more}}]}


def test_auto_takes_ollama_when_it_answers():
    with serving(ollama(said("Hello."))) as (host, seen):
        backend = pick(Settings(ollama_host=host, ollama_model="q3think"))
        assert (backend.name, backend.model, backend.context) == ("ollama", "q3think", 4096)
        assert "".join(backend.stream(HI)) == "Hello."
    assert (
        seen[-1]["body"]["options"]["num_ctx"] == 4096
    )  # what the model was trained for, below the 8192 asked for


def test_auto_without_any_server_is_extract_within_a_second():
    start = time.monotonic()
    assert pick(Settings(ollama_host=NOBODY)).name == "extract"
    assert time.monotonic() - start < 1.5


def test_auto_passes_over_an_ollama_without_models_and_a_dead_openai_server():
    def empty(method, path, body):
        return Reply(200, [b'{"models": []}']) if path == "/api/tags" else ollama()(method, path, body)

    with serving(empty) as (host, _):
        assert (
            pick(Settings(ollama_host=host, openai_base_url=NOBODY + "/v1", gguf="/nowhere.gguf")).name
            == "extract"
        )


def test_auto_takes_an_openai_server_that_answers():
    with serving(openai(events(delta("Hello"), delta("."), "[DONE]"))) as (host, _):
        backend = pick(Settings(ollama_host=NOBODY, openai_base_url=f"{host}/v1/"))
        assert (backend.name, backend.model, backend.context) == ("openai", "tiny", 4096)
        assert "".join(backend.stream(HI)) == "Hello."


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (Settings("magic"), "unknown answering backend 'magic'; choose one of: auto, ollama"),
        (Settings("ollama", ollama_host=NOBODY), "no Ollama answers at http://127.0.0.1:9; start it"),
        (Settings("openai"), "set OPENAI_BASE_URL"),
        (Settings("openai", openai_base_url=NOBODY), "no answer from http://127.0.0.1:9"),
        (Settings("llamacpp"), "set TUNESMITH_GGUF"),
        (Settings("llamacpp", gguf="/nowhere/m.gguf"), "/nowhere/m.gguf: no such GGUF file"),
    ],
)
def test_a_backend_that_is_asked_for_and_not_there_is_one_line(settings, line):
    with pytest.raises(BackendError) as error:
        pick(settings)
    assert line in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(BackendError, match=r"[\u4e00-\u9fff]"):
        pick(settings, "zh-TW")


def test_a_model_that_ollama_does_not_have_is_named_with_those_it_has():
    def respond(method, path, body):
        return recorded("show_404") if path == "/api/show" else ollama()(method, path, body)

    with serving(respond) as (host, _), pytest.raises(BackendError, match=r"no model 'nope'.*jin:latest"):
        pick(Settings("ollama", ollama_host=host, ollama_model="nope"))


def test_without_a_model_name_ollamas_first_model_that_can_chat_is_taken():
    def respond(method, path, body):
        first = b'{"models": [{"name": "minilm", "details": {"family": "bert"}}, {"name": "q", "details": {"family": "qwen3"}}]}'
        return Reply(200, [first]) if path == "/api/tags" else ollama()(method, path, body)

    with serving(respond) as (host, _):
        assert pick(Settings("ollama", ollama_host=host)).model == "q"


def test_thinking_is_kept_apart_from_the_answer():
    thoughts = []
    with serving(ollama(said("Use 16.", thinking="Rank, hm."))) as (host, seen):
        backend = pick(Settings("ollama", ollama_host=host, ollama_model="q3think", think=True))
        assert "".join(backend.stream(HI, on_thought=thoughts.append)) == "Use 16."
    assert thoughts == ["Rank, hm."] and seen[-1]["body"]["think"] is True


def test_think_is_not_sent_to_a_model_that_cannot():
    def respond(method, path, body):
        card = b'{"model_info": {"llama.context_length": 2048}, "capabilities": ["completion"]}'
        return Reply(200, [card]) if path == "/api/show" else ollama(said("Yes."))(method, path, body)

    with serving(respond) as (host, seen):
        backend = pick(Settings("ollama", ollama_host=host, ollama_model="m", think=True))
        list(backend.stream(HI))
    assert "think" not in seen[-1]["body"] and backend.context == 2048


def test_a_prompt_that_the_server_cut_without_a_word_is_noticed():
    long = [{"role": "user", "content": "word " * 3000}]
    with serving(ollama(said("Fine.", prompt_tokens=258))) as (host, _):
        backend = pick(Settings("ollama", ollama_host=host, ollama_model="m"))
        with pytest.raises(BackendError, match="read only 258 tokens"):
            list(backend.stream(long))


def test_a_prompt_that_cannot_fit_is_not_sent_at_all():
    long = [{"role": "user", "content": "word " * 9000}]
    with serving(ollama()) as (host, seen):
        backend = pick(Settings("ollama", ollama_host=host, ollama_model="m"))
        with pytest.raises(BackendError, match=r"does not fit the context of 'm' \(7500 > 4096 tokens\)"):
            list(backend.stream(long))
    assert seen[-1]["path"] != "/api/chat"


@pytest.mark.parametrize(("setting", "sent"), [("10m", "10m"), ("-1", -1), ("", None)])
def test_how_long_ollama_keeps_the_model_is_the_persons_choice(setting, sent):
    with serving(ollama(said("Yes."))) as (host, seen):
        list(pick(Settings("ollama", ollama_host=host, ollama_model="m", keep_alive=setting)).stream(HI))
    assert seen[-1]["body"].get("keep_alive") == sent


def test_an_answer_that_reaches_its_limit_says_so_after_its_text():
    arrived = []
    with serving(ollama(recorded("chat_stream"))) as (host, _):
        stream = pick(Settings("ollama", ollama_host=host, ollama_model="m")).stream(HI, 5)
        with pytest.raises(BackendError, match="reached its limit of 5 tokens"):
            for piece in stream:
                arrived.append(piece)
    assert "".join(arrived).strip()
    cut = events(delta("Half"), {"choices": [{"delta": {}, "finish_reason": "length"}]}, "[DONE]")
    with (
        serving(openai(cut)) as (host, _),
        pytest.raises(BackendError, match="reached its limit of 9 tokens"),
    ):
        list(pick(Settings("openai", openai_base_url=f"{host}/v1")).stream(HI, 9))


def test_ollama_gone_in_mid_answer_keeps_what_had_arrived():
    half = ndjson({"message": {"content": "Half of"}, "done": False}, cut=True)
    with serving(ollama(half)) as (host, _):
        stream = pick(Settings("ollama", ollama_host=host, ollama_model="m")).stream(HI)
        assert next(stream) == "Half of"
        with pytest.raises(BackendError, match="in the middle"):
            list(stream)


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (recorded("v1_chat_404"), "has no model 'tiny'"),
        (
            Reply(400, [b'{"error": {"message": "maximum context length is 512 tokens"}}']),
            "does not fit the context",
        ),
        (Reply(500, [b'{"error": "out of memory"}']), "refused the request: out of memory"),
        (events(delta("Half"), cut=True), "stopped in the middle"),
        (events(delta("Half")), "stopped in the middle"),
        (events({"error": {"message": "overloaded"}}), "overloaded"),
    ],
)
def test_what_an_openai_server_gets_wrong_is_one_line(reply, line):
    with serving(openai(reply)) as (host, _):
        backend = pick(Settings("openai", openai_base_url=f"{host}/v1"))
        with pytest.raises(BackendError) as error:
            list(backend.stream(HI))
    assert line in str(error.value) and "\n" not in str(error.value)


def test_an_openai_server_that_cut_the_prompt_without_a_word_is_noticed():
    usage = {"choices": [], "usage": {"prompt_tokens": 258}}
    reply = events(delta("Fine.", finish_reason="stop"), usage, "[DONE]")
    with serving(openai(reply)) as (host, seen):
        stream = pick(Settings("openai", openai_base_url=f"{host}/v1")).stream(
            [{"role": "user", "content": "word " * 3000}]
        )
        assert next(stream) == "Fine."
        with pytest.raises(BackendError, match="read only 258 tokens"):
            list(stream)
    assert seen[-1]["body"]["stream_options"] == {"include_usage": True}


def test_an_option_that_an_openai_server_refuses_by_name_is_left_out():
    refusals = {
        "stream_options": b'{"error": {"message": "Unrecognized request argument: stream_options"}}',
        "max_tokens": b'{"error": {"message": "Use \'max_completion_tokens\' instead."}}',
        "temperature": b'{"error": {"message": "\'temperature\' does not support 0 with this model."}}',
    }

    def respond(method, path, body):
        if path == "/v1/models":
            return Reply(200, [b'{"data": [{"id": "tiny"}]}'])
        refused = next((text for option, text in refusals.items() if option in body), None)
        return Reply(400, [refused]) if refused else events(delta("Hello."), "[DONE]")

    with serving(respond) as (host, seen):
        assert "".join(pick(Settings("openai", openai_base_url=f"{host}/v1")).stream(HI, 9)) == "Hello."
    assert set(seen[-1]["body"]) == {"model", "messages", "stream", "max_completion_tokens"}


def test_an_openai_server_that_sends_nothing_ends_in_a_line(monkeypatch):
    from functools import partial

    from assistant import backends

    def respond(method, path, body):
        if path == "/v1/models":
            return Reply(200, [b'{"data": [{"id": "tiny"}]}'])
        time.sleep(1)
        return events(delta("Late."), "[DONE]")

    monkeypatch.setattr(backends, "http", partial(backends.http, timeout=0.2))
    with serving(respond) as (host, _), pytest.raises(BackendError, match="sent nothing for"):
        list(pick(Settings("openai", openai_base_url=f"{host}/v1")).stream(HI))


def test_a_key_is_sent_and_shown_nowhere():
    key = "sk-very-secret-1234567890"
    refused = Reply(401, [f'{{"error": {{"message": "Incorrect API key provided: {key}"}}}}'.encode()])
    echo = Reply(500, [f'{{"error": {{"message": "upstream said {key} is bad"}}}}'.encode()])
    settings = Settings("openai", openai_base_url="http://x/v1", openai_api_key=key)
    assert key not in repr(settings)
    with serving(openai(echo)) as (host, seen):
        backend = pick(Settings("openai", openai_base_url=f"{host}/v1", openai_api_key=key))
        assert key not in repr(backend)
        with pytest.raises(BackendError) as error:
            list(backend.stream(HI))
    assert seen[-1]["headers"]["Authorization"] == f"Bearer {key}" and key not in str(error.value)
    with serving(openai(refused, models=refused)) as (host, _), pytest.raises(BackendError) as error:
        pick(Settings("openai", openai_base_url=f"{host}/v1", openai_api_key=key))
    assert "refused the API key" in str(error.value) and key not in str(error.value)


def test_reasoning_of_an_openai_server_is_thinking():
    thoughts = []
    stream = events(delta("", reasoning_content="Hm."), delta("Yes."), ": comment", "[DONE]")
    with serving(openai(stream)) as (host, _):
        backend = pick(Settings("openai", openai_base_url=f"{host}/v1"))
        assert "".join(backend.stream(HI, on_thought=thoughts.append)) == "Yes."
    assert thoughts == ["Hm."]


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    ("text", "answer", "thought"),
    [
        ("<think>\nHm, <b>.\n</think>\n\nUse 16.", "Use 16.", ["Hm, <b>."]),
        ("Use <think> tags.", "Use <think> tags.", []),
        ("<table", "<table", []),
        ("<th", "<th", []),
        ("<think>never ends", "", ["never ends"]),
        ("", "", []),
    ],
)
def test_inline_thinking_is_cut_out_however_it_is_chunked(text, answer, thought, size):
    thoughts = []
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    assert "".join(without_thoughts(iter(pieces), thoughts.append)) == answer
    assert thoughts == thought


def test_token_bounds_hold_the_true_count():
    english = Path(__file__).read_text(encoding="utf-8")[:4000]
    low, high = token_bounds("Fine-tuning teaches a model the shape of an answer, not new facts. " * 20)
    assert low <= 20 * 15 <= high
    assert token_bounds("微調" * 100)[0] <= 130 <= token_bounds("微調" * 100)[1]
    assert token_bounds(english)[0] < token_bounds(english)[1]


def test_a_gguf_file_that_is_none_is_one_line(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")
    with pytest.raises(BackendError) as error:
        pick(Settings("llamacpp", gguf=str(broken)))
    assert str(broken) in str(error.value) and "\n" not in str(error.value)
    assert llm.pick(Settings("auto", ollama_host=NOBODY, gguf=str(broken))).name == "extract"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory) -> Path:
    """A tiny untrained model as a GGUF file."""
    from trainer.config import RunConfig
    from trainer.export.gguf import write_gguf
    from trainer.starter import make_starter

    folder = tmp_path_factory.mktemp("gguf")
    config = RunConfig(
        task="t",
        base_model="starter",
        train_file="x",
        starter_hidden_size=32,
        starter_layers=1,
        starter_vocab_size=400,
    )
    make_starter(config, ["Use a rank of 16.", "LoRA 的學習率"] * 20, folder / "base")
    return write_gguf(folder / "base", folder / "tiny.gguf")


def test_a_gguf_file_answers_in_this_process_and_says_when_a_prompt_is_too_long(gguf):
    backend = pick(Settings("llamacpp", gguf=str(gguf), num_ctx=512))
    assert (backend.name, backend.model, backend.context) == ("llamacpp", "tiny.gguf", 512)
    assert backend.count("Use a rank of 16.") > 3
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    assert "ok" in "".join(backend.stream(HI, 64, schema))
    with pytest.raises(BackendError) as error:
        list(backend.stream([{"role": "user", "content": "rank " * 2000}]))
    assert "\n" not in str(error.value)
    assert pick(Settings("llamacpp", gguf=str(gguf), num_ctx=512)).engine is backend.engine  # loaded once


def test_llama_cpp_that_ends_in_mid_answer_is_one_line_and_loaded_again_for_the_next(gguf):
    settings = Settings("llamacpp", gguf=str(gguf), num_ctx=480)  # an engine of its own
    backend = pick(settings)
    chat, engine = backend.engine.chat, backend.engine

    def dying(*args, **options):
        """A small model is done before it can be killed, so the rest is asked for once the process is gone."""
        yield "Half of"
        engine._process.kill()
        yield from chat(*args, **options)

    engine.chat = dying
    stream = backend.stream(HI, 400)
    assert next(stream) == "Half of"
    with pytest.raises(BackendError, match=r"load it again") as error:
        list(stream)
    assert "\n" not in str(error.value)
    assert pick(settings).engine is not engine and pick(settings).count("rank") > 0
