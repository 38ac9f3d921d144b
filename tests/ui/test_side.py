"""Two models side by side: a stop keeps what had arrived, a failed question is not said again, times are shown."""

from types import SimpleNamespace

import pytest
from replay import ollama, said, serving

from trainer.served_score import Count
from ui import render_test, speak
from ui.i18n import translator
from ui.speak import Spoken
from ui.tabs import side

T = translator("en")


def context(host, tasks):
    return SimpleNamespace(
        home=SimpleNamespace(tasks=tasks, settings=lambda: SimpleNamespace(ollama_host=host))
    )


def asked(text, left="ollama:jin:latest", right="ollama:jin:latest"):
    return side.Asked(text, "reviews/v1", {"left": left, "right": right}, {"temperature": 0.5, "max_tokens": 9, "top_p": 0.9, "seed": 3}, False)  # fmt: skip


def test_both_answer_with_the_same_options_and_their_times(tmp_path):
    with serving(ollama(lambda body: said("two words"))) as (host, seen):
        *_, last = side.conversation(context(host, tmp_path), "en", T, asked("hello"), side.NOTHING_SAID)
    sent = [request["body"] for request in seen if request["path"] == "/api/chat"]
    assert len(sent) == 2 and sent[0]["options"] == sent[1]["options"]
    assert {key: sent[0]["options"][key] for key in ("temperature", "top_p", "seed", "num_predict")} == {"temperature": 0.5, "top_p": 0.9, "seed": 3, "num_predict": 9}  # fmt: skip
    left, right = side.views(last, T)
    assert left == right or "first token" in left[1]["content"]
    assert "first token" in right[1]["content"] and "two words" in right[1]["content"]


def test_another_pair_of_models_knows_nothing_of_what_was_said(tmp_path):
    with serving(ollama(lambda body: said("well"))) as (host, _):
        *_, last = side.conversation(context(host, tmp_path), "en", T, asked("one"), side.NOTHING_SAID)
        *_, last = side.conversation(context(host, tmp_path), "en", T, asked("two"), last)
        assert [m["content"] for m in last["left"]] == ["one", "well", "two", "well"]
        other = asked("three", left="ollama:other")
        *_, last = side.conversation(context(host, tmp_path), "en", T, other, last)
    assert [m["content"] for m in last["right"]] == ["three", "well"]


def test_a_stop_keeps_what_had_arrived_and_a_failed_question_is_not_sent_again():
    half = {"role": "assistant", "content": "half an", "spoken": Spoken("half an", 0.1, 0.2), "limit": 9}
    question = {"role": "user", "content": "q"}
    stopped = side.ended({"pair": {}, "left": [question], "right": [question, half]})
    left, right = side.views(stopped, T)
    assert "half an" in right[1]["content"] and "Stopped" in right[1]["content"]
    assert "Stopped" in left[1]["content"]
    assert side.sendable(stopped["left"]) == []
    assert [m["content"] for m in side.sendable(stopped["right"])] == ["q", "half an"]
    failed = [question, {"role": "assistant", "content": "", "error": "<div>no</div>"}, {"role": "user", "content": "again"}]  # fmt: skip
    assert side.sendable(failed) == [{"role": "user", "content": "again"}]


def test_a_server_that_is_away_is_told_on_its_side_only(tmp_path):
    *_, last = side.conversation(context("127.0.0.1:9", tmp_path), "en", T, asked("hello"), side.NOTHING_SAID)
    assert "Install Ollama" in last["left"][-1]["error"] and "127.0.0.1:9" in last["left"][-1]["error"]


@pytest.mark.parametrize(
    ("typed", "model"),
    [
        ("run:reviews/v1", "run:reviews/v1"),
        ("ollama:qwen3:4b", "ollama:qwen3:4b"),
        ("/models/x.gguf", "gguf:/models/x.gguf"),
    ],
)
def test_a_path_that_is_typed_is_a_model(typed, model):
    assert speak.named(typed) == model


def test_what_a_model_or_a_row_says_stays_text():
    row = {"row": 0, "prompt": [{"role": "user", "content": "<img src=x>"}], "expected": "a", "found": "<b>b"}
    html = render_test.wrong(Count(3, 1, 0, [row]), T) + render_test.side("<script>x", "A", T)
    assert "<img" not in html and "<b>b" not in html and "<script>" not in html
    shown = render_test.score(Count(40, 10, 9), "run:reviews/v1", T, True)
    assert "10 of 40 rows; right 90.0% (95 %: 59.6%–98.2%)" in shown
