"""A run done again: the same values and the same frozen rows, and the two results set side by side. No torch.

The rows are the first run's own (RUN/data), so that a changed file of the user's changes nothing; a starter model is
made again, which is part of what is tested.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from trainer import runs
from trainer.config import UserError
from trainer.runs import RunFolder

COMPARED = ("versions", "code", "hardware", "data", "seed", "base_model", "adjusted")


def begin(tasks_dir: Path, run: RunFolder) -> RunFolder:
    """Make the child run; `Jobs.submit` starts it. Raises UserError for a run that is not done."""
    if (state := run.status()["state"]) != "done":
        raise UserError(f"{run.id} is {state}; only a run that is done can be repeated")
    if "result" not in run.lineage():
        raise UserError(
            f"{run.id} was trained before results were kept; start it anew instead: tunesmith train"
        )
    child = runs.create(tasks_dir, run.config(), reasons=run.reasons(), parent=run)
    shutil.copytree(run.path / "data", child.path / "data")
    child.add_lineage(repeats=run.id)
    return child


def comparison(tasks_dir: Path, child: RunFolder) -> dict[str, Any] | None:
    """{"of", "same", "loss": [first's, second's], "weights": […], "differs": {what: [first's, second's]}}.

    None for a run that repeats none, or has not ended. `same` means that the weights are equal to the last bit.
    """
    lineage = child.lineage()
    if "repeats" not in lineage or "result" not in lineage:
        return None
    try:
        first = runs.find(tasks_dir, lineage["repeats"]).lineage()
    except UserError:
        return None
    pair = (first.get("result") or {}, lineage["result"])
    weights = [result.get("weights_sha256") for result in pair]
    differs = {}
    for name in COMPARED:
        before, after = _flat(name, first.get(name)), _flat(name, lineage.get(name))
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                differs[key] = [before.get(key), after.get(key)]
    return {
        "of": lineage["repeats"],
        "same": weights[0] == weights[1],
        "loss": [result.get("loss") for result in pair],
        "weights": weights,
        "differs": differs,
    }


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {f"{name}.{key}": one for key, one in value.items() if key != "path"}
    return {} if value is None else {name: value}
