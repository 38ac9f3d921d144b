"""What stands for the queue where there is none: a worker in another place, whose only record is its run folder."""

from __future__ import annotations

import time
from typing import Any

from trainer.runs import ENDED, RunFolder


class Alone:
    """The part of Jobs that a worker uses (its `store` too), on the run folder's status alone."""

    @property
    def store(self) -> Alone:
        return self

    def started(self, job: int, folder: RunFolder, pid: int, pid_created: float) -> None:
        now = round(time.time(), 3)
        process = {"pid": pid, "pid_created": pid_created, "started": now, "heartbeat": now}
        folder.set_status(state="running", **process)

    def finished(self, job: int, folder: RunFolder, state: str, **status: Any) -> None:
        folder.set_status(state=state, finished=round(time.time(), 3), eta_seconds=None, **status)

    def folder_gone(self, job: int, attempt: int) -> None:
        pass

    def dispatch(self) -> None:
        pass


def next_attempt(folder: RunFolder) -> int:
    """The number of a new attempt of a run that no queue starts, noted in its status (a SLURM script's own)."""
    status = folder.status()
    if status["state"] == "running" and time.time() - (status["heartbeat"] or 0) < 60:
        raise SystemExit(f"{folder.id} is at work already; cancel it first")
    attempt = status["attempt"] + 1
    state = "starting" if status["state"] in ENDED else status["state"]
    folder.set_status(state=state, attempt=attempt, heartbeat=None, finished=None)
    return attempt
