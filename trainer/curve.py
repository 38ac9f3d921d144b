"""Reading a run's metrics.jsonl: what was done twice is there once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """Rows of the curve in order of writing; none where the file is missing.

    What was written beyond the checkpoint from which training went on, in a new attempt or in the same
    one after a want of memory or the loss of a process, is left out. Rows that are not whole (a torn last line) are skipped.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    rows: list[dict[str, Any]] = []
    newest = 0
    for line in lines:
        try:
            row = json.loads(line)
            step, attempt = row["step"], row.get("attempt", 0)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        if attempt > newest:
            rows = [old for old in rows if old["step"] < step]
            newest = attempt
        if attempt == newest:  # a replaced worker may write one last row
            while rows and _written_again(rows[-1], row):
                rows.pop()
            rows.append(row)
    return rows


def _written_again(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a row is of an earlier pass over the same steps than the one after it."""
    again = any(name in old and name in new for name in ("loss", "eval_loss"))
    return old["step"] > new["step"] or (old["step"] == new["step"] and again)
