"""One part of a data file measured: parse, convert, count. Parts are measured in any process and merged in check.py.

Between convert and check. Nothing of a part is larger than a few numbers a row.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from trainer.data import characters, near, scan
from trainer.data.convert import Row, contents, convert_rows, shape_of
from trainer.data.detect import EXTRA_COLUMNS, Detected
from trainer.data.findings import SHOWN
from trainer.data.language import token_estimates
from trainer.data.lines import Block, Fault, parse
from trainer.data.splits import fold
from trainer.data.unsafe import unsafe

TEMPLATE_TOKENS = 5  # that a chat template adds to a message: role, marks, line ends
SAMPLE = 400  # texts a part for the language
LABEL_SAMPLE = 10_000  # rows on which wrong labels are looked for
DISTINCT = 20_000  # answers kept as labels; beyond it they are texts


@dataclass(frozen=True)
class Plan:
    """How parts are measured. `deep` looks for what takes time: near repeats, personal data, broken encoding."""

    detected: Detected
    method: str
    script: str
    deep: bool
    max_length: int
    tokenizer: str = ""


@dataclass
class Tally:
    """How many, the first lines, an example."""

    count: int = 0
    lines: list[int] = field(default_factory=list)
    example: str = ""

    def add(self, line: int, example: str = "") -> None:
        self.count += 1
        if len(self.lines) < SHOWN:
            self.lines.append(line)
        self.example = self.example or example[:200]

    def merge(self, other: Tally) -> None:
        self.count += other.count
        self.lines = (self.lines + other.lines)[:SHOWN]
        self.example = self.example or other.example


@dataclass
class Part:
    """What was counted. Arrays hold one number a row that can be trained on, in the file's order."""

    read: int = 0
    rows: int = 0  # that can be trained on; of a huge file the arrays hold the first ones only
    broken: list[Fault] = field(default_factory=list)
    mended: Counter[str] = field(default_factory=Counter)
    tallies: dict[str, Tally] = field(default_factory=dict)
    schemas: dict[tuple[str, ...], Tally] = field(default_factory=dict)
    types: dict[tuple[str, str], Tally] = field(default_factory=dict)
    numbers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    questions: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    answers: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    asked: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))  # the last user's turn alone
    tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    answer_tokens: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    labels: Counter[str] = field(default_factory=Counter)
    label_lines: dict[str, int] = field(default_factory=dict)
    verdicts: Counter[bool] = field(default_factory=Counter)
    several: int = 0
    tools: int = 0
    json_like: int = 0
    texts: list[str] = field(default_factory=list)
    labelled: list[tuple[int, str, str]] = field(default_factory=list)
    sketches: near.Sketches | None = None
    leaks: np.ndarray = field(
        default_factory=lambda: np.zeros(0, np.int64)
    )  # lines that stand in the test file

    def note(self, kind: str, line: int, example: str = "") -> None:
        self.tallies.setdefault(kind, Tally()).add(line, example)


