"""Rows that a model wrote and a person has not read yet: the review file, its verdicts, and the step `add`.

A line a candidate: {"id", "status": waiting|accepted|rejected, "kind", "record", "model", "input", "input_sha256",
"prompt_sha256", "seed", "from": lines of the examples, "notes"}. Nothing of it is trained on before it is accepted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import UserError, write_atomic
from trainer.data import near
from trainer.data.convert import Row, contents
from trainer.data.dividing import SYNTHETIC
from trainer.data.rows import format_of, numbered, shaped
from trainer.data.splits import fold

STATUSES = ("waiting", "accepted", "rejected")
SWAP = {"chosen": "rejected", "rejected": "chosen"}
Candidate = dict[str, Any]


def read_review(path: Path) -> list[Candidate]:
    """Candidates in their order. Raises UserError where the file is none of reviews."""
    found = [record for _, record in numbered(Path(path), Counter())]
    for number, one in enumerate(found, start=1):
        if one.get("status") not in STATUSES or not isinstance(one.get("record"), dict) or "id" not in one:
            raise UserError(f"{path}:{number}: not a review file; make one with `tunesmith data generate`")
    return found


def write_review(path: Path, candidates: list[Candidate]) -> None:
    lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in candidates]
    write_atomic(Path(path), "".join(lines))


def judge(path: Path, ids: Iterable[int] | None, status: str, swap: bool = False) -> int:
    """Give candidates a verdict; None stands for all that wait. `swap` turns pairs round first. Returns how many."""
    candidates = read_review(path)
    wanted = set(ids) if ids is not None else {one["id"] for one in candidates if one["status"] == "waiting"}
    unknown = sorted(wanted - {one["id"] for one in candidates})
    if unknown:
        raise UserError(f"{path}: no candidate {unknown[0]}; they are numbered 1 to {len(candidates)}")
    for one in candidates:
        if one["id"] in wanted:
            one["status"] = status
            if swap and "chosen" in one["record"]:
                one["record"] = {SWAP.get(name, name): value for name, value in one["record"].items()}
    write_review(path, candidates)
    return len(wanted)


def add(path: Path, options: dict[str, Any], counts: Counter[str]) -> Iterator[tuple[str, Row]]:
    """The rows of a file and the accepted candidates of `reviewed`, marked in the column `synthetic`.

    Without `reviewed` the input is the review file, and its accepted candidates are all. Candidates that nearly
    repeat a row of the file, which may have grown since, are left out.
    """
    if not options.get("reviewed"):
        for one in read_review(path):
            counts["read"] += 1
            if one["status"] == "accepted":
                counts["added"] += 1
                yield "", one["record"] | {SYNTHETIC: True}
            else:
                counts["not_accepted"] += 1
        return
    accepted = [
        one["record"] for one in read_review(Path(options["reviewed"])) if one["status"] == "accepted"
    ]
    texts: list[str] = []
    columns: dict[str, None] = {}  # so that every row has the same, empty where the model wrote nothing
    for _, record, row in shaped(path, counts, format_of(path)):
        texts.append(text_of(row))
        columns = columns or dict.fromkeys(record)
        yield "", record | {SYNTHETIC: record.get(SYNTHETIC) is True}
    fresh = unlike(texts, [text_of(row) for row in _rows_of(accepted, path)])
    for record, new in zip(accepted, fresh, strict=True):
        counts["added" if new else "near_duplicates"] += 1
        if new:
            yield "", columns | record | {SYNTHETIC: True}


def _rows_of(records: list[dict[str, Any]], path: Path) -> list[Row]:
    """Accepted records as rows of the file's format. Raises UserError where they are of another."""
    from trainer.data.check import METHOD_OF_FORMAT
    from trainer.data.convert import convert_rows, shape_of

    detected = format_of(path)
    shape = shape_of(METHOD_OF_FORMAT.get(detected.format, "sft"))
    made = convert_rows(list(enumerate(records, start=1)), detected, shape)
    if len(made.rows) != len(records):
        raise UserError(
            f"{path}: the accepted rows are not of its format {detected.format}; add them to their own file"
        )
    return made.rows


def text_of(row: Row) -> str:
    """The folded text by which a candidate is compared: the questions, or a raw text."""
    return fold("\n".join(contents({"prompt": row["prompt"]} if "prompt" in row else row)))


def unlike(texts: list[str], candidates: list[str]) -> list[bool]:
    """Which candidates nearly repeat neither one of the texts nor an earlier candidate."""
    groups = near.groups(near.sketch([*texts, *candidates]))
    return [bool(group == at) for at, group in enumerate(np.asarray(groups)) if at >= len(texts)]
