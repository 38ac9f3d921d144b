"""Predicted beside measured: each finished run adds a pair, and the pairs widen or narrow the interval shown.

The worker calls `note()` when training has ended; HOME/calibration.jsonl holds one line a run, RUN/estimate.json the
same pair with its terms. Only pairs of the same device and the same kind of model speak of a new run. No torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.config import STARTER, RunConfig, write_atomic
from trainer.hardware import gpu_row

FILE = "calibration.jsonl"
# The published points stand for so many runs of one's own, so that one odd run does not rule the interval.
PRIOR = 4
SPREAD = 1.645  # standard deviations on each side of nine out of ten


@dataclass(frozen=True)
class Pair:
    """One finished run: GiB and seconds of its training, predicted and measured. `kind`: starter, or the PEFT name."""

    device: str
    kind: str
    predicted_gb: float
    measured_gb: float
    predicted_seconds: float | None = None
    measured_seconds: float | None = None
    run: str = ""


def kind_of(config: RunConfig) -> str:
    return STARTER if config.base_model == STARTER else config.peft


def load(home: Path) -> list[Pair]:
    """All pairs of a home, the oldest first; lines that are not whole are skipped."""
    try:
        lines = (home / FILE).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in lines:
        try:
            found.append(Pair(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


def like(pairs: Sequence[Pair], device: str, config: RunConfig) -> list[Pair]:
    """The pairs that speak of a run: same device, however it is written, and same kind of model."""
    wanted = (_card(device), kind_of(config))
    return [pair for pair in pairs if (_card(pair.device), pair.kind) == wanted]


def _card(name: str) -> str:
    row = gpu_row(name)
    return row.id if row else name


def note(home: Path, run: Path, pair: Pair, terms: dict[str, float]) -> None:
    """Keep a finished run's pair in the home, and with its terms in the run's folder."""
    write_atomic(run / "estimate.json", json.dumps({**asdict(pair), "terms": terms}, indent=1))
    with (home / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(pair)) + "\n")


def interval(total: float, ratios: Sequence[float], below: float, above: float) -> tuple[float, float]:
    """(low, high) around `total` in which nine of ten runs lie: by the runs measured here, and before there are any,
    by the published points (`below` and `above`, shares of the total).

    `ratios` are measured / predicted. Their logarithms have a normal prior of PRIOR runs with mean 0; `total` itself
    always stays inside.
    """
    logs = [math.log(ratio) for ratio in ratios if ratio > 0]
    count = len(logs) + PRIOR
    mean = sum(logs) / count
    scatter = sum((value - mean) ** 2 for value in logs)
    low, high = (
        math.exp(mean + sign * SPREAD * math.sqrt((PRIOR * (width / SPREAD) ** 2 + scatter) / count))
        for sign, width in ((-1, -math.log1p(-below)), (1, math.log1p(above)))
    )
    return total * min(low, 1.0), total * max(high, 1.0)


def memory_ratios(pairs: Sequence[Pair]) -> list[float]:
    return [pair.measured_gb / pair.predicted_gb for pair in pairs if pair.predicted_gb]


def time_ratios(pairs: Sequence[Pair]) -> list[float]:
    return [
        pair.measured_seconds / pair.predicted_seconds
        for pair in pairs
        if pair.predicted_seconds and pair.measured_seconds
    ]


def measured_pair(
    guess: Any, config: RunConfig, device: str, run: str, memory_gb: float, seconds: float
) -> Pair:
    """The pair of an Estimate and what its run took."""
    return Pair(
        device, kind_of(config), guess.total_gb, round(memory_gb, 3), guess.seconds, round(seconds, 1), run
    )
