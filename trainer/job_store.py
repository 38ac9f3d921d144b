"""The table behind the queue: jobs.sqlite, an index over the run folders that can be made again from them.

`jobs` decides, this keeps. Every change of a job's state and of its folder's status.json happens in one
write transaction, so that of any number of processes one wins and the others see that it did.
"""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer import runs
from trainer.launch.local import memory_kills
from trainer.messages import coded
from trainer.runs import ACTIVE, ENDED, STATES, RunFolder, Superseded

KINDS = ("train", "evaluate", "export")
WORKING = ("starting", "running")

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN {KINDS}),
    device TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN {STATES}),
    attempt INTEGER NOT NULL DEFAULT 0,
    pid INTEGER,
    pid_created REAL,
    submitted REAL NOT NULL,
    claimed REAL
);
CREATE UNIQUE INDEX IF NOT EXISTS one_working_job_a_device ON jobs (device) WHERE state IN {WORKING};
CREATE UNIQUE INDEX IF NOT EXISTS one_open_job_a_run ON jobs (run, kind) WHERE state IN {ACTIVE};
"""

_VERSION = 2  # of the table; an older one knows fewer states and is made again from the folders

_CLAIM = f"""
UPDATE jobs SET state = 'starting', claimed = ?, pid = NULL, pid_created = NULL
WHERE state = 'queued' AND id = (
    SELECT id FROM jobs AS waiting WHERE state = 'queued' AND NOT EXISTS (
        SELECT 1 FROM jobs WHERE device = waiting.device AND state IN {WORKING}
    ) ORDER BY id LIMIT 1
) RETURNING *
"""


@dataclass(frozen=True)
class Job:
    """A row of the queue. `run` is the run's id; times are unix seconds."""

    id: int
    run: str
    kind: str
    device: str
    state: str
    attempt: int
    pid: int | None
    pid_created: float | None
    submitted: float
    claimed: float | None


