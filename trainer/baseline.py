"""The base model, untrained, on the rows that a run would be tested on: zero-shot, then with a few examples.

What to beat, known before the first GPU hour. `tunesmith baseline RUN.yaml`; a run folder under HOME/baselines,
laid out like a home of its own as rehearsals are, so that no version of the task counts it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer import runs
from trainer.config import STARTER, RunConfig, UserError, write_atomic
from trainer.data.convert import Row
from trainer.jobs import Jobs
from trainer.runs import RunFolder

PLAN = "baseline.json"


def begin(home: Path, config: RunConfig, shots: int) -> RunFolder:
    """Queue the measurement; its folder. Raises UserError for the starter model, which knows nothing yet."""
    if config.base_model == STARTER:
        raise UserError(
            "base_model 'starter': it is random until it is trained, so there is nothing to measure; name a "
            "pretrained model, or train at once"
        )
    root = home / "baselines"
    folder = runs.create(root / "tasks", config)
    write_atomic(folder.path / PLAN, json.dumps({"shots": shots}))
    Jobs(root).submit(folder)
    return folder


def perform(folder: RunFolder, should_stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Score the base model into RUN/eval/metrics.json: "base", and "few_shot" where rows are questions."""
    from trainer.data.stage import stage, thaw
    from trainer.evaluate import evaluate
    from trainer.generate import Stopped
    from trainer.train import prepare

    config = folder.config()
    shots = json.loads((folder.path / PLAN).read_text(encoding="utf-8"))["shots"]
    folder.set_status(stage="data", message="")
    staged = thaw(folder.path / "data") or stage(config)
    prepare(folder, config, staged)
    folder.set_status(stage="evaluate")
    scores: dict[str, Any] = {}
    try:
        scores = evaluate(folder, "base", should_stop)
        if shots and scores["task"] in ("classification", "generation"):
            scores = evaluate(folder, "few_shot", should_stop, examples=chosen(staged.splits.train, shots))
    except Stopped:
        pass
    return scores


def chosen(rows: list[Row], shots: int) -> list[Row]:
    """`shots` rows whose answers differ as far as they can: one of each answer in turn, in the rows' order."""
    by_answer: dict[str, list[Row]] = {}
    for row in rows:
        by_answer.setdefault(row["completion"][-1]["content"], []).append(row)
    found: list[Row] = []
    turn = 0
    while len(found) < min(shots, len(rows)):
        found += [group[turn] for group in by_answer.values() if turn < len(group)]
        turn += 1
    return found[:shots]


def with_examples(row: Row, examples: list[Row]) -> Row:
    """The row with the examples as earlier turns of the conversation, after its system message."""
    system = [turn for turn in row["prompt"] if turn["role"] == "system"]
    turns = [
        turn for one in examples for turn in (*one["prompt"], *one["completion"]) if turn["role"] != "system"
    ]
    return {**row, "prompt": [*system, *turns, *(turn for turn in row["prompt"] if turn["role"] != "system")]}
