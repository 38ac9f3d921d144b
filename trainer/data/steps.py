"""One file of rows into another: repair, dedupe, redact, convert, split. Streamed where the input is; counted always.

Each step is a function (input, options, counts) → rows by output name; history.py runs and records them, so a step
depends on its input and its options alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import RunConfig, UserError
from trainer.data import near, scan
from trainer.data.check import METHOD_OF_FORMAT, measured
from trainer.data.convert import SHAPES, Row, convert, convert_rows
from trainer.data.detect import Detected, detect
from trainer.data.faults import leaked
from trainer.data.lines import blocks, parse
from trainer.data.measure import near_text, question_and_answer
from trainer.data.read import Records, check_path, read_records, streams
from trainer.data.splits import fold, split
from trainer.data.stage import label_set

Numbered = tuple[int, dict[str, Any]]
Rows = Iterator[tuple[str, Row]]  # (name of the output, row); "" where there is one output
CHUNK = 1000
SCRIPTS = {"traditional": "s2twp", "simplified": "t2s"}


def numbered(path: Path, counts: Counter[str], mend: bool = False) -> Iterator[Numbered]:
    """Records of a file with their lines. What cannot be read is a UserError, or with `mend` left out and counted."""
    check_path(path)
    if not streams(path):
        records = read_records(path)
        counts.update(records.mended)
        yield from records.rows
        return
    for block in blocks(path):
        parsed = parse(block, mend)
        counts.update(parsed.mended)
        if parsed.faults and not mend:
            fix = f"mend or remove the line, or: tunesmith data repair {path} OUT"
            raise UserError(f"{path}{parsed.faults[0].text}; {fix}")
        counts.update(fault.kind for fault in parsed.faults)
        counts["read"] += len(parsed.faults)
        yield from parsed.rows


def format_of(path: Path, mend: bool = False) -> Detected:
    """The format by the first rows."""
    first = []
    for item in numbered(path, Counter(), mend):
        first.append(item)
        if len(first) >= CHUNK:
            break
    if not first:
        raise UserError(f"{path}:1: the file holds no rows that can be read; give it at least one")
    return detect(Records(path, "", "line", first, ""))


def usual_method(path: Path) -> str:
    """The training method that the file's format suggests."""
    return METHOD_OF_FORMAT.get(format_of(path).format, "sft")


def first_rows(
    path: Path, count: int, method: str = "", system_prompt: str = "", instruction: str = ""
) -> list[Row]:
    """The first rows of a file in the shape of a method, or of the one that its format suggests. Raises UserError."""
    detected = format_of(path)
    method = method or METHOD_OF_FORMAT.get(detected.format, "sft")
    some = list(islice(numbered(path, Counter()), 10 * count + 100))
    return convert(Records(path, "", "line", some, ""), detected, method, system_prompt, instruction).rows[
        :count
    ]


def _shaped(
    path: Path, counts: Counter[str], detected: Detected
) -> Iterator[tuple[int, dict[str, Any], Row]]:
    """(line, record, row) of what can be trained on; the others are counted by their fault."""
    shape = SHAPES[METHOD_OF_FORMAT.get(detected.format, "sft")]
    for number, record in numbered(path, counts):
        counts["read"] += 1
        converted = convert_rows([(number, record)], detected, shape)
        counts.update({kind: len(lines) for kind, lines in converted.faults.items()})
        for row in converted.rows:
            yield number, record, row


def repair(path: Path, options: dict[str, Any], counts: Counter[str]) -> Rows:
    """Broken lines and rows that cannot be trained on left out; encoding mended, NUL and template marks removed."""
    detected = format_of(path, mend=True)
    shape = SHAPES[METHOD_OF_FORMAT.get(detected.format, "sft")]
    spelling = _spelling(path, detected) if options.get("labels") else {}
    label = detected.columns.get("label", "")
    for number, record in numbered(path, counts, mend=True):
        counts["read"] += 1
        mended = {name: _texts(value, lambda text: _mended(text, counts)) for name, value in record.items()}
        converted = convert_rows([(number, mended)], detected, shape)
        counts.update({kind: len(lines) for kind, lines in converted.faults.items()})
        if converted.rows:
            given = str(mended.get(label, ""))
            if spelling.get(fold(given), given) != given:
                mended[label] = spelling[fold(given)]
                counts["label_spelling"] += 1
            yield "", mended


