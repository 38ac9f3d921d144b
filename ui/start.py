"""Starting a run, for the command line and the page alike: check, make the folder, queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kb.errors import UserError
from trainer import runs
from trainer.atomic import write_atomic
from trainer.config import RunConfig
from trainer.jobs import Jobs
from trainer.launch import places
from ui.home import Home


def check(config: RunConfig) -> None:
    """Raise UserError for what the worker would refuse a minute later."""
    from trainer import methods, trackers

    methods.check(config)
    trackers.check(config)
    for field in ("train_file", "eval_file", "test_file"):
        value = getattr(config, field)
        if value and not Path(value).is_file():
            raise UserError(f"{field}: {value}: no such file; give the path of your data")


def start(
    home: Home, jobs: Jobs, config: RunConfig, reasons: dict[str, Any] | None = None, where: str = "local"
):
    """Queue a run and return its folder. Refuses at once what the worker would refuse a minute later."""
    check(config)
    task = home.tasks / config.task
    places.check(where, config, task)
    folder = runs.create(home.tasks, config, reasons=reasons)
    places.remember(task, where)
    jobs.submit(folder, where=where)
    return folder


def write_slurm(home: Home, config: RunConfig, out: Path, reasons: dict[str, Any] | None = None):
    """Make a run folder and the sbatch script that trains it there; nothing is queued or started here."""
    from trainer.launch import slurm

    check(config)
    wanted = places.load(home.tasks / config.task).slurm
    folder = runs.create(home.tasks, config, reasons=reasons)
    write_atomic(out, slurm.script(folder.path, config, wanted))
    return folder
