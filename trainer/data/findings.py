"""What can be wrong in a data file, told in both languages: the table findings.yaml and the Finding made of it.

Kinds are counted by lines.py and read.py (mended or broken), convert.py (left out), scan.py and check.py (measured).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

Severity = Literal["error", "warning", "info"]
SHOWN = 5  # lines kept a finding


@dataclass(frozen=True)
class Finding:
    """One kind of fault. `rows` is how many it touches, `lines` the first of them in the file.

    `message`, `fix` and `why` are {"en", "zh-TW"}; `page` is the knowledge-base passage that says more,
    `command` what puts it right, `example` the first case (personal data and keys are masked).
    An "error" stops training or spoils its measure, a "warning" costs rows or quality.
    """

    kind: str
    severity: Severity
    rows: int
    lines: list[int]
    message: dict[str, str]
    fix: dict[str, str]
    why: dict[str, str] = field(default_factory=dict)
    page: str = ""
    command: str | None = None
    example: str = ""


@cache
def faults() -> dict[str, dict[str, Any]]:
    """The table of faults by kind."""
    return yaml.safe_load((Path(__file__).parent / "findings.yaml").read_text(encoding="utf-8"))


def finding(
    kind: str, rows: int, lines: list[int] | None = None, example: str = "", **values: Any
) -> Finding:
    """The Finding of a kind; `lines` are cut to the first five. `values` fill its texts and its command."""
    fault = faults()[kind]
    told = lambda name: {lang: text.format(n=f"{rows:,}", **values) for lang, text in fault[name].items()}
    return Finding(
        kind,
        fault["severity"],
        rows,
        (lines or [])[:SHOWN],
        told("message"),
        told("fix"),
        fault["why"],
        fault["page"],
        fault.get("command"),
        example,
    )
