"""Records of a file as a step sees them: one after the other with their lines, shaped for training, texts changed.

Between read.py and the steps (steps.py, mix.py, drop.py); streamed where the file is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from trainer.config import UserError
from trainer.data import read
from trainer.data.check import METHOD_OF_FORMAT
from trainer.data.convert import Row, convert_rows, shape_of
from trainer.data.detect import Detected, detect
from trainer.data.lines import blocks, parse
from trainer.data.read import Records, check_path, streams
from trainer.data.stage import labels_of

Numbered = tuple[int, dict[str, Any]]
T = TypeVar("T")
CHUNK = 1000
# where the answer of a row stands, by format
ANSWERS = ("label", "completion", "output", "answer", "turns", "chosen")


def numbered(path: Path, counts: Counter[str], mend: bool = False) -> Iterator[Numbered]:
    """Records of a file with their lines. What cannot be read is a UserError, or with `mend` left out and counted."""
    check_path(path)
    if not streams(path):
        source = read.source(path)
        yield from source.rows
        counts.update(source.mended)
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


def shaped(
    path: Path,
    counts: Counter[str],
    detected: Detected,
    system_prompt: str = "",
    instruction: str = "",
    mend: bool = False,
) -> Iterator[tuple[int, dict[str, Any], Row]]:
    """(line, record, row) of what can be trained on; the others are counted by their fault."""
    shape = shape_of(METHOD_OF_FORMAT.get(detected.format, "sft"))
    for number, record in numbered(path, counts, mend):
        counts["read"] += 1
        converted = convert_rows([(number, record)], detected, shape, system_prompt, instruction)
        counts.update({kind: len(lines) for kind, lines in converted.faults.items()})
        for row in converted.rows:
            yield number, record, row


def in_batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most `size` items (itertools.batched is of Python 3.12)."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def change_texts(value: Any, change: Callable[[str], str]) -> Any:
    """The same value with every text in it changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [change_texts(item, change) for item in value]
    if isinstance(value, dict):
        return {name: change_texts(item, change) for name, item in value.items()}
    return value


def labels_in(classes: Counter[str], detected: Detected) -> list[str] | None:
    """The labels of a file by the number of rows of each answer; None where its answers are texts."""
    if detected.format == "kto":
        return sorted(classes)
    if detected.format in ("text", "preference"):
        return None
    return labels_of(classes, detected.format)


def column_of(path: Path, detected: Detected) -> str:
    """The column of a file that holds the answers. Raises UserError."""
    column = next((detected.columns[role] for role in ANSWERS if role in detected.columns), "")
    if not column:
        raise UserError(f"{path}: {detected.format} rows have no column of answers; give a file with labels")
    return column