def measure(source: Block | list[tuple[int, dict[str, Any]]], plan: Plan) -> Part:
    """Measure a block of lines, or records that were read already."""
    part = Part()
    records = source
    if isinstance(source, Block):
        parsed = parse(source)
        records, part.mended, part.broken = parsed.rows, parsed.mended, parsed.faults
    part.read = len(records)
    if plan.deep:
        _note_schema(part, records, plan.detected)
    converted = convert_rows(records, plan.detected, shape_of(plan.method))
    for kind, lines in converted.faults.items():
        part.tallies[kind] = Tally(len(lines), lines[:SHOWN])
    rows, numbers = converted.rows, converted.numbers
    part.rows, part.numbers = len(rows), np.array(numbers, np.int64)
    _note_repeats(part, rows, plan)
    _note_lengths(part, rows, plan)
    step = max(1, len(rows) // SAMPLE)
    part.texts = [text[:500] for row in rows[::step] for text in contents(row)]
    for row, number in zip(rows, numbers, strict=True):
        _note_answer(part, row, number, plan)
    if plan.deep:
        _note_faults(part, rows, numbers)
    return part


def _note_schema(part: Part, records: list[tuple[int, dict[str, Any]]], detected: Detected) -> None:
    used = list(detected.columns.values())
    known: dict[tuple[str, ...], tuple[str, ...]] = {}  # columns in the order of a record → sorted
    for number, record in records:
        order = tuple(record)
        names = known.get(order)
        if names is None:
            names = tuple(sorted(name for name in order if name.lower() not in EXTRA_COLUMNS))
            if len(known) < 1000:
                known[order] = names
        part.schemas.setdefault(names, Tally()).add(number, "" if names in part.schemas else ", ".join(names))
        for column in used:
            value = record.get(column)
            if value is not None:
                kind = (
                    "number"
                    if isinstance(value, int | float) and not isinstance(value, bool)
                    else type(value).__name__
                )
                tally = part.types.setdefault((column, kind), Tally())
                tally.add(number, tally.example or f"{column}: {str(value)[:60]}")


def number_of(text: str) -> int:
    """64 bits that stand for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def question_and_answer(row: Row) -> tuple[str, str]:
    """Both as `splits.fold` folds them."""
    if "text" in row:
        return fold(row["text"]), ""
    question = fold("\n".join(message["content"] for message in row["prompt"]))
    return question, fold("\n".join(contents({**row, "prompt": []})))


def near_text(row: Row, question: str, answer: str, format: str) -> str:
    """The folded text by which two rows are alike: for reading tasks without the passage that rows share."""
    if format == "reading":
        passage, _, asked = row["prompt"][-1]["content"].rpartition("\n\n")
        question = fold(asked) + f"{number_of(passage):016x}"
    return question if format == "text+label" else question + answer


def _note_repeats(part: Part, rows: list[Row], plan: Plan) -> None:
    pairs = [question_and_answer(row) for row in rows]
    part.questions = np.array([number_of(question) for question, _ in pairs], np.uint64)
    verdicts = [str(row.get("label", "")) for row in rows]  # a thumb up and one down are no repeat
    part.answers = np.array(
        [number_of(answer + verdict) for (_, answer), verdict in zip(pairs, verdicts, strict=True)], np.uint64
    )
    if plan.deep:
        part.asked = part.questions.copy()
        for at, row in enumerate(rows):
            if len(row.get("prompt", ())) > 1:
                part.asked[at] = number_of(fold(row["prompt"][-1]["content"]))
        part.sketches = near.sketch(
            [near_text(row, *pair, plan.detected.format) for row, pair in zip(rows, pairs, strict=True)]
        )


def _endings(row: Row) -> list[str]:
    return [
        "\n".join(message["content"] for message in row[name])
        for name in ("completion", "chosen", "rejected")
        if name in row
    ]


def _note_lengths(part: Part, rows: list[Row], plan: Plan) -> None:
    heads = [row["text"] if "text" in row else "\n".join(m["content"] for m in row["prompt"]) for row in rows]
    endings = [_endings(row) for row in rows]
    counted = iter(_token_counts([*heads, *(text for texts in endings for text in texts)], plan))
    heads_counted = [next(counted) for _ in heads]
    answers = [max((next(counted) for _ in texts), default=0) for texts in endings]
    template = np.array(
        [TEMPLATE_TOKENS * (len(row.get("prompt", [])) + 1) if "prompt" in row else 0 for row in rows]
    )
    prompts = np.array(heads_counted, np.int64) + template
    part.tokens = (np.array(heads_counted, np.int64) + np.array(answers, np.int64)).astype(np.int32)
    part.answer_tokens = np.array(answers, np.int32)
    for index in np.flatnonzero(part.tokens + template > plan.max_length):
        removed = prompts[index] >= plan.max_length and endings[index]
        part.note("answer_cut" if removed else "over_max_length", int(part.numbers[index]), heads[index][:80])


def _token_counts(texts: list[str], plan: Plan) -> list[int]:
    if not plan.tokenizer:
        return [int(count) for count in token_estimates(characters.counted(texts), plan.script)]
    return [
        len(one.ids)
        for one in load_tokenizer(plan.tokenizer).encode_batch_fast(texts, add_special_tokens=False)
    ]


@cache
def load_tokenizer(path: str) -> Any:
    """A tokenizer.json, without transformers and its torch."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(path)


def tokenizer_file(given: str) -> str:
    """The tokenizer.json of a model's folder, or the file itself. Raises UserError."""
    from trainer.config import UserError

    path = Path(given).expanduser()
    path = path / "tokenizer.json" if path.is_dir() else path
    try:
        load_tokenizer(str(path))
    except Exception as error:  # tokenizers raises bare Exceptions
        told = str(error).splitlines()[0][:160]
        raise UserError(f"{path}: not a readable tokenizer.json: {told}; give a model's folder") from None
    return str(path)


def _note_answer(part: Part, row: Row, number: int, plan: Plan) -> None:
    if isinstance(row.get("label"), bool):
        part.verdicts[row["label"]] += 1
    elif "completion" in row:
        answer = row["completion"][-1]["content"]
        short = len(answer) <= 200 or plan.detected.format == "text+label"
        if len(part.labels) <= DISTINCT:
            part.labels[answer if short else answer[:200] + "…\n"] += 1
            part.label_lines.setdefault(answer, number)
        if plan.deep and plan.detected.format == "text+label" and len(part.labelled) < LABEL_SAMPLE:
            part.labelled.append((number, row["prompt"][-1]["content"][:1000], answer))
        if answer[:1] in ("{", "[") and plan.detected.format not in ("bio", "spans"):
            part.json_like += 1
            try:
                json.loads(answer)
            except (ValueError, RecursionError):
                part.note("invalid_json", number, answer[:80])
    part.several += sum(message["role"] == "user" for message in row.get("prompt", [])) > 1
    part.tools += "tools" in row


def _note_faults(part: Part, rows: list[Row], numbers: list[int]) -> None:
    wholes = ["\n".join(contents(row)) for row in rows]
    sides = characters.counted(wholes)[:, [characters.TRADITIONAL, characters.SIMPLIFIED]]
    patterns = scan.worth("\n".join(wholes))
    for row, number, whole in zip(rows, numbers, wholes, strict=True):
        _note_text(part, row, number, whole, patterns)
    for at in np.flatnonzero(sides[:, 0] != sides[:, 1]):
        name = "script_traditional" if sides[at, 0] > sides[at, 1] else "script_simplified"
        part.note(name, numbers[at], wholes[at][:60])


def _note_text(part: Part, row: Row, number: int, whole: str, patterns: tuple[scan.Pattern, ...]) -> None:
    for kind, example in scan.scan(whole, patterns).items():
        part.note(kind, number, example)
    if word := unsafe(whole):
        part.note("unsafe_text", number, scan.around(whole, max(0, whole.lower().find(word))))
    for answer in _endings(row):
        if "think>" in answer and (kind := scan.thoughts(answer)):
            part.note(kind, number, answer[:80])
    if len(row.get("prompt", [])) > 1:
        _note_turns(part, row, number)


def _note_turns(part: Part, row: Row, number: int) -> None:
    turns = row["prompt"] + row.get("completion", row.get("chosen", []))
    calls = "<tool_call>"
    for at, turn in enumerate(turns):
        before = turns[at - 1] if at else None
        called = before is not None and before["role"] == "assistant" and calls in before["content"]
        if called and turn["role"] not in ("tool", "assistant"):
            part.note("tool_no_result", number, before["content"][:80])
            return
        late = turn["role"] == "system" and at > 0
        twice = (
            before is not None and turn["role"] == before["role"] and turn["role"] in ("user", "assistant")
        )
        if late or (twice and not called):
            part.note("roles_order", number, f"{before['role']}, {turn['role']}: {turn['content'][:60]}")
            return
