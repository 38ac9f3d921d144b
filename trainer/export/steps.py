"""The four steps of the parity gate as data: what was compared, how much is equal, and the cause of what is not.

1 prompts: a template's rendering; 2 tokens: how text is split; 3 greedy: the likeliest tokens; 4 score: the task's
measure. parity.py runs them against llama.cpp, served.py against Ollama. Pure, but for the two models it is given.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from trainer.config import RunConfig
from trainer.evaluate import as_label, wilson
from trainer.export.causes import EXPLAINED, PAGES
from trainer.export.judge import Case, prompt_difference
from trainer.export.probes import conversations, texts

READY = 0.98  # share that must agree; a tokenizer or a near tie may part on a text or two
STEPS = ("prompts", "tokens", "greedy", "score")
SHOWN = 10  # differences kept of a step


@dataclass
class Step:
    """One step against one engine. state: "ok", "attention" (differs, but not where this run needs it), "failed" or
    "skipped" (`note` says why, in both languages). `cause` and `page` are those of `kind`."""

    step: str
    engine: str
    state: str = "ok"
    compared: int = 0
    same: int = 0
    kind: str | None = None
    cause: dict[str, str] | None = None
    page: str | None = None
    note: dict[str, str] | None = None
    values: dict[str, Any] = field(default_factory=dict)
    differences: list[dict[str, Any]] = field(default_factory=list)

    def named(self, kind: str | None) -> Step:
        """The step with the cause of `kind`, where it did not pass."""
        self.kind = kind if self.state in ("failed", "attention") else None
        self.cause = EXPLAINED[self.kind] if self.kind else None
        self.page = PAGES.get(self.kind, PAGES["numbers"]) if self.kind else None
        return self


@dataclass
class Sides:
    """What both sides are asked and what transformers answers: the ground of the steps, for any engine.

    expected: transformers' greedy answer to each case, as text; gold: the row's own answer, None for raw text.
    """

    tokenizer: Any
    config: RunConfig
    cases: list[Case]
    expected: list[str]
    gold: list[str | None]
    labels: list[str] | None
    room: int
    with_tools: bool


def skipped(step: str, engine: str, en: str, zh: str) -> Step:
    return Step(step, engine, "skipped", note={"en": en, "zh-TW": zh})


def as_dicts(steps: list[Step]) -> list[dict[str, Any]]:
    return [asdict(step) for step in steps]


def expected_prompts(tokenizer: Any) -> list[tuple[str, Case, dict[str, Any]]]:
    """(name, case, options) of every conversation that the training template renders."""
    from jinja2 import TemplateError

    found = []
    for name, (messages, options) in conversations(tokenizer.chat_template or "").items():
        try:
            text = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **options
            )
        except TemplateError:  # it refuses such a conversation itself: Gemma knows no system message
            continue
        found.append((name, Case(-1, messages, *split(tokenizer, text)), options))
    return found


def split(tokenizer: Any, text: str) -> tuple[str, list[int]]:
    """(a rendered prompt without its BOS, its token ids)."""
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return text.removeprefix(tokenizer.bos_token or ""), ids


def prompts_step(
    engine: str, expected: list[tuple[str, Case, dict[str, Any]]],
    rendered: Callable[[Case, dict[str, Any]], tuple[str, list[int]]], with_tools: bool,
) -> Step:  # fmt: skip
    """rendered(case, options): the prompt as the engine renders it, without BOS, and its tokens (or just their first)."""
    if not expected:
        return skipped("prompts", engine, "the model has no chat template", "模型沒有對話模板")
    step = Step("prompts", engine, compared=len(expected))
    for name, case, options in expected:
        difference = prompt_difference(case, *rendered(case, options))
        if difference is None or difference["kind"] == "tokenizer":  # which the next step shows
            step.same += 1
        else:
            step.differences.append({"prompt": name, **difference})
    if step.differences:
        only_tools = all(one["prompt"] == "tools" for one in step.differences) and not with_tools
        step.state = "attention" if only_tools else "failed"
    return step.named(commonest(step.differences))


def tokens_step(engine: str, tokenizer: Any, tokenize: Callable[[str], list[int]]) -> Step:
    """The ids of 200 texts, each as a user's message in a chat. tokenize(prompt without BOS) → the engine's ids.

    llama.cpp does not normalise, so a text that is not NFC is compared in NFC where the tokenizer makes it so.
    """
    step, chats = Step("tokens", engine), bool(tokenizer.chat_template)
    for text in texts():
        case = Case(-1, None, *split(tokenizer, _as_prompt(tokenizer, text) if chats else text))
        if not chats:
            case.ids = tokenizer(text, verbose=False)["input_ids"]
        found = tokenize(case.text)
        composed = unicodedata.normalize("NFC", case.text)
        if found != case.ids and composed != case.text and tokenize(composed) == case.ids:
            step.values["not_nfc"] = step.values.get("not_nfc", 0) + 1
            found = case.ids
        step.compared += 1
        step.same += found == case.ids
        if found != case.ids:
            kind = (prompt_difference(case, case.text, found) or {})["kind"]
            at = next((i for i, (a, b) in enumerate(zip(case.ids, found, strict=False)) if a != b), 0)
            ids = {"expected": case.ids[at : at + 8], "found": found[at : at + 8]}
            step.differences.append({"kind": kind, "text": text[:40], "at": at, **ids})
    if step.differences:
        step.state = "failed" if step.same < READY * step.compared else "attention"
    step.differences, kind = step.differences[:SHOWN], commonest(step.differences)
    return step.named(kind)


def _as_prompt(tokenizer: Any, text: str) -> str:
    chat = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)


def score_step(
    engine: str, metric: str, right: list[bool], reference: list[bool], kind: str | None = None
) -> Step:
    """The task's score through the engine beside transformers', on the same rows.

    right, reference: whether the engine's and transformers' answer to a row is the expected one. Passes when the
    engine's share lies in the 95 % interval (Wilson) of the reference's.
    """
    n = len(reference)
    low, high = wilson(sum(reference), n)
    share = sum(right) / n
    step = Step("score", engine, compared=n, same=sum(a == b for a, b in zip(right, reference, strict=True)))
    step.values = {
        "metric": metric,
        "served": share,
        "transformers": sum(reference) / n,
        "interval": [low, high],
    }
    step.state = "ok" if low - 1e-9 <= share <= high + 1e-9 else "failed"
    return step.named(kind or "numbers")


def right(answers: list[str], sides: Sides) -> list[bool]:
    """Whether each answer is the row's own: the same label, or else the same text."""
    if sides.labels:
        answers = [as_label(text, sides.labels) for text in answers]
    return [text == gold for text, gold in zip(answers, sides.gold[: len(answers)], strict=True)]


def commonest(differences: list[dict[str, Any]]) -> str | None:
    kinds = Counter(one["kind"] for one in differences)
    return kinds.most_common(1)[0][0] if kinds else None
