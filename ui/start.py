"""Starting a run, for the command line and the page alike: check, make the folder, queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kb.errors import UserError
from trainer import runs
from trainer.config import RunConfig
from trainer.jobs import Jobs
from ui.home import Home


def check(config: RunConfig) -> None:
    """Raise UserError for what the worker would refuse a minute later."""
    from trainer import methods

    methods.check(config)
    for field in ("train_file", "eval_file", "test_file"):
        value = getattr(config, field)
        if value and not Path(value).is_file():
            raise UserError(f"{field}: {value}: no such file; give the path of your data")


def start(home: Home, jobs: Jobs, config: RunConfig, reasons: dict[str, Any] | None = None):
    """Queue a run and return its folder. Refuses at once what the worker would refuse a minute later."""
    check(config)
    folder = runs.create(home.tasks, config, reasons=reasons)
    jobs.submit(folder)
    return folder
