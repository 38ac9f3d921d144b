"""A wrong answer → what in it and in its run points to a known symptom (kb/facts/symptoms.yaml), with the evidence.

Only what can be seen is told: the text itself, the other model's text, the run's own scores and parity report. Where
nothing is seen, nothing is claimed. `question` puts the findings to the library. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from kb.facts import Symptom, Text, by_id
from trainer.config import RunConfig
from trainer.data.language import one_script_only
from trainer.evaluate import OTHER, as_label

MARKS = re.compile(r"<\|[a-z_]+\|>|<(?:start|end)_of_turn>|\[/?INST\]|</?s>")
AGAIN = re.compile(r"(.{2,60}?)\1{4,}", re.DOTALL)
TAIL = 600  # characters at the end in which repeating is looked for
LOW_RECALL, LOW_SCORE = 0.5, 0.8


@dataclass(frozen=True)
class Case:
    """One bad answer with what is known of it. other: what the model beside it said; cut: it ended at its limit."""

    prompt: str
    answer: str
    expected: str | None = None
    other: str | None = None
    cut: bool = False


@dataclass(frozen=True)
class Sign:
    """A symptom that is likely, and what was seen of it."""

    symptom: Symptom
    seen: Text


def signs(
    case: Case, config: RunConfig, labels: list[str] | None, scores: dict[str, Any], parity: dict[str, Any] | None
) -> list[Sign]:  # fmt: skip
    """What can be seen, the plainest first; a symptom once."""
    found = [*_in_text(case), *_of_label(case, labels, scores), *_of_run(case, config, scores, parity)]
    rows, once = by_id("symptoms"), {}
    for symptom, en, zh in found:
        once.setdefault(symptom, Sign(rows[symptom], Text.model_validate({"en": en, "zh-TW": zh})))
    return list(once.values())


def _in_text(case: Case) -> list[tuple[str, str, str]]:
    text, found = case.answer.strip(), []
    if not text:
        return [("empty-answers", "The answer is empty.", "回答是空的。")]
    if mark := MARKS.search(text):
        found.append((
            "export-differs", f"The answer shows a mark of a chat template, {mark[0]}.", f"回答裡出現對話範本的標記 {mark[0]}。",
        ))  # fmt: skip
    if "<think>" in text or "</think>" in text:
        found.append(("think-tags", "The answer shows its thoughts.", "回答裡帶有思考過程。"))
    if again := AGAIN.search(text[-TAIL:]):
        piece = " ".join(again[1].split())[:30]
        found.append(("repetition", f"It says “{piece}” again and again.", f"「{piece}」一再重複。"))
    elif case.cut:
        found.append((
            "answers-do-not-stop", "It ended at the limit of tokens, not by itself.", "回答是到了 token 上限才停，不是自己結束。",
        ))  # fmt: skip
    if {_script(case.prompt), _script(text)} == {"traditional", "simplified"}:
        found.append((
            "wrong-script", "Question and answer are in different Chinese scripts.", "問題與回答的繁簡不同。",
        ))  # fmt: skip
    return found


def _script(text: str) -> str | None:
    """The Chinese script of a text that shows it by a character which the other does not write; None otherwise."""
    shown = [bool(chars & set(text)) for chars in one_script_only()]
    return {(True, False): "traditional", (False, True): "simplified"}.get(tuple(shown))


def _of_label(case: Case, labels: list[str] | None, scores: dict[str, Any]) -> list[tuple[str, str, str]]:
    if not labels or not case.answer.strip():
        return []
    if as_label(case.answer, labels) == OTHER:
        return [("output-format", "The answer is none of the labels.", "回答不是任何一個標籤。")]
    row = ((scores.get("tuned") or {}).get("per_class") or {}).get(case.expected or "")
    if row and row["recall"] < LOW_RECALL:
        return [(
            "one-class-fails",
            f"On the test rows only {row['recall']:.0%} of “{case.expected}” were found.",
            f"測試資料中，「{case.expected}」只找到 {row['recall']:.0%}。",
        )]  # fmt: skip
    return []


def _of_run(
    case: Case, config: RunConfig, scores: dict[str, Any], parity: dict[str, Any] | None
) -> list[tuple[str, str, str]]:
    found = []
    if parity and not parity.get("ready"):
        found.append((
            "export-differs", "The exported file answers otherwise than the model in training.", "匯出的檔案與訓練時的回答不同。",
        ))  # fmt: skip
    if case.other is not None and case.other.strip() == case.answer.strip() and case.answer.strip():
        found.append(("underfitting", "The other model says exactly the same.", "另一個模型的回答完全相同。"))
    tuned = scores.get("tuned") or {}
    score = tuned.get("accuracy", tuned.get("exact_match"))
    base = (scores.get("base") or {}).get("accuracy", (scores.get("base") or {}).get("exact_match"))
    if score is not None and base is not None and score < base:
        found.append((
            "worse-than-base", f"It scores {score:.3f}, its base {base:.3f}.", f"分數 {score:.3f}，基底模型是 {base:.3f}。",
        ))  # fmt: skip
    if score is not None and score < LOW_SCORE:
        found.append((
            "low-accuracy", f"It is right on {score:.0%} of the test rows.", f"測試資料只答對 {score:.0%}。",
        ))  # fmt: skip
    return found


def question(found: list[Sign], config: RunConfig, lang: str) -> str:
    """What the library is asked: the likeliest symptom by name, in the run's terms."""
    name = (found[0].symptom if found else by_id("symptoms")["low-accuracy"]).name.get(lang)
    kind = {"full": ("full fine-tuning", "全參數微調")}.get(config.peft, (config.peft, config.peft))
    if lang == "en":
        return f"{name}: what causes it after {config.method} with {kind[0]}, and how is it mended?"
    return f"{name}：用 {config.method}（{kind[1]}）訓練後為什麼會這樣，該怎麼改善？"
