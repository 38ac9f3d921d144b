"""One question at a time: what a described task still needs is asked for in the chat, filled into its slot, never asked twice.

Between the Ask tab and recommend.py. An answer is read by patterns in both languages, and by structured output where a
model answers; a number of the model's counts only where it stands in the person's words. The state is in the stored
turns (Answer.ask, Answer.filled), so that a refresh loses nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from assistant import situation as reading
from assistant.llm import Backend
from assistant.numerals import NUMBER, number
from assistant.recommend import recommend, situation
from assistant.types import Answer, Citation, Recommendation
from kb.errors import UserError
from kb.pages import page as read_page

UNKNOWN = r"不知道|不清楚|不確定|不确定|沒想過|没想过|還沒決定|还没决定|略過|跳過|跳过|don'?t know|do not know|not sure|no idea|unsure|skip|later"
NONE = r"^\s*(?:目前|現在|现在)?\s*(?:都)?(?:沒有|没有|無|无|零|none|no|nothing|zero|0)\b"
NEVER = r"不會|不会|不變|不变|固定|不太|很少|never|no\b|static|rarely|幾乎不|几乎不"
DAILY = r"每天|每日|天天|隨時|随时|daily|every ?day|hourly|real[- ]?time"
WEEKLY = (
    r"每週|每周|每星期|每月|每個月|每个月|每季|常常|經常|经常|weekly|every week|monthly|every month|often|yes"
)
ASKS = r"[?？]\s*$|^(?:what|how|why|which|can|should|is|are|do|does)\b|什麼|什么|如何|怎麼|怎么|為何|为何|為什麼|为什么|嗎|吗"
CHOICES: dict[str, list[str]] = {
    "task": ["classification", "ner", "extraction", "generation", "summarization", "translation", "chat", "style",
             "domain-knowledge", "code", "reasoning", "tool-use", "preference"],
    "knowledge_update": ["static", "weekly", "daily"],
}  # fmt: skip
# What a model is asked for, beside the pending slot. The lists of words are Situation's own.
TYPES: dict[str, dict[str, Any]] = {
    "task": {"enum": [*CHOICES["task"], None]},
    "language": {
        "type": ["string", "null"],
        "description": "language of the data: zh-TW, zh-CN, en, ja, de, mixed, …",
    },
    "rows": {"type": ["integer", "null"], "description": "labelled examples"},
    "docs": {"type": ["integer", "null"], "description": "documents that hold the knowledge"},
    "preference_pairs": {"type": ["integer", "null"]},
    "knowledge_update": {"enum": [*CHOICES["knowledge_update"], None]},
    "gpus": {"type": ["integer", "null"], "description": "number of GPUs; 0 for none"},
    "gpu_name": {"type": ["string", "null"]},
    "gpu_vram_gb": {"type": ["number", "null"], "description": "memory of one GPU, GB"},
    "sensitive": {"type": ["boolean", "null"], "description": "the data must not leave the machine"},
}
INSTRUCTION = (
    "Read what a person says of a fine-tuning task and fill in the JSON. null for whatever the words do not say: "
    "guess nothing.{asked} Words: "
)
NOTED = {"en": "Noted: {what}.", "zh-TW": "記下了：{what}。"}
SKIPPED = {"en": "Fine, it is planned without that.", "zh-TW": "好，先不管這一項來規劃。"}
PROPOSED = {
    "en": "That is enough for a proposal. It stands beside the conversation, with every value and its reason.",
    "zh-TW": "資料夠了，建議如下。每個值與理由都在對話旁邊的計畫裡。",
}
PLAN = "plan"  # who answers where a slot was filled: the rules
SHOWN = ("base_model", "peft", "learning_rate", "epochs", "max_length")


@dataclass(frozen=True)
class Talk:
    """What a conversation has told so far. `words` are its own descriptions, `values` filled slots, `asked` their names."""

    words: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    pending: dict[str, Any] | None = None  # the question that stands open

    @property
    def described(self) -> bool:
        """Whether a task was described at all, so that there is something to plan."""
        return bool(self.values) or tells_a_task(self.words)


def tells_a_task(words: str) -> bool:
    if not words.strip():
        return False
    read = reading.situation_from_text(words)
    return (read.task, read.rows, read.knowledge_update) != (None, None, None)


def talk(turns: Sequence[tuple[str, Answer]]) -> Talk:
    """The state after the stored turns."""
    words, values, asked, pending = [], {}, [], None
    for question, answer in turns:
        if answer.backend != PLAN:  # words that filled a slot describe nothing anew
            words.append(question)
        values |= answer.filled or {}
        if answer.backend == PLAN:
            pending = None
        if answer.ask:
            pending = answer.ask
            asked += [answer.ask["slot"]] if answer.ask["slot"] not in asked else []
    return Talk(" ".join(dict.fromkeys(words)), values, asked, pending)


def told(state: Talk, filled: dict[str, Any]) -> Talk:
    """The state with a slot filled."""
    return replace(state, values=state.values | filled)


def advised(state: Talk, hardware: Any = None, lang: str = "en", **measured: Any) -> Recommendation | None:
    """The recommendation for what was told; None before a task was described."""
    if not state.described:
        return None
    given = {**({"goal": state.words} if state.words else {}), **state.values, "asked": state.asked}
    return recommend(situation(given), hardware, lang=lang, **measured)


def fill(slot: str, words: str, backend: Backend | None = None) -> dict[str, Any] | None:
    """Situation keys that an answer to the question for `slot` gives; {} for "I do not know", None for no answer.

    Patterns first; where they find nothing, a model is asked.
    """
    found = _by_patterns(slot, words)
    if found is None and backend is not None and backend.name != "extract":
        found = read_by_model(words, backend, slot)
        found = found if slot in found or (slot == "gpu_name" and "gpus" in found) else None
    if found is None and re.search(UNKNOWN, words, re.I) and len(words) < 60:
        return {}
    return found


def _by_patterns(slot: str, words: str) -> dict[str, Any] | None:
    read = reading.situation_from_text(words).model_dump(exclude_none=True)
    extra = {key: value for key, value in read.items() if key not in ("goal", "language", "task")}
    asks = re.search(ASKS, words, re.I)
    if slot == "task":
        return {**extra, "task": read["task"]} if "task" in read and not asks else None
    if slot == "gpu_name":
        machine = {key: read[key] for key in ("gpu_name", "gpu_vram_gb", "gpus") if key in read}
        if not machine and re.search(NONE, words, re.I):
            machine = {"gpus": 0}
        return {**extra, **machine} if machine and not asks else None
    if slot == "language":
        named = reading._language(words)
        return (
            {**extra, "language": named}
            if named and named != "zh" and not asks
            else _chinese(words, extra, asks)
        )
    if slot == "knowledge_update":
        for value, pattern in (("daily", DAILY), ("weekly", WEEKLY), ("static", NEVER)):
            if re.search(pattern, words, re.I) and not asks:
                return {**extra, slot: value}
        return None
    counted = {
        key: extra[key]
        for key in ("rows", "preference_pairs", "thumbs_up", "verifier_prompts")
        if key in extra
    }
    if counted:
        return extra
    if asks:
        return None
    bare = re.fullmatch(rf"\D{{0,12}}?({NUMBER})\D{{0,12}}", words.strip(), re.I)
    if bare and (value := number(bare[1])) is not None:
        return {**extra, slot: int(value)}
    return {**extra, slot: 0} if re.search(NONE, words, re.I) else None


def _chinese(words: str, extra: dict[str, Any], asks: Any) -> dict[str, Any] | None:
    """中文 alone: which script is told by the words that say it."""
    if asks or not re.search(r"中文|chinese|華語|华语", words, re.I):
        return None
    return {**extra, "language": "zh"}


def read_by_model(words: str, backend: Backend, slot: str = "") -> dict[str, Any]:
    """Situation keys that a model reads out of the words; {} where it fails or says nothing that can be used."""
    asked = f" The person was asked for {slot!r}." if slot else ""
    schema = {"type": "object", "properties": TYPES, "required": list(TYPES), "additionalProperties": False}
    message = {
        "role": "user",
        "content": INSTRUCTION.format(asked=asked) + json.dumps(words, ensure_ascii=False),
    }
    try:
        text = "".join(backend.stream([message], max_tokens=300, schema=schema))
        values = json.loads(text)
    except (UserError, ValueError):
        return {}
    if not isinstance(values, dict):
        return {}
    numbers = {value for match in re.finditer(NUMBER, words, re.I) if (value := number(match[0])) is not None}
    found: dict[str, Any] = {}
    for key, value in values.items():
        counted = isinstance(value, int | float) and not isinstance(value, bool)
        if key not in TYPES or value in (None, "") or (counted and value not in numbers and value != 0):
            continue
        try:
            situation({key: value})
        except UserError:
            continue
        found[key] = value
    return found


def described(words: str, backend: Backend | None) -> dict[str, Any]:
    """What a model reads in a description that the patterns do not: keys they found stay as they are."""
    if backend is None or backend.name == "extract":
        return {}
    read = reading.situation_from_text(words).model_dump(exclude_none=True)
    return {key: value for key, value in read_by_model(words, backend).items() if key not in read}


def next_question(state: Talk, words: str, plan: Recommendation | None) -> dict[str, Any] | None:
    """The question to put after an ordinary answer: only to words that described a task, and none that stands open."""
    return plan.ask if plan is not None and tells_a_task(words) else None


def reply(filled: dict[str, Any], plan: Recommendation | None, lang: str, seconds: float = 0.0) -> Answer:
    """What is said to a filled slot: what was understood, then the next question, or the proposal with its sources."""
    lang = "en" if lang.startswith("en") else "zh-TW"
    what = ", ".join(f"{key} = {value}" for key, value in filled.items() if key != "goal")
    lines = [NOTED[lang].format(what=what) if what else SKIPPED[lang]]
    citations: list[Citation] = []
    if plan is not None and plan.ask is None:
        lines.append(PROPOSED[lang])
        for name in ("decision", *(SHOWN if plan.run else ())):
            if (reason := plan.reasons.get(name)) is not None:
                citations.append(_cited(reason, len(citations) + 1, lang))
                value = "" if name == "decision" else f"`{name}` {reason.value}: "
                lines.append(f"- {value}{reason.because} [{len(citations)}]")
    ask = plan.ask if plan is not None else None
    text = "\n".join([lines[0], *([""] if len(lines) > 1 else []), *lines[1:]])
    return Answer(text, citations, False, PLAN, seconds, lang, ask=ask, filled=filled)


@cache
def heading(page: str, anchor: str, lang: str) -> str:
    """The section's heading as its page has it, after the page's title."""
    found = read_page(page, lang)
    section = next((part for part in found.sections() if part.anchor == anchor), None)
    return f"{found.title} › {section.heading}" if section else found.title


def _cited(reason: Any, marker: int, lang: str) -> Citation:
    page, anchor = reason.citation["page"], reason.citation["anchor"]
    return Citation(
        marker, f"kb:{page}:{lang}#{anchor}", page, heading(page, anchor, lang), reason.because, 1.0, reason.citation["sources"], anchor, lang
    )  # fmt: skip