class JobStore:
    """The rows of one home folder. Any number of processes may hold one at once."""

    def __init__(self, home: Path) -> None:
        self.tasks = home / "tasks"
        self.path = home / "jobs.sqlite"
        self._prepare()

    def folder(self, job: Job) -> RunFolder:
        task, _, version = job.run.partition("/")
        return RunFolder(self.tasks / task / "runs" / version, kind=job.kind)

    def rows(self, settled: bool = False) -> list[Job]:
        """All jobs, the newest first; `settled` waits for a change that is being written to its folder."""
        with self._write() if settled else self._open() as db:
            return [Job(**row) for row in db.execute("SELECT * FROM jobs ORDER BY id DESC")]

    def enqueue(self, folder: RunFolder, kind: str, device: str, **status: Any) -> Job:
        """Add a queued job, or return the one that is open; `status` goes to the folder with the first."""
        with self._write() as db:
            query = f"SELECT * FROM jobs WHERE run = ? AND kind = ? AND state IN {ACTIVE}"
            row = db.execute(query, (folder.id, kind)).fetchone()
            if row is None:
                row = db.execute(
                    "INSERT INTO jobs (run, kind, device, state, submitted) VALUES (?, ?, ?, 'queued', ?) RETURNING *",
                    (folder.id, kind, device, time.time()),
                ).fetchone()
                RunFolder(folder.path, kind=kind).set_status(state="queued", job=row["id"], **status)
            return Job(**row)

    def claim(self) -> Job | None:
        """Take the oldest queued job whose device is free, under a new attempt number; None when there is none."""
        with self._write() as db:
            while (row := db.execute(_CLAIM, (time.time(),)).fetchone()) is not None:
                folder = self.folder(Job(**row))
                if not folder.path.is_dir():
                    db.execute("UPDATE jobs SET state = 'lost' WHERE id = ?", (row["id"],))
                    continue
                attempt = max(row["attempt"], folder.status(row["kind"])["attempt"]) + 1
                db.execute("UPDATE jobs SET attempt = ? WHERE id = ?", (attempt, row["id"]))
                folder.set_status(state="starting", attempt=attempt, pid=None, heartbeat=None)
                return Job(**{**row, "attempt": attempt})
        return None

    def spawned(self, job: Job, pid: int, pid_created: float) -> None:
        """Note the process of a claimed job; the worker may have been quicker."""
        with self._write() as db:
            db.execute(
                "UPDATE jobs SET pid = ?, pid_created = ? WHERE id = ? AND attempt = ? AND pid IS NULL",
                (pid, pid_created, job.id, job.attempt),
            )

    def requeue(self, job: Job) -> None:
        """Give back a claim whose claimer died before it could spawn; a late worker of it is refused."""
        with self._write() as db:
            query = "UPDATE jobs SET state = 'queued' WHERE id = ? AND attempt = ? AND state = 'starting' AND pid IS NULL"
            if db.execute(query, (job.id, job.attempt)).rowcount:
                self.folder(job).set_status(state="queued")

    def reattach(self, job: Job, asked: bool) -> None:
        """Queue the keeper of a run in another place again: it died, the run there did not."""
        with self._write() as db:
            query = "UPDATE jobs SET state = 'queued' WHERE id = ? AND attempt = ? AND state = 'running'"
            if db.execute(query, (job.id, job.attempt)).rowcount:
                folder = self.folder(job)
                if asked:  # the next attempt's wish to stop
                    folder.ask_stop(job.kind, attempt=job.attempt + 1)
                folder.set_status(state="queued", **coded("reattaches"))

    def close(self, job: Job, state: str, of: tuple[str, ...] = WORKING, **status: Any) -> bool:
        """End a job that is in one of the states `of` from outside its worker. False: it was not, any more."""
        with self._write() as db:
            marks = ", ".join("?" * len(of))
            query = f"UPDATE jobs SET state = ? WHERE id = ? AND attempt = ? AND state IN ({marks})"
            if not db.execute(query, (state, job.id, job.attempt, *of)).rowcount:
                return False
            with contextlib.suppress(FileNotFoundError):  # the folder was deleted
                status = {"finished": round(time.time(), 3), **status}
                self.folder(job).set_status(state=state, eta_seconds=None, **status)
            return True

    def started(self, job_id: int, folder: RunFolder, pid: int, pid_created: float) -> None:
        """The worker's first act: from now on the job is running. Raises Superseded when it is not its turn."""
        with self._write() as db:
            row = db.execute("SELECT state, attempt FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if row is not None and tuple(row) != ("starting", folder.attempt):
                raise Superseded(f"{folder.id}: job {job_id} is {row['state']}, attempt {row['attempt']}")
            db.execute(
                "UPDATE jobs SET state = 'running', pid = ?, pid_created = ? WHERE id = ?",
                (pid, pid_created, job_id),
            )
            now = round(time.time(), 3)
            process = {"pid": pid, "pid_created": pid_created, "started": now, "heartbeat": now}
            process["memory_kills"] = memory_kills()
            folder.set_status(state="running", **process)

    def finished(self, job_id: int, folder: RunFolder, state: str, **status: Any) -> None:
        """The worker's last report. Raises Superseded when the attempt was closed or replaced before."""
        with self._write() as db:
            folder.set_status(state=state, finished=round(time.time(), 3), eta_seconds=None, **status)
            db.execute(
                "UPDATE jobs SET state = ? WHERE id = ? AND attempt = ?", (state, job_id, folder.attempt)
            )

    def folder_gone(self, job_id: int, attempt: int) -> None:
        """The run's folder was deleted under its worker: free the device."""
        with self._write() as db:
            db.execute("UPDATE jobs SET state = 'lost' WHERE id = ? AND attempt = ?", (job_id, attempt))

    def rebuild(self) -> None:
        """Make the rows again from the run folders: working jobs keep working, queued ones keep their order."""
        found = []
        for folder in runs.all_runs(self.tasks):
            for kind in KINDS:
                status = folder.status(kind)
                if isinstance(status["job"], int) and not folder.fault():
                    found.append((status["job"], folder, kind, status))
        with self._write() as db:
            db.execute("DELETE FROM jobs")
            for job_id, folder, kind, status in sorted(found, key=lambda entry: entry[0]):
                device = device_of(folder.config(), kind, status["where"], folder.id)
                state, row = status["state"], [folder.id, kind, device]
                row += [status["attempt"], status["pid"], status["pid_created"]]
                row += [status["submitted"] or 0.0, status["started"]]
                query = (
                    "INSERT INTO jobs (id, state, run, kind, device, attempt, pid, pid_created, submitted, claimed)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                )
                try:
                    db.execute(query, (job_id, state, *row))
                except sqlite3.IntegrityError:  # a copied folder: the job is the original's
                    state = state if state in ENDED else "lost"
                    db.execute(query, (None, state, *row))
                    RunFolder(folder.path, kind=kind).set_status(state=state)

    def _prepare(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                new = self._make_tables()
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError:  # not a database any more; the folders know it all
                for path in self.path.parent.glob("jobs.sqlite*"):
                    path.rename(path.with_name(f"damaged-{int(time.time())}-{path.name}"))
                new = self._make_tables()
            if new:
                self.rebuild()

    def _make_tables(self) -> bool:
        """Make what is missing. Returns whether the rows must be made again from the folders."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as db:
            db.execute("PRAGMA journal_mode = WAL")
            old = db.execute("PRAGMA user_version").fetchone()[0] < _VERSION
            if old:
                db.execute("DROP TABLE IF EXISTS jobs")
            db.executescript(_SCHEMA)
            db.execute(f"PRAGMA user_version = {_VERSION}")
            return old

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        db.row_factory = sqlite3.Row
        try:
            db.execute("PRAGMA synchronous = FULL")
            yield db
        finally:
            db.close()  # an open transaction is rolled back

    @contextlib.contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")


def device_of(config: runs.RunConfig, kind: str, where: str = "local", run: str = "") -> str:
    """The queue that a job stands in: "cuda", "cpu", a machine, or its own where a cluster keeps the queue.

    Export computes on the CPU.
    """
    if where != "local" and kind == "train":
        return where if where.startswith("ssh") else f"{where} {run}"
    if kind == "export" or config.device == "cpu":
        return "cpu"
    if config.device == "cuda":
        return "cuda"
    return "cuda" if any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists() else "cpu"
