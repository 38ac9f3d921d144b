"""The first case of each finding that has none yet, read from the file again; personal data and keys are masked."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

from trainer.data import scan
from trainer.data.findings import Finding
from trainer.data.rows import numbered

LONGEST = 160
MOST_ROWS = 200_000  # read to find them; what is first met later goes without


def with_examples(path: Path, found: list[Finding]) -> list[Finding]:
    """The findings, those with lines now also with the row of their first line."""
    wanted = {item.lines[0] for item in found if item.lines and not item.example}
    rows: dict[int, str] = {}
    for at, (number, record) in enumerate(numbered(path, Counter(), mend=True) if wanted else ()):
        if number in wanted:
            text = json.dumps(record, ensure_ascii=False)[: 4 * LONGEST]
            rows[number] = scan.redact(text.encode("utf-8", "replace").decode())[0][:LONGEST]
        if len(rows) == len(wanted) or at >= MOST_ROWS:
            break
    return [
        replace(item, example=rows.get(item.lines[0], "")) if item.lines and not item.example else item
        for item in found
    ]
