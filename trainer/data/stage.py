"""A run's files → its frozen rows: RUN/data/{train,eval,test}.jsonl and card.json. Torch-free.

What the worker trains and scores on is read from there and nowhere else, so a resumed run, an export and a
later evaluation see the same rows even when the user's file has changed.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.config import RunConfig, UserError, write_atomic
from trainer.data.convert import Converted, Row, convert
from trainer.data.detect import detect
from trainer.data.read import read_records
from trainer.data.splits import Splits, split, without_overlap

CARD = "card.json"


@dataclass
class Staged:
    """The splits of a run and what was found while making them: `card` is written beside the rows.

    card: format, labels (None where answers are no labels), files {path: sha256}, rows {split: number},
    faults {kind: number of rows left out or mended}, overlap (training rows that a held-out file repeats).
    """

    splits: Splits
    card: dict[str, Any] = field(default_factory=dict)


def load_rows(path: Path, config: RunConfig) -> list[Row]:
    """Rows of a file in the shape of the run's method. Raises UserError."""
    return _load(path, config, Counter(), {})[0].rows


def _load(
    path: Path, config: RunConfig, faults: Counter[str], files: dict[str, str]
) -> tuple[Converted, str]:
    records = read_records(path)
    detected = detect(records)
    converted = convert(records, detected, config.method, config.system_prompt, config.instruction)
    files[str(path)] = records.sha256
    faults.update(records.mended)
    faults.update({kind: len(lines) for kind, lines in converted.faults.items()})
    return converted, detected.format


def stage(config: RunConfig) -> Staged:
    """Read, convert and split the run's files. Raises UserError where a file is bad or no row is left to train."""
    faults: Counter[str] = Counter()
    files: dict[str, str] = {}
    converted, name = _load(Path(config.train_file).expanduser(), config, faults, files)
    rows = converted.rows
    labels = label_set(rows, name)
    test = (
        _load(Path(config.test_file).expanduser(), config, faults, files)[0].rows
        if config.test_file
        else None
    )
    evaluation = (
        _load(Path(config.eval_file).expanduser(), config, faults, files)[0].rows
        if config.eval_file
        else None
    )
    before = len(rows)
    rows = without_overlap(rows, [*(test or []), *(evaluation or [])])
    splits = split(
        rows,
        eval_fraction=0 if evaluation is not None else config.eval_fraction,
        test_fraction=0 if test is not None else config.test_fraction,
        seed=config.seed,
        stratify=labels is not None or config.method == "kto",
    )
    splits.test = test if test is not None else splits.test
    splits.eval = without_overlap(evaluation, splits.test) if evaluation is not None else splits.eval
    if not splits.train:
        raise UserError(
            f"{config.train_file}: no rows are left to train on: all {before} are held out or also in the test file; "
            f"give more rows or smaller fractions"
        )
    card = {
        "format": name,
        "labels": labels,
        "files": files,
        "faults": dict(faults),
        "overlap": before - len(rows),
    }
    return Staged(splits, card)


def label_set(rows: list[Row], format: str) -> list[str] | None:
    """The labels, sorted, where the answers are labels; None where they are texts.

    Answers of a text+label file are labels unless most differ; other formats hold labels when few, short
    answers are repeated often.
    """
    if not rows or "completion" not in rows[0] or "label" in rows[0]:
        return None
    return labels_of(Counter(row["completion"][-1]["content"] for row in rows), format)


def labels_of(counts: Counter[str], format: str) -> list[str] | None:
    """The same from the number of rows of each answer."""
    rows = counts.total()
    if format in ("bio", "spans"):
        return None
    if format == "text+label":
        return sorted(counts) if 2 * len(counts) <= max(rows, 4) else None
    short = all(len(label) <= 64 and "\n" not in label for label in counts)
    return sorted(counts) if short and 2 <= len(counts) <= 200 and 5 * len(counts) <= rows else None


def freeze(staged: Staged, folder: Path) -> None:
    """Write the rows, then card.json, whose presence says that all of them are there."""
    parts = {"train": staged.splits.train, "eval": staged.splits.eval, "test": staged.splits.test}
    for name, rows in parts.items():
        write_atomic(
            folder / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        )
    staged.card["rows"] = {name: len(rows) for name, rows in parts.items()}
    write_atomic(folder / CARD, json.dumps(staged.card, ensure_ascii=False, indent=1))


def thaw(folder: Path) -> Staged | None:
    """The frozen rows, or None where they were not written to their end."""
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return Staged(Splits(*(read_rows(folder / f"{name}.jsonl") for name in ("train", "eval", "test"))), card)


def read_rows(path: Path) -> list[Row]:
    """Rows of a frozen file, in its order."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]
