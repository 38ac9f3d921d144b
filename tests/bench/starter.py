"""The demonstration, timed: Chinese reviews to a starter model and its score on held-out rows.

Run `python tests/bench/starter.py` (about 2 minutes on one idle core) or with --small for what CI runs.
Prints JSON: accuracy with its interval, CPU and wall seconds by stage. Needs ../shared/data/chnsenticorp.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "chnsenticorp"
# The values that the advice gives for labels with the starter model (kb/facts/rules.yaml).
RECIPE: dict[str, Any] = {
    "method": "sft", "peft": "full", "base_model": "starter", "starter_hidden_size": 128, "starter_layers": 2,
    "starter_vocab_size": 4000, "max_length": 96, "batch_size": 16, "gradient_accumulation": 1,
    "learning_rate": 2e-3, "epochs": 1, "warmup_ratio": 0.05, "gradient_checkpointing": False,
    "eval_fraction": 0.02, "logging_steps": 20,
}  # fmt: skip
SMALL = {"max_length": 64, "max_steps": 200}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="the smaller run of CI")
    parser.add_argument("--set", default="{}", help="JSON of RunConfig fields to change")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(json.dumps({"skipped": f"{DATA} is missing"}))
        return
    values = {**RECIPE, **(SMALL if options.small else {}), **json.loads(options.set)}
    print(json.dumps(measure(values), ensure_ascii=False, indent=1))


def measure(values: dict[str, Any]) -> dict[str, Any]:
    """Train and score in a temporary home. Times are seconds of this process: CPU and wall."""
    from trainer import runs
    from trainer.config import RunConfig
    from trainer.train import train

    config = RunConfig(
        task="reviews", train_file=str(DATA / "train.tsv"), test_file=str(DATA / "dev.tsv"), **values
    )
    stages: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as home:
        folder = Timed(runs.create(Path(home), config), stages)
        cpu, wall = time.process_time(), time.monotonic()
        with contextlib.redirect_stdout(sys.stderr):
            train(folder)
        total = {"cpu": round(time.process_time() - cpu, 1), "wall": round(time.monotonic() - wall, 1)}
        scores = folder.scores()
    return {
        "accuracy": round(scores["tuned"]["accuracy"], 4),
        "interval": [round(end, 4) for end in scores["tuned"]["interval"]],
        "macro_f1": round(scores["tuned"]["macro_f1"], 4),
        "parse_failures": scores["tuned"]["parse_failures"],
        "majority": round(scores["majority"]["accuracy"], 4),
        "n": scores["n"],
        "seconds": total,
        "cpu_seconds_by_stage": _by_stage(stages),
        "run": values,
    }


class Timed:
    """A run folder that notes when each stage begins."""

    def __init__(self, folder: Any, stages: dict[str, list[float]]) -> None:
        self._folder, self._stages = folder, stages

    def __getattr__(self, name: str) -> Any:
        return getattr(self._folder, name)

    def set_status(self, **changes: Any) -> Any:
        if changes.get("stage"):
            self._stages.setdefault(changes["stage"], []).append(time.process_time())
        return self._folder.set_status(**changes)


def _by_stage(stages: dict[str, list[float]]) -> dict[str, float]:
    starts = sorted((times[0], name) for name, times in stages.items())
    ends = [start for start, _ in starts[1:]] + [time.process_time()]
    return {name: round(end - start, 1) for (start, name), end in zip(starts, ends, strict=True)}


if __name__ == "__main__":
    main()
