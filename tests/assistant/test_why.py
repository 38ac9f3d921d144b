"""What is told of a wrong answer is what can be seen of it."""

import pytest

from assistant.why import Case, question, signs
from kb.facts import by_id
from trainer.config import RunConfig

CONFIG = RunConfig(task="reviews", base_model="Qwen/Qwen3-0.6B", train_file="x.csv", peft="lora")
GOOD = {"tuned": {"accuracy": 0.95, "per_class": {"bad": {"recall": 0.9}, "good": {"recall": 0.2}}}}


def named(case, labels=None, scores=GOOD, parity=None):
    return [sign.symptom.id for sign in signs(case, CONFIG, labels, scores, parity)]


@pytest.mark.parametrize(
    ("case", "ids"),
    [
        (Case("q", " "), ["empty-answers"]),
        (Case("q", "fine<|im_end|>\n<|im_start|>user"), ["export-differs"]),
        (Case("q", "<think>well</think> fine"), ["think-tags"]),
        (Case("q", "the room the room the room the room the room the room"), ["repetition"]),
        (Case("q", "這個房間很好，" * 8), ["repetition"]),
        (Case("q", "One, two, three and so on", cut=True), ["answers-do-not-stop"]),
        (Case("請問這間飯店的服務怎麼樣？", "这间饭店的服务很好，房间也很干净"), ["wrong-script"]),
        (Case("q", "A whole sentence that says nothing of its cause."), []),
        (Case("q", "the same", other="the same "), ["underfitting"]),
    ],
)
def test_what_the_text_shows(case, ids):
    assert named(case) == ids


def test_what_labels_scores_and_parity_show():
    labels = ["good", "bad"]
    assert named(Case("q", "well", "good"), labels) == ["output-format"]
    assert named(Case("q", "bad", "good"), labels) == ["one-class-fails"]
    assert named(Case("q", "good", "bad"), labels) == [], "one wrong row of a good model has no seen cause"
    poor = {"tuned": {"accuracy": 0.5}, "base": {"accuracy": 0.6}}
    assert named(Case("q", "x"), None, poor, {"ready": False}) == [
        "export-differs", "worse-than-base", "low-accuracy",
    ]  # fmt: skip


def test_the_library_is_asked_in_the_readers_language():
    found = signs(Case("q", ""), CONFIG, None, {}, None)
    assert by_id("symptoms")["empty-answers"].name.en in question(found, CONFIG, "en")
    assert by_id("symptoms")["low-accuracy"].name.zh_TW in question([], CONFIG, "zh-TW")
