"""The queue of runs: submit, cancel, resume; find dead workers; start the next one. One job a device at a time.

The app and the command line call it, and the worker at its end, so that the queue moves without the app.
Rows are in job_store.py, processes in launch/local.py, the worker's side in worker.py. No torch here.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from trainer import runs
from trainer.config import UserError
from trainer.job_store import KINDS, WORKING, Job, JobStore, device_of
from trainer.launch import local
from trainer.messages import coded
from trainer.runs import ACTIVE, ENDED, RunFolder

GRACE = (
    40.0  # seconds that a worker has to stop after being asked, before it is killed; four times in training
)
SAVING_GRACE = 600.0  # the same once it has said that it writes its checkpoint
SPAWN_SECONDS = 30.0  # a claim with no process after this long: whoever claimed died before it could spawn
FRESH_SECONDS = 15.0  # a heartbeat younger than this proves life even when the clock was set
HUNG_SECONDS = 600.0  # a living worker without a heartbeat for so long, watched all the while, is ended


class Jobs:
    """The queue of one home folder. Cheap to make; any number of processes may hold one at once."""

    def __init__(self, home: Path) -> None:
        self.store = JobStore(home)
        self._silent: dict[tuple[int, int], tuple[float, Any]] = {}

    def submit(
        self,
        folder: RunFolder,
        kind: str = "train",
        args: dict[str, Any] | None = None,
        where: str = "local",
    ) -> int:
        """Queue a job of a run and start it when its device is free. Returns the job's id.

        Submitting what is queued or at work returns that job. `args` are the export's, `where` is the place
        (launch/places.py). Raises UserError for a run that was trained before, or that has no weights to evaluate or export.
        """
        if kind not in KINDS:
            raise UserError(f"unknown job {kind!r}; the kinds are: {', '.join(KINDS)}")
        config = folder.config()
        job = self.open_job(folder.id, kind)
        if job is None:
            _check_startable(folder, kind)
            fresh = {**runs.NEW_STATUS, "attempt": folder.status(kind)["attempt"], "args": args or {}}
            fresh |= {"submitted": round(time.time(), 3), "where": where}
            del fresh["state"], fresh["job"]
            job = self.store.enqueue(folder, kind, device_of(config, kind, where, folder.id), **fresh)
        self.dispatch()
        return job.id

    def cancel(self, run_id: str, kind: str | None = None, wait: float = 0.0) -> str:
        """Stop a run's open jobs (of one kind, or all). Returns the state of the last one.

        A queued one is cancelled at once. One at work is asked; it writes a checkpoint and ends, and when it
        does not, it is killed after GRACE seconds. `wait`: seconds to stay until it has ended. Raises
        UserError when nothing is open.
        """
        folder = runs.find(self.store.tasks, run_id)
        kinds = (kind,) if kind else KINDS
        open_jobs = [job for name in kinds if (job := self.open_job(folder.id, name))]
        if not open_jobs:
            raise UserError(
                f"{folder.id} has nothing to cancel: it is {folder.status(kind or 'train')['state']}"
            )
        for job in open_jobs:
            if not self.store.close(job, "cancelled", of=("queued",), **coded("cancelled_queued")):
                folder.ask_stop(job.kind)
        deadline = time.monotonic() + wait
        while (state := folder.status(open_jobs[-1].kind)["state"]) in ACTIVE and time.monotonic() < deadline:
            time.sleep(0.1)
            self.dispatch()
        return state

    def resume(self, run_id: str) -> int:
        """Queue a run again: it goes on from its last complete checkpoint, or starts over and says so.

        Returns the job's id. Raises UserError for a run that is done or still open.
        """
        folder = runs.find(self.store.tasks, run_id)
        config, status = folder.config(), folder.status()
        if self.open_job(folder.id) is not None:
            raise UserError(f"{folder.id} is {status['state']}; cancel it first, or wait")
        if status["state"] == "done":
            raise UserError(f"{folder.id} is done; change a value and start a new version instead")
        saved = folder.saved_step()
        said = coded("resumes", step=saved) if saved else coded("starts_over")
        device = device_of(config, "train", status["where"], folder.id)
        job = self.store.enqueue(folder, "train", device, step=saved, stage="", finished=None, **said)
        self.dispatch()
        return job.id

    def list(self) -> list[Job]:
        """All jobs, the newest first."""
        return self.store.rows()

    def open_job(self, run_id: str, kind: str = "train") -> Job | None:
        """The queued, starting or running job of a run."""
        open_jobs = (job for job in self.store.rows(settled=True) if job.state in ACTIVE)
        return next((job for job in open_jobs if (job.run, job.kind) == (run_id, kind)), None)

    def waits_for(self, run_id: str, kind: str = "train") -> list[str]:
        """Ids of the runs before a queued one on its device, the one at work first."""
        job = self.open_job(run_id, kind)
        if job is None or job.state != "queued":
            return []
        same = [other for other in self.list() if other.device == job.device]
        ahead = [
            other
            for other in same
            if other.state in WORKING or (other.state == "queued" and other.id < job.id)
        ]
        return [other.run for other in sorted(ahead, key=lambda other: (other.state == "queued", other.id))]

    def rebuild(self) -> None:
        """Make the index again from the run folders."""
        self.store.rebuild()

    def dispatch(self) -> None:
        """Close the jobs of dead workers, then start the next job of every free device. Call at every poll."""
        self.reap()
        while (job := self.store.claim()) is not None:
            folder = self.store.folder(job)
            try:
                pid, pid_created = local.spawn(folder, job.kind, job.id, job.attempt)
            except OSError as error:
                self.store.close(job, "failed", **coded("not_started", error=str(error)))
            else:
                self.store.spawned(job, pid, pid_created)

    def reap(self) -> list[str]:
        """Find workers that died, hang, or did not stop when asked. Returns ids of the runs that it closed."""
        working = [job for job in self.list() if job.state in WORKING]
        return [job.run for job in working if self._judge(job)]

    def _judge(self, job: Job) -> bool:
        if job.pid is None:
            if time.time() - (job.claimed or 0) > SPAWN_SECONDS:
                self.store.requeue(job)
            return False
        folder = self.store.folder(job)
        if not _lives(job, folder.status(job.kind)):
            local.kill(job.pid, job.pid_created or 0.0)  # what it started may have outlived it
            status = folder.status(job.kind)
            if job.state == "running" and _is_keeper(job, status) and status["state"] not in ENDED:
                self.store.reattach(job, asked=folder.stop_asked(job.kind) is not None)
                return False
            # Read again: a worker writes its last status before it ends, not after.
            state, status = _end_of_dead(job, folder)
        elif stop_overdue(folder, job.kind, GRACE):
            local.kill(job.pid, job.pid_created or 0.0)
            state, status = stopped(folder, job.kind)
        elif self._silent_for(job, folder) > HUNG_SECONDS:
            local.kill(job.pid, job.pid_created or 0.0)
            state, status = "lost", coded("hung", minutes=int(HUNG_SECONDS // 60), saved=folder.saved_step())
        else:
            return False
        return self.store.close(job, state, **status)

    def _silent_for(self, job: Job, folder: RunFolder) -> float:
        # Counted on a clock that stands still while the machine sleeps: a laptop that wakes finds old
        # heartbeats of workers that are well.
        now, beat = time.monotonic(), folder.status(job.kind)["heartbeat"]
        since, last = self._silent.get((job.id, job.attempt), (now, beat))
        self._silent[job.id, job.attempt] = (since if beat == last else now, beat)
        return now - self._silent[job.id, job.attempt][0]


def _is_keeper(job: Job, status: dict[str, Any]) -> bool:
    """Whether a job's process only keeps sight of a run in another place."""
    return job.kind == "train" and status["where"] != "local"


