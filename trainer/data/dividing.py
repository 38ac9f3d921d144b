"""The step `split`: a file into train, eval and test, no question in two of them. The dealing itself is in splits.py.

Rows stay together by question, and with `near` and `group` also by cluster of near repeats and by a column's value.
With `time` the newest rows are the test; with `frozen` the test is that of an earlier version of the data set.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.config import UserError
from trainer.data import near
from trainer.data.convert import Row
from trainer.data.detect import Detected
from trainer.data.measure import near_text, question_and_answer
from trainer.data.mix import SOURCE
from trainer.data.rows import format_of, numbered, shaped
from trainer.data.splits import Splits, by_time, key, split
from trainer.data.stage import label_set

SYNTHETIC = "synthetic"  # the column that marks rows written by a model
DATES = ("%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%Y.%m.%d", "%d.%m.%Y", "%Y年%m月%d日", "%Y")
PLAIN = ("prompt-completion", "preference", "kto", "text")  # formats that a split writes


def divide(path: Path, options: dict[str, Any], counts: Counter[str]) -> Iterator[tuple[str, Row]]:
    """Rows by part. Synthetic rows are trained on and never tested on."""
    detected = format_of(path)
    found = [(record, _kept(record, row)) for _, record, row in shaped(path, counts, detected)]
    if options.get("frozen"):
        found, held_out = _without_frozen(found, Path(options["frozen"]), detected, counts)
    made = [row for record, row in found if record.get(SYNTHETIC) is True]
    found = [item for item in found if item[0].get(SYNTHETIC) is not True]
    parts = _dealt(
        path, found, detected, options | ({"test_fraction": 0} if options.get("frozen") else {}), counts
    )
    parts.train += made
    counts["synthetic"] += len(made)
    rest = held_out if options.get("frozen") else parts.test
    for name, rows in (("train", parts.train), ("eval", parts.eval), ("test", rest)):
        yield from ((f"{name}.jsonl", row) for row in rows)


def _kept(record: dict[str, Any], row: Row) -> Row:
    """The row with where it comes from."""
    return row | {name: record[name] for name in (SOURCE, SYNTHETIC) if name in record}


def _dealt(path: Path, found: list[tuple[dict, Row]], detected: Detected, options: dict[str, Any], counts: Counter[str]) -> Splits:  # fmt: skip
    rows = [row for _, row in found]
    shares = options["eval_fraction"], options["test_fraction"]
    if options.get("time"):
        times = [_moment(value, options["time"], path) for value in _column(path, found, options["time"])]
        parts = by_time(rows, times, *shares)
        counts["seen_before"] += len(rows) - len(parts.train) - len(parts.eval) - len(parts.test)
        return parts
    strata = (
        [str(value) for value in _column(path, found, options["stratify"])]
        if options.get("stratify")
        else None
    )
    stratify = strata is not None or label_set(rows, detected.format) is not None or detected.format == "kto"
    kinds: list[Iterable[Any]] = [[key(row) for row in rows]]
    if options.get("group"):
        kinds.append([f"{value}" for value in _column(path, found, options["group"])])
    if options.get("near"):
        kinds.append(near.groups(near.sketch(_near_texts(rows, detected))))
    return split(rows, *shares, options["seed"], stratify, _together(kinds, len(rows)), strata)


def _near_texts(rows: list[Row], detected: Detected) -> list[str]:
    return [near_text(row, *question_and_answer(row), detected.format) for row in rows]


def _together(kinds: list[Iterable[Any]], count: int) -> list[str]:
    """A name for each row such that rows alike in any one respect, directly or through others, share it."""
    parent = list(range(count))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for names in kinds:
        first: dict[Any, int] = {}
        for at, name in enumerate(names):
            one, other = sorted((root(at), root(first.setdefault(name, at))))
            parent[other] = one
    return [str(root(at)) for at in range(count)]


def _without_frozen(found: list[tuple[dict, Row]], frozen: Path, detected: Detected, counts: Counter[str]) -> tuple[list[tuple[dict, Row]], list[Row]]:  # fmt: skip
    """(what is not in the frozen test file nor nearly so, its rows as they stand there)."""
    other = format_of(frozen)
    held = [(record, row) for _, record, row in shaped(frozen, Counter(), other)]
    asked = {key(row) for _, row in held}
    texts = _near_texts([row for _, row in held], detected) + _near_texts([row for _, row in found], detected)
    groups = near.groups(near.sketch(texts))[len(held) :]
    kept = [
        item
        for item, group in zip(found, groups, strict=True)
        if key(item[1]) not in asked and group >= len(held)
    ]
    counts["in_frozen_test"] += len(found) - len(kept)
    as_written = other.format in PLAIN and all(
        isinstance(record.get("prompt", []), list) for record, _ in held
    )
    return kept, [record for _, record in numbered(frozen, Counter())] if as_written else [
        row for _, row in held
    ]


def _column(path: Path, found: list[tuple[dict, Row]], column: str) -> list[Any]:
    if not any(column in record for record, _ in found):
        names = ", ".join(list(found[0][0])[:8]) if found else ""
        raise UserError(f"{path}: no column {column!r}; choose one of {names}")
    # A row without a value is a group of its own.
    return [
        value if (value := record.get(column)) not in (None, "") else f"\0{at}"
        for at, (record, _) in enumerate(found)
    ]


def _moment(value: Any, column: str, path: Path) -> float:
    """Seconds since 1970 of a number, an ISO 8601 text, or a date of one of DATES. Raises UserError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value / 1000 if value > 1e11 else float(value)  # milliseconds
    text = str(value).strip()
    if text.replace(".", "", 1).isdigit() and len(text) > 8:
        return _moment(float(text), column, path)
    for read in (datetime.fromisoformat, *(lambda t, f=form: datetime.strptime(t, f) for form in DATES)):
        try:
            made = read(text)
        except ValueError:
            continue
        return (made if made.tzinfo else made.replace(tzinfo=UTC)).timestamp()
    shown = json.dumps(value, ensure_ascii=False)[:60] if not text.startswith("\0") else "an empty value"
    raise UserError(
        f"{path}: column {column!r} holds {shown}, which is no time; write 2026-01-31 or 2026-01-31T08:00"
    )
