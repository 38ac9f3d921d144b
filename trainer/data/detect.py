"""Which of the known formats a file's records have, and which columns carry what. Torch-free.

Second step of the flow file → read → detect → convert → split.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from trainer.config import UserError
from trainer.data import entities
from trainer.data.read import Records

# Column names as users write them, most telling first. A file's first match is proposed.
TEXT_COLUMNS = (
    "text", "text_a", "sentence", "review", "content", "comment", "utterance", "query", "sentence1", "body",
    "document", "tweet", "input", "文本", "內容", "内容", "評論", "评论", "句子", "評價", "评价", "review_body",
)  # fmt: skip
LABEL_COLUMNS = (
    "label", "labels", "category", "intent", "class", "sentiment", "target", "topic", "label_text", "tag", "rating",
    "標籤", "标签", "類別", "类别", "分類", "分类", "情感", "意圖", "意图",
)  # fmt: skip
SECOND_TEXT_COLUMNS = ("text_b", "sentence2")
TURN_COLUMNS = ("messages", "conversations", "conversation")
ANSWER_COLUMNS = ("completion", "response", "answer", "output")
REASONING_COLUMNS = (
    "reasoning_content", "reasoning", "thinking", "complex_cot", "cot", "chain_of_thought", "thought", "推理", "思考",
)  # fmt: skip
EXTRA_COLUMNS = ("system", "tools", "history", "id", "idx", "qid", "index", "synthetic", "source_file")

# What a row of each format is, for the error that lists them.
FORMATS = {
    "text+label": "text, label",
    "messages": "messages: [{role, content}]",
    "sharegpt": "conversations: [{from, value}]",
    "alpaca": "instruction, input, output",
    "prompt-completion": "prompt, completion",
    "preference": "prompt, chosen, rejected",
    "kto": "prompt, completion, label (true/false)",
    "bio": "tokens, tags",
    "spans": "text, entities: [[start, end, label]]",
    "reading": "context, question, answer",
    "prompts": "prompt",
    "text": "text",
}


@dataclass(frozen=True)
class Detected:
    """`format` is a key of FORMATS; `columns` maps a role (text, label, prompt, …) to the file's column."""

    format: str
    columns: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


def detect(records: Records) -> Detected:
    """The format of a file by the columns of its first 1,000 rows.

    Raises UserError that names the columns found and what would be understood.
    """
    some = [record for _, record in records.rows[:1000]]
    found = find(some)
    if found is None:
        names = ", ".join(repr(name[:40]) for name in list(dict.fromkeys(n for row in some for n in row))[:8])
        known = "; ".join(FORMATS.values())
        raise UserError(
            f"{records.where(records.rows[0][0])}: unknown columns {names}; rename them to one of these: {known}"
            f" (or name them: tunesmith data import {records.path} OUT --map prompt=COLUMN --map completion=COLUMN)"
        )
    return found


def find(rows: list[dict[str, Any]]) -> Detected | None:
    """The format of records by their columns; None where it is no known one."""
    counts: Counter[str] = Counter()
    samples: dict[str, Any] = {}
    for record in rows:
        for name, value in record.items():
            counts[name] += 1
            if samples.get(name) in (None, "", [], {}):
                samples[name] = value
    columns = {name.strip().lower(): name for name in counts}
    found = _match(columns, samples)
    if found is None:
        return None
    unused = tuple(
        n for n in counts if n not in found.columns.values() and n.strip().lower() not in EXTRA_COLUMNS
    )
    return Detected(found.format, found.columns, unused)


def _match(columns: dict[str, str], samples: dict[str, Any]) -> Detected | None:
    for matcher in (_preference, _turns, _annotated, _prompted, _labelled, _plain):
        found = matcher(columns, samples)
        if found is not None:
            return found
    return None


def _preference(columns: dict[str, str], samples: dict[str, Any]) -> Detected | None:
    for chosen, rejected in (("chosen", "rejected"), ("chosen_messages", "rejected_messages")):
        if chosen in columns and rejected in columns:
            roles = {"chosen": columns[chosen], "rejected": columns[rejected]}
            prompt = _first(columns, ("prompt", *TURN_COLUMNS, "question", "instruction", "query", "input"))
            if prompt:
                roles["prompt"] = prompt
            if prompt and columns.get("instruction") == prompt and "input" in columns:
                roles["input"] = columns["input"]
            return Detected("preference", roles)
    output = columns.get("output")
    if "instruction" in columns and output and isinstance(samples[output], list):
        # Ranked answers, best first (ChatGLM-Efficient-Tuning's reward data).
        roles = {"prompt": columns["instruction"], "ranked": output}
        if "input" in columns:
            roles["input"] = columns["input"]
        return Detected("preference", roles)
    return None


