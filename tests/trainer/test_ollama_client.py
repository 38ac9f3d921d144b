"""The Ollama client against recordings of a real server, and against the live one where OLLAMA_HOST answers."""

import hashlib
import os
import time

import pytest
from replay import Reply, ndjson, ollama, recorded, serving

from trainer.export.ollama import Ollama, OllamaError, base_url, reason

HI = [{"role": "user", "content": "Hi"}]


def test_a_chat_streams_what_the_recorded_server_sent():
    with serving(ollama()) as (host, seen):
        parts = list(Ollama(host).chat("q3think", HI, num_ctx=2048, max_tokens=5))
    assert "".join(part["message"]["content"] for part in parts) == "www(name rights©':\n"
    assert parts[-1]["done"] and parts[-1]["prompt_eval_count"] == 14
    sent = seen[0]["body"]
    assert sent["truncate"] is False and sent["options"]["num_ctx"] == 2048 and sent["stream"] is True


def test_every_chat_sets_a_context_and_forbids_truncation():
    with serving(ollama()) as (host, seen):
        client = Ollama(host)
        list(client.chat("q3think", HI, 512, think=False, schema={"type": "object"}, seed=3, keep_alive="1m"))
    body = seen[0]["body"]
    assert (body["truncate"], body["options"]["num_ctx"], body["options"]["seed"]) == (False, 512, 3)
    assert body["think"] is False and body["format"] == {"type": "object"} and body["keep_alive"] == "1m"


@pytest.mark.parametrize(
    ("recording", "expected"),
    [
        ("chat_404", "has no model 'm'; run `ollama pull m` or choose one of: jin:latest"),
        (
            "chat_overflow_jinja_history_truncate_false_400",
            "does not fit the context of 'm' (512 tokens, 1894 needed)",
        ),
        ("chat_overflow_gotemplate_shift_false_400", "does not fit the context of 'm' (512 tokens)"),
        ("chat_think_unsupported_400", "'m' cannot think"),
    ],
)
def test_a_refused_chat_is_one_line_that_says_what_to_do(recording, expected):
    with serving(ollama(recorded(recording))) as (host, _), pytest.raises(OllamaError) as error:
        list(Ollama(host).chat("m", HI, num_ctx=512))
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_errors_are_said_in_the_readers_language():
    with (
        serving(ollama(recorded("chat_404"))) as (host, _),
        pytest.raises(OllamaError, match="沒有模型「m」"),
    ):
        list(Ollama(host, "zh-TW").chat("m", HI, num_ctx=512))


def test_a_server_that_goes_away_in_mid_answer_is_told_apart_from_one_that_was_never_there():
    half = ndjson({"message": {"content": "Half"}, "done": False}, cut=True)
    with serving(ollama(half)) as (host, _):
        stream = Ollama(host).chat("m", HI, num_ctx=512)
        assert next(stream)["message"]["content"] == "Half"
        with pytest.raises(OllamaError, match="stopped in the middle"):
            list(stream)
    with pytest.raises(OllamaError, match="does not answer"):  # the same address, now closed
        list(Ollama(host).chat("m", HI, num_ctx=512))


def test_a_stream_that_ends_without_done_is_an_error():
    half = ndjson({"message": {"content": "Half"}, "done": False})
    with serving(ollama(half)) as (host, _), pytest.raises(OllamaError, match="no end of stream"):
        list(Ollama(host).chat("m", HI, num_ctx=512))


def test_an_error_line_inside_an_http_200_stream_is_raised(tmp_path):
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"GGUF" * 10)

    def respond(method, path, body):
        return recorded("create_unsupported_arch") if path == "/api/create" else ollama()(method, path, body)

    with serving(respond) as (host, _):
        steps = Ollama(host).create("m", gguf)
        assert next(steps) == "converting model"
        with pytest.raises(OllamaError, match='unsupported architecture "Qwen3ForCausalLM"'):
            list(steps)


