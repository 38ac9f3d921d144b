"""The test rows put to a model as it is served, counted while they come: used by the Test tab.

`count(rows, labels, ask)` yields after every row. Right is what `evaluate` calls right: the label that the answer names,
or the very text. What was counted is kept as a line of RUN/eval/served.jsonl.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from trainer.config import UserError
from trainer.data.convert import Row
from trainer.data.stage import thaw
from trainer.evaluate import OTHER, as_label, wilson
from trainer.runs import RunFolder

Ask = Callable[[list[dict[str, str]], int], str]  # (messages, most tokens) → answer
FILE = "served.jsonl"


@dataclass
class Count:
    """How far it is: n of `of` rows, `right` of them; `wrong` rows {row, prompt, expected, found, label}."""

    of: int
    n: int = 0
    right: int = 0
    wrong: list[dict[str, Any]] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.right / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share (Wilson)."""
        return wilson(self.right, self.n)


def rows_of(folder: RunFolder) -> tuple[list[Row], list[str] | None]:
    """(test rows, labels) of a run. Raises UserError where it has none, or none that has one right answer."""
    staged = thaw(folder.path / "data")
    rows = staged.splits.test if staged else []
    if staged is None or not rows:
        raise UserError(f"{folder.id}: has no test rows; give a test file or a share when training")
    if "prompt" not in rows[0] or "completion" not in rows[0] or "label" in rows[0]:
        raise UserError(
            f"{folder.id}: its test rows are no questions with one right answer; compare answers by voting"
        )
    return rows, staged.card["labels"]


def count(rows: list[Row], labels: list[str] | None, ask: Ask, room: int) -> Iterator[Count]:
    """Ask every row and yield the count after each, the same object. room: most tokens of an answer that is no label."""
    if labels:  # a token holds at least one byte
        room = max(len(label.encode()) for label in labels) + 8
    counted = Count(len(rows))
    for index, row in enumerate(rows):
        expected = row["completion"][-1]["content"].strip()
        found = ask(row["prompt"], room)
        label = as_label(found, labels) if labels else found.strip()
        counted.n += 1
        if label == expected:
            counted.right += 1
        else:
            counted.wrong.append({
                "row": index, "prompt": row["prompt"], "expected": expected, "found": found,
                "label": label if labels and label != OTHER else None,
            })  # fmt: skip
        yield counted


def keep(folder: RunFolder, model: str, counted: Count) -> None:
    """Append {time, model, n, of, right, interval} to RUN/eval/served.jsonl."""
    line = {"time": round(time.time()), "model": model, "n": counted.n, "of": counted.of, "right": counted.right,
            "interval": list(counted.interval)}  # fmt: skip
    path = folder.path / "eval" / FILE
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def kept(folder: RunFolder) -> list[dict[str, Any]]:
    """What `keep` kept, the newest first."""
    try:
        lines = (folder.path / "eval" / FILE).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines][::-1]
    except (OSError, ValueError):
        return []