def _turns(columns: dict[str, str], samples: dict[str, Any]) -> Detected | None:
    name = _first(columns, TURN_COLUMNS)
    value = samples.get(name)
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return None
    label = _first(columns, ("label", "kto_tag"))
    if label and _is_verdict(samples[label]):
        return Detected("kto", {"turns": name, "label": label})
    return Detected("sharegpt" if "from" in value[0] else "messages", {"turns": name})


def _annotated(columns: dict[str, str], samples: dict[str, Any]) -> Detected | None:
    """Named entities: tokens with tags, or a text with spans."""
    tokens, tags = _first(columns, entities.TOKENS), _first(columns, entities.TAGS)
    if tokens and tags and isinstance(samples[tokens], list) and isinstance(samples[tags], list):
        return Detected("bio", {"tokens": tokens, "tags": tags})
    text = _first(columns, ("text", "sentence", "content"))
    for name in entities.SPANS:
        if text and name in columns and entities.is_spans(samples[columns[name]]):
            return Detected("spans", {"text": text, "spans": columns[name]})
    return None


def _prompted(columns: dict[str, str], samples: dict[str, Any]) -> Detected | None:
    found = _question_and_answer(columns, samples)
    reasoning = _first(columns, REASONING_COLUMNS)
    if found is None or found.format == "kto" or not reasoning or not isinstance(samples[reasoning], str):
        return found
    return Detected(found.format, found.columns | {"reasoning": reasoning})


def _question_and_answer(columns: dict[str, str], samples: dict[str, Any]) -> Detected | None:
    if "prompt" in columns:
        answer = _first(columns, ANSWER_COLUMNS)
        if answer and "label" in columns and _is_verdict(samples[columns["label"]]):
            return Detected(
                "kto", {"prompt": columns["prompt"], "completion": answer, "label": columns["label"]}
            )
        if answer:
            return Detected("prompt-completion", {"prompt": columns["prompt"], "completion": answer})
        return Detected("prompts", {"prompt": columns["prompt"]})
    if "instruction" in columns:
        answer = _first(columns, ("output", "response", "answer", "completion"))
        if answer:
            roles = {"instruction": columns["instruction"], "output": answer}
            context = _first(columns, ("input", "context"))
            return Detected("alpaca", roles | ({"input": context} if context else {}))
    if "question" in columns and "context" in columns:
        answer = _first(columns, ("answer", "answers", "ideal", "output", "response"))
        if answer:
            roles = {"context": columns["context"], "question": columns["question"], "answer": answer}
            return Detected("reading", roles)
    for question, answer in (
        ("question", "answer"),
        ("question", "response"),
        ("original", "fixed"),
        ("input", "output"),
        ("query", "response"),
        ("source", "target"),
    ):
        if (
            question in columns
            and answer in columns
            and isinstance(samples[columns[answer]], str | int | float)
        ):
            return Detected("prompt-completion", {"prompt": columns[question], "completion": columns[answer]})
    return None


def _labelled(columns: dict[str, str], samples: dict[str, Any]) -> Detected | None:
    text, label = _first(columns, TEXT_COLUMNS), _first(columns, LABEL_COLUMNS)
    if not text or not label or text == label:
        return None
    roles = {"text": text, "label": label}
    second = _first(columns, SECOND_TEXT_COLUMNS)
    return Detected("text+label", roles | ({"text_b": second} if second else {}))


def _plain(columns: dict[str, str], samples: dict[str, Any]) -> Detected | None:
    text = _first(columns, ("text", "content", "document", "body"))
    return Detected("text", {"text": text}) if text else None


def _first(columns: dict[str, str], names: tuple[str, ...]) -> str | None:
    return next((columns[name] for name in names if name in columns), None)


def _is_verdict(value: Any) -> bool:
    return isinstance(value, bool) or value in (0, 1) or str(value).strip().lower() in VERDICTS


VERDICTS = {
    "true": True,
    "false": False,
    "1": True,
    "0": False,
    "yes": True,
    "no": False,
    "good": True,
    "bad": False,
}

# Every name that detection takes for something, in lower case.
KNOWN_COLUMNS = {
    *TEXT_COLUMNS, *LABEL_COLUMNS, *SECOND_TEXT_COLUMNS, *TURN_COLUMNS, *ANSWER_COLUMNS, *REASONING_COLUMNS,
    *entities.TOKENS, *entities.TAGS, *entities.SPANS, "prompt", "instruction", "question", "context", "original",
    "fixed", "source", "chosen", "rejected", "chosen_messages", "rejected_messages", "kto_tag", "answers", "ideal",
}  # fmt: skip