def _mended(text: str, counts: Counter[str]) -> str:
    clean = text.replace("\0", "")
    if not clean.isascii():
        clean = clean.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        clean = scan.mend(clean)
    if "<" in clean or "[" in clean:
        clean = scan.MARKS.sub("", clean)
    counts["texts_mended"] += clean != text
    return clean


def _spelling(path: Path, detected: Detected) -> dict[str, str]:
    """The commonest spelling of each label."""
    column, spelled = detected.columns.get("label", ""), {}
    for label, _ in Counter(
        str(r.get(column, "")).strip() for _, r in numbered(path, Counter(), True)
    ).most_common():
        spelled.setdefault(fold(label), label)
    return spelled


def _texts(value: Any, change: Callable[[str], str]) -> Any:
    """The same value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {name: _texts(item, change) for name, item in value.items()}
    return value


def redact(path: Path, options: dict[str, Any], counts: Counter[str]) -> Rows:
    """Personal data and keys replaced by their names, in every column."""

    def change(text: str) -> str:
        text, kinds = scan.redact(text)
        counts.update(kinds)
        return text

    for _, record in numbered(path, counts):
        counts["read"] += 1
        yield "", _texts(record, change)


def dedupe(path: Path, options: dict[str, Any], counts: Counter[str]) -> Rows:
    """The first of each group of repeats: exact, or with `near` nearly so, or with `inputs` of the same question.

    `against` leaves out what stands in a test file. Rows that cannot be trained on stay for `repair`.
    """
    length = RunConfig.model_fields["max_length"].default
    _, part = measured(path, True, length, "", lambda size: None)
    drop: dict[int, str] = {}

    def leave_out(kind: str, mask: np.ndarray) -> None:
        for line in part.numbers[mask]:
            drop.setdefault(int(line), kind)

    pairs = (
        np.stack([part.questions, part.answers], axis=1)
        if not options.get("inputs")
        else part.questions[:, None]
    )
    _, firsts = np.unique(pairs, axis=0, return_index=True)
    repeated = np.ones(len(part.numbers), bool)
    repeated[firsts] = False
    if options.get("against"):
        _, held_out = measured(Path(options["against"]), True, length, "", lambda size: None)
        leave_out("leakage", leaked(part, held_out))
    leave_out("repeated_input" if options.get("inputs") else "duplicates", repeated)
    if options.get("near"):
        groups = near.groups(part.sketches)
        alike = np.zeros(len(part.numbers), bool)
        alike[: len(groups)] = groups != np.arange(len(groups))
        leave_out("near_duplicates", alike)
    for number, record in numbered(path, counts):
        counts["read"] += 1
        if number in drop:
            counts[drop[number]] += 1
        else:
            yield "", record


def converted(path: Path, options: dict[str, Any], counts: Counter[str]) -> Rows:
    """Rows as TRL takes them, in one Chinese script where `script` says so."""
    change = _script(options["script"]) if options.get("script") else None
    for _, _, row in _shaped(path, counts, format_of(path)):
        yield "", _texts(row, change) if change else row


@cache
def _script(name: str) -> Callable[[str], str]:
    import opencc

    if name not in SCRIPTS:
        raise UserError(f"--script {name}: choose {' or '.join(SCRIPTS)}")
    return opencc.OpenCC(SCRIPTS[name]).convert


def split_rows(path: Path, options: dict[str, Any], counts: Counter[str]) -> Rows:
    """train, eval and test by label, no question in two of them; `near` and `group` keep more rows together."""
    detected = format_of(path)
    shaped = list(_shaped(path, counts, detected))
    rows = [row for _, _, row in shaped]
    together = None
    if options.get("group"):
        column = options["group"]
        if not any(column in record for _, record, _ in shaped):
            raise UserError(
                f"{path}: no column {column!r}; choose one of {', '.join(list(shaped[0][1])[:8])}"
            )
        together = [str(record.get(column)) for _, record, _ in shaped]
    elif options.get("near"):
        texts = [near_text(row, *question_and_answer(row), detected.format) for row in rows]
        together = [str(index) for index in near.groups(near.sketch(texts))]
    stratify = label_set(rows, detected.format) is not None or detected.format == "kto"
    parts = split(
        rows, options["eval_fraction"], options["test_fraction"], options["seed"], stratify, together
    )
    for name in ("train", "eval", "test"):
        yield from ((f"{name}.jsonl", row) for row in getattr(parts, name))


STEPS: dict[str, Callable[[Path, dict[str, Any], Counter[str]], Rows]] = {
    "repair": repair, "dedupe": dedupe, "redact": redact, "convert": converted, "split": split_rows,
}  # fmt: skip
