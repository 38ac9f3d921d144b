"""Files in, files out: what `tunesmith data convert`, `split` and `preview` do. Torch-free."""

from __future__ import annotations

import json
from pathlib import Path

from trainer.config import write_atomic
from trainer.data.check import METHOD_OF_FORMAT
from trainer.data.convert import Converted, Row, convert
from trainer.data.detect import detect
from trainer.data.findings import finding
from trainer.data.read import read_records
from trainer.data.splits import split
from trainer.data.stage import label_set


def convert_file(path: Path, out: Path) -> str:
    """Write the file's rows as JSONL that TRL takes; returns a report of what went in and what did not."""
    converted, format = _load(path)
    _write(out, converted.rows)
    lines = [f"{out}: {len(converted.rows)} rows of {format}"]
    lines += [finding(kind, len(found), found).message["en"] for kind, found in converted.faults.items()]
    return "\n".join(lines)


def split_file(path: Path, out: Path, test_fraction: float, eval_fraction: float, seed: int) -> str:
    """Write train.jsonl, eval.jsonl and test.jsonl into the folder `out`; returns their sizes."""
    converted, format = _load(path)
    stratify = label_set(converted.rows, format) is not None or format == "kto"
    parts = split(converted.rows, eval_fraction, test_fraction, seed, stratify)
    sizes = []
    for name, rows in (("train", parts.train), ("eval", parts.eval), ("test", parts.test)):
        _write(out / f"{name}.jsonl", rows)
        sizes.append(f"{name} {len(rows)}")
    return f"{out}: {', '.join(sizes)}"


def preview(path: Path, rows: int) -> list[Row]:
    """The first rows as the trainer gets them, before the chat template."""
    return _load(path)[0].rows[:rows]


def _load(path: Path) -> tuple[Converted, str]:
    records = read_records(path)
    detected = detect(records)
    return convert(records, detected, METHOD_OF_FORMAT.get(detected.format, "sft")), detected.format


def _write(path: Path, rows: list[Row]) -> None:
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
