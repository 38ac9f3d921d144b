"""The Ask tab without a browser: who can be chosen to answer, what stands beside a conversation, what is taken away."""

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from replay import ollama, serving
from typer.testing import CliRunner

from assistant import conversations, llm
from assistant.conversations import Conversation
from assistant.types import Answer, Hit
from ui import downloads, i18n, models, render, render_chat
from ui.cli import app
from ui.home import Home

T = i18n.translator("en")
CLOSED = "http://127.0.0.1:9"


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("TUNESMITH_BACKEND", "OPENAI_BASE_URL", "TUNESMITH_GGUF"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path))
    monkeypatch.setenv("OLLAMA_HOST", CLOSED)
    return Home(tmp_path)


def rated(home, *texts):
    """One question with these answers, the first disliked, the others liked."""
    key = conversations.create(home.conversations)
    for number, text in enumerate(texts, 1):
        conversations.append(home.conversations, key, "Which rank?", Answer(text, [], False, "x", 0.1, "en"))
        conversations.vote(home.conversations, key, number, number > 1)


def test_the_menu_lists_the_models_that_are_there_and_always_the_quotes(home, monkeypatch):
    assert [value for _, value in models.choices(home, "auto", T)] == ["auto", "extract"]
    with serving(ollama()) as (host, _):
        monkeypatch.setenv("OLLAMA_HOST", host)
        values = [value for _, value in models.choices(home, "auto", T)]
    assert values[0] == "auto" and values[-1] == "extract" and "ollama:jin:latest" in values
    assert models.pulled([("", value) for value in values], "jin") == "ollama:jin:latest"


def test_a_chosen_model_stays_in_the_menu_while_its_server_is_away(home):
    labels = {value: label for label, value in models.choices(home, "ollama:qwen3:4b", T)}
    assert labels["ollama:qwen3:4b"] == T("ask.model_away", name="qwen3:4b")


def test_a_choice_becomes_the_settings_of_the_next_question(home):
    configured = home.settings()
    assert models.settings(home, "auto") == models.settings(home, "") == configured
    assert models.settings(home, "extract") == replace(configured, backend="extract")
    chosen = models.settings(home, "ollama:qwen3:4b")
    assert (chosen.backend, chosen.ollama_model) == ("ollama", "qwen3:4b")
    with pytest.raises(llm.BackendError, match="ollama serve"):
        llm.pick(chosen)


def test_titles_of_earlier_conversations_are_escaped_and_dated():
    now = time.time()
    items = [Conversation("a", "<script>x</script>", now, now), Conversation("b", "old", 0.0, 86_400.0 * 40)]
    html = render_chat.earlier(items, "b", T)
    assert (
        "<script>" not in html and "1970-02-1" in html and time.strftime("%H:", time.localtime(now)) in html
    )
    assert html.count("aria-current") == 1


def test_a_refusal_links_its_nearest_pages_once_and_only_where_there_is_a_page():
    near = Hit("kb:methods/lora:en#rank", "methods/lora", "LoRA › Rank", "en", "", 0.5, [], "rank")
    own = replace(
        near, id="/home/me/notes.md#a", page="/home/me/notes.md", heading="Notes", source="/home/me/notes.md"
    )
    text = "Not in this library: I looked for “weather”. The nearest pages: LoRA, Notes."
    html = render.answer(Answer(text, [], True, "extract", 0.1, "en", nearest=[near, own]), 1, T)
    assert '<a href="#page:methods/lora#rank">LoRA › Rank</a>' in html and "<li>Notes</li>" in html
    assert "weather" in html and html.count("earest pages") == 1


def test_ratings_are_downloaded_and_exported_as_the_same_rows(home, tmp_path):
    rated(home, "8", "16")
    api = FastAPI()
    downloads.routes(api, SimpleNamespace(home=home))
    page = TestClient(api)
    target = tmp_path / "pairs.jsonl"
    done = CliRunner().invoke(app, ["conversations", "export", "--to", str(target), "--as", "dpo"])
    assert done.exit_code == 0 and "1 rows" in done.output
    assert page.get("/preferences/dpo.jsonl").text == target.read_text(encoding="utf-8")
    assert [json.loads(line)["label"] for line in page.get("/preferences/kto.jsonl").text.splitlines()] == [
        False,
        True,
    ]
    assert page.get("/preferences/other.jsonl").status_code == 404
