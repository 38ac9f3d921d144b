"""The parity report on the page and the terminal, and what Ollama holds."""

from types import SimpleNamespace

import pytest
from replay import Reply, ollama, serving
from typer.testing import CliRunner

from trainer.export.causes import EXPLAINED, PAGES
from ui import render_runs, render_verify
from ui.cli import app
from ui.i18n import translator
from ui.tabs import served


def step(name, state="ok", kind=None, **changes):
    found = {
        "step": name, "engine": "llama.cpp", "state": state, "compared": 9, "same": 9, "kind": kind,
        "cause": EXPLAINED.get(kind), "page": PAGES.get(kind), "note": None, "values": {}, "differences": [],
    }  # fmt: skip
    return found | changes


REPORT = {
    "ready": False, "seconds": 2.5, "rows": 24, "same": 24, "kind": "template", "cause": EXPLAINED["template"],
    "steps": [
        step("prompts", "failed", "template", same=0, differences=[
            {"prompt": "thinking off", "kind": "template", "at": 3, "expected": "<b>", "found": "\n"}]),
        step("tokens", values={"not_nfc": 2}),
        step("greedy", values={"near_ties": 1, "logprob_difference": 1e-5}),
        step("score", values={"metric": "accuracy", "served": 0.9, "transformers": 0.91, "interval": [0.8, 0.97]}),
        step("score", "skipped", engine="ollama", note={"en": "no labels", "zh-TW": "沒有標籤"}),
    ],
}  # fmt: skip


@pytest.mark.parametrize("lang", ["en", "zh-TW"])
def test_the_report_shows_every_step_with_cause_page_and_first_difference(lang):
    t = translator(lang)
    html = render_runs.parity(REPORT, lang, t)
    assert html.count("<tr ") == 5
    assert EXPLAINED["template"][lang].split("；")[0].split(";")[0] in html
    assert "troubleshooting/export-talks-nonsense#template" in html
    assert "&lt;b&gt;" in html and "<b>'" not in html
    assert t("verify.ties", n=1) in html and t("verify.nfc", n=2) in html
    assert "0.900" in html and "0.800" in html
    assert ("no labels" if lang == "en" else "沒有標籤") in html


def test_a_report_of_before_there_were_steps_still_shows_its_verdict():
    t = translator("en")
    old = {"ready": True, "same": 3, "rows": 3, "cause": None}
    assert render_verify.html(old, "en", t) == ""
    assert "3" in render_runs.parity(old, "en", t)


def test_the_cost_of_quantizing_is_told_in_figures():
    cost = {
        "q8_0": {
            "bytes": {"before": 200, "after": 106}, "perplexity": {"before": 3.21, "after": 3.22}, "holds": True,
            "score": {"metric": "accuracy", "before": 0.9, "after": 0.88, "interval": [0.8, 0.95], "n": 50},
        }
    }  # fmt: skip
    lines = render_verify.cost_lines(cost, translator("en"))
    assert lines[0] == "q8_0: 53% of the size; perplexity 3.21 before, 3.22 after"
    assert lines[1] == "accuracy 0.900 before, 0.880 after (95 %: 0.800–0.950)"
    assert render_verify.cost_lines(None, translator("en")) == []


def context(host):
    return SimpleNamespace(home=SimpleNamespace(settings=lambda: SimpleNamespace(ollama_host=host)))


def test_models_in_ollama_are_listed_and_removed_on_the_page():
    t = translator("en")
    with serving(ollama()) as (host, seen):
        html, choice = served.look(context(host), "en", t)
        assert "jin:latest" in html and "GB" in html
        assert ("jin:latest", "jin:latest") in choice.choices
        html, _ = served.remove(context(host), "en", t, "jin:latest")
    assert "jin:latest was removed" in html
    assert [r["body"] for r in seen if r["method"] == "DELETE"] == [{"model": "jin:latest"}]
    html, _ = served.look(context("127.0.0.1:9"), "en", t)
    assert "does not answer" in html


def test_models_in_ollama_are_listed_and_removed_on_the_command_line(monkeypatch, tmp_path):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path))
    with serving(ollama()) as (host, seen):
        monkeypatch.setenv("OLLAMA_HOST", host)
        listed = CliRunner().invoke(app, ["ollama", "list"])
        assert listed.exit_code == 0 and "jin:latest" in listed.output
        removed = CliRunner().invoke(app, ["ollama", "remove", "jin:latest"])
    assert removed.output == "removed jin:latest\n"
    assert seen[-1]["method"] == "DELETE"


def test_what_cannot_be_verified_or_combined_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path))
    for arguments, said in [
        (["verify", "reviews/v1"], "no run 'reviews/v1'"),
        (["combine", str(tmp_path), "reviews/v1=0.5"], "no run 'reviews/v1'"),
    ]:
        done = CliRunner().invoke(app, arguments)
        assert said in str(done.exception)


def test_a_server_without_models_is_said():
    def nothing(method, path, body):
        return Reply(200, [b'{"models": []}']) if path == "/api/tags" else ollama()(method, path, body)

    with serving(nothing) as (host, _):
        html, _ = served.look(context(host), "en", translator("en"))
    assert "holds no model" in html