def stop_overdue(folder: RunFolder, kind: str, grace: float) -> bool:
    """Whether a worker was asked to stop longer ago than it may take."""
    asked = folder.stop_asked(kind)
    if asked is None:
        return False
    status = folder.status(kind)
    if status["code"] == "saving":
        grace = SAVING_GRACE
    elif kind == "train" and status["stage"] == "train":  # it looks after each step, and steps may be long
        grace *= 4
    return time.time() - asked > grace


def stopped(folder: RunFolder, kind: str) -> tuple[str, dict[str, Any]]:
    """State and status keys of a job that ended because it was asked to: where it stood, from where it can go on."""
    state = folder.stop_reason(kind)
    if kind != "train":
        return state, coded("cancelled_work")
    status = folder.status()
    if status["where"] != "local" and status["code"] == "unreachable":
        return state, coded("cancelled_away", where=status["where"])
    saved = folder.saved_step()
    step = max(saved, folder.status()["step"])  # the status is a second behind
    values = {"step": step, "saved": saved}
    if state == "timeout":
        values["hours"] = f"{folder.config().time_limit_hours:g}"
    if not saved:
        return state, coded(f"{state}_unsaved", **values)
    return state, {"step": step, **coded(state, **values)}


def _end_of_dead(job: Job, folder: RunFolder) -> tuple[str, dict[str, Any]]:
    status = folder.status(job.kind)
    if status["state"] in ENDED and status["attempt"] == job.attempt:  # died between folder and index
        return status["state"], {"finished": status["finished"]}
    if folder.stop_asked(job.kind) is not None:
        return stopped(folder, job.kind)
    if job.state == "starting":
        error = folder.log_tail(1).strip()[:200] or "it ended without a word"
        return "failed", coded("not_started", error=error)
    if job.kind != "train":
        return "lost", coded("lost_work")
    saved = folder.saved_step()
    before, now = status["memory_kills"], local.memory_kills()
    if before is not None and now is not None and now > before:
        return "oom", coded("killed_for_memory", step=status["step"], saved=saved)
    return "lost", coded("lost", step=status["step"], saved=saved) if saved else coded("lost_unsaved")


def _lives(job: Job, status: dict[str, Any]) -> bool:
    assert job.pid is not None
    if local.alive(job.pid, job.pid_created or 0.0):
        return True
    # The creation time moves when the clock is set; only the worker itself writes its heartbeat.
    beats = time.time() - (status["heartbeat"] or 0) < FRESH_SECONDS
    mine = (status["pid"], status["attempt"]) == (job.pid, job.attempt)
    return beats and mine and local.created(job.pid) is not None


def _check_startable(folder: RunFolder, kind: str) -> None:
    state, id = folder.status()["state"], folder.id
    if kind == "train" and state != "queued":
        raise UserError(
            f"{id} is {state} already; `tunesmith run resume {id}` goes on with one that did not end well"
        )
    if kind != "train" and not any((folder.path / name).is_dir() for name in ("adapter", "model")):
        raise UserError(
            f"{id} has no trained weights to {kind}: it is {state}; wait until it is done, or resume it"
        )