def test_create_uploads_the_file_by_its_digest_and_ends_with_success(tmp_path):
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(os.urandom(3_000_000))
    digest = f"sha256:{hashlib.sha256(gguf.read_bytes()).hexdigest()}"
    with serving(ollama()) as (host, seen):
        steps = list(
            Ollama(host).create("task-v1", gguf, template="{{ .Prompt }}", parameters={"num_ctx": 4096})
        )
    assert steps[-1] == "success"
    assert [(r["method"], r["path"]) for r in seen[:2]] == [
        ("HEAD", f"/api/blobs/{digest}"),
        ("POST", f"/api/blobs/{digest}"),
    ]
    assert seen[1]["body"] == {"bytes": 3_000_000}
    assert (
        seen[2]["body"]["files"] == {"model.gguf": digest} and seen[2]["body"]["template"] == "{{ .Prompt }}"
    )


def test_a_file_that_the_server_already_has_is_not_sent_again(tmp_path):
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    with serving(lambda *_: Reply(200)) as (host, seen):
        Ollama(host).push_blob(gguf)
    assert [request["method"] for request in seen] == ["HEAD"]


def test_models_show_ps_and_version_read_the_recorded_answers():
    with serving(ollama()) as (host, _):
        client = Ollama(host)
        assert client.version() == "0.32.15"
        assert client.models()[0]["name"] == "jin:latest"
        assert client.show("q3think")["model_info"]["qwen3.context_length"] == 4096
        assert client.ps()[0]["context_length"] == 4096


def test_deleting_a_model_that_is_not_there_says_so():
    def respond(method, path, body):
        return recorded("delete_404") if path == "/api/delete" else ollama()(method, path, body)

    with serving(respond) as (host, _), pytest.raises(OllamaError, match="has no model 'zz2'"):
        Ollama(host).delete("zz2")
    with serving(ollama()) as (host, seen):
        Ollama(host).delete("zz2")
    assert seen[0]["method"] == "DELETE" and seen[0]["body"] == {"model": "zz2"}


def test_no_server_is_known_within_a_second():
    start = time.monotonic()
    assert Ollama("127.0.0.1:9").version() is None
    assert time.monotonic() - start < 1.5


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with serving(ollama()) as (host, _):
        assert Ollama(host).version() == "0.32.15" and Ollama(host).models()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        (":8080", "http://127.0.0.1:8080"),
        ("8080", "http://127.0.0.1:8080"),
        ("box", "http://box:11434"),
        ("box:1234/", "http://box:1234"),
        ("https://ollama.example.org", "https://ollama.example.org:443"),
        ("http://[::1]:11434", "http://[::1]:11434"),
    ],
)
def test_hosts_are_read_as_ollama_reads_them(host, url):
    assert base_url(host) == url


def test_a_host_that_is_no_address_is_refused_in_one_line():
    with pytest.raises(Exception, match="OLLAMA_HOST") as error:
        base_url("box:notaport")
    assert "\n" not in str(error.value)


def test_the_innermost_reason_is_found():
    assert reason('{"error": "{\\"error\\":{\\"code\\":400,\\"message\\":\\"too long\\"}}"}') == "too long"
    assert reason("plain\ntext") == "plain text"


@pytest.fixture
def live() -> Ollama:
    client = Ollama(os.environ.get("OLLAMA_HOST", ""))
    if client.version() is None:
        pytest.skip("no live Ollama server answers at OLLAMA_HOST")
    if not client.models():
        pytest.skip("the live Ollama server has no model")
    return client


def test_a_live_server_answers_and_refuses_what_does_not_fit(live):
    model = live.models()[0]["name"]
    assert list(live.chat(model, HI, num_ctx=512, max_tokens=8))[-1]["done"]
    with pytest.raises(OllamaError, match="does not fit"):
        list(live.chat(model, [{"role": "user", "content": "word " * 3000}], num_ctx=512, max_tokens=8))
