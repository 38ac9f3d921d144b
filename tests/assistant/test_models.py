"""What a person can choose from: the models of each backend, and bringing one onto the Ollama server."""

import json

import pytest
from replay import Reply, ndjson, ollama, recorded, serving

from assistant import llm
from assistant.llm import BackendError, ModelInfo, Progress, Settings, models, pull

NOBODY = "http://127.0.0.1:9"


def openai_lists(*cards: dict) -> Reply:
    return Reply(200, [json.dumps({"data": list(cards)}).encode()])


def pulling(reply: Reply):
    """An Ollama server whose downloads answer as given."""
    return lambda method, path, body: reply if path == "/api/pull" else ollama()(method, path, body)


def test_ollamas_models_come_with_size_context_and_thinking_and_without_embedders():
    with serving(ollama()) as (host, _):
        found = {model.name: model for model in models(Settings("ollama", ollama_host=host))}
    assert found["q3think:latest"] == ModelInfo("q3think:latest", "ollama", 493364, 4096, True)
    assert next(iter(found)) == "jin:latest" and "minilm:latest" not in found


def test_a_model_that_is_deleted_meanwhile_is_left_out():
    def respond(method, path, body):
        gone = path == "/api/show" and body["model"] != "q3think:latest"
        return recorded("show_404") if gone else ollama()(method, path, body)

    with serving(respond) as (host, _):
        assert [model.name for model in models(Settings("ollama", ollama_host=host))] == ["q3think:latest"]


def test_an_openai_servers_models_come_with_what_it_tells():
    listed = openai_lists(
        {"id": "vllm", "max_model_len": 4096},
        {"id": "llama.cpp", "meta": {"n_ctx_train": 32768, "size": 1000}},
        {"id": "router", "context_length": 8192},
        {"id": "plain"},
        {"object": "model"},
    )
    with serving(lambda *_: listed) as (host, _):
        found = models(Settings("openai", openai_base_url=f"{host}/v1"))
    assert [(model.name, model.size, model.context) for model in found] == [
        ("vllm", 0, 4096), ("llama.cpp", 1000, 32768), ("router", 0, 8192), ("plain", 0, 0),
    ]  # fmt: skip


def test_auto_lists_every_backend_that_is_there():
    with serving(ollama()) as (host, _), serving(lambda *_: openai_lists({"id": "tiny"})) as (url, _):
        found = models(Settings(ollama_host=host, openai_base_url=url, gguf="/nowhere.gguf"))
    assert {model.backend for model in found} == {"ollama", "openai"}
    assert models(Settings(ollama_host=NOBODY)) == [] == models(Settings("extract"))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (Settings("ollama", ollama_host=NOBODY), "no Ollama answers at"),
        (Settings("openai", openai_base_url=NOBODY), "no answer from"),
        (Settings("llamacpp", gguf="/nowhere.gguf"), "no such GGUF file"),
        (Settings("magic"), "unknown answering backend"),
    ],
)
def test_a_backend_that_is_asked_for_and_not_there_is_one_line(settings, line):
    with pytest.raises(BackendError, match=line):
        models(settings)


def test_a_download_tells_how_far_all_of_its_files_are():
    reply = ndjson(
        {"status": "pulling manifest"},
        {"status": "pulling aa", "digest": "sha256:aa", "total": 100},
        {"status": "pulling aa", "digest": "sha256:aa", "total": 100, "completed": 100},
        {"status": "pulling bb", "digest": "sha256:bb", "total": 50, "completed": 10},
        {"status": "success"},
    )
    with serving(pulling(reply)) as (host, seen):
        steps = list(pull(Settings(ollama_host=host), " qwen3:4b "))
    assert seen[-1]["body"] == {"model": "qwen3:4b"}
    assert steps == [
        Progress("pulling manifest"), Progress("pulling aa", 0, 100), Progress("pulling aa", 100, 100),
        Progress("pulling bb", 110, 150), Progress("success", 110, 150),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (recorded("pull_offline"), r"'x' was not pulled .*no such host.*check its name and the network"),
        (ndjson({"status": "pulling manifest"}, cut=True), "in the middle"),
        (ndjson({"status": "pulling manifest"}), "was not pulled"),
    ],
)
def test_a_download_that_fails_is_one_line_after_what_had_arrived(reply, line):
    with serving(pulling(reply)) as (host, _):
        steps = pull(Settings(ollama_host=host), "x")
        assert next(steps).status == "pulling manifest"
        with pytest.raises(BackendError, match=line) as error:
            list(steps)
    assert "\n" not in str(error.value)


def test_a_download_without_a_name_or_a_server_is_one_line():
    with serving(ollama()) as (host, _), pytest.raises(BackendError, match="name a model"):
        list(pull(Settings(ollama_host=host), " "))
    with pytest.raises(BackendError, match="沒有 Ollama"):
        list(llm.pull(Settings(ollama_host=NOBODY), "x", "zh-TW"))
