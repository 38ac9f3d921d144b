"""Run folders: tasks/<task>/runs/<version>/ is the run; nothing about a run is kept only elsewhere.

The screen and the command line read it, `jobs` queues it, the worker writes it. run.yaml is frozen at the
start, status.json is replaced whole, metrics.jsonl and log.txt only grow. Importing this costs no torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import difflib
import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trainer import checkpoints, curve
from trainer import config as run_config
from trainer.atomic import read_object, write_atomic
from trainer.config import TASK_NAME, RunConfig, UserError

ACTIVE = ("queued", "starting", "running")
ENDED = ("done", "failed", "cancelled", "lost", "oom", "timeout")
STATES = ACTIVE + ENDED
VERSION = re.compile(r"v([1-9]\d{0,8})")

NEW_STATUS: dict[str, Any] = {
    "state": "queued", "stage": "", "message": "", "pid": None, "pid_created": None, "memory_kills": None, "attempt": 0,
    "heartbeat": None, "step": 0, "total_steps": None, "submitted": None, "started": None, "finished": None,
    "eta_seconds": None, "peak_gb": None, "step_seconds": None, "code": "", "values": {}, "job": None, "args": {},
    "where": "local",
}  # fmt: skip


class Superseded(Exception):
    """The attempt of this writer is over, or a newer one began: it must stop and write nothing more."""


class Ended(Exception):
    """The work ends here, in a state of its own and with what is to be said of it."""

    def __init__(self, state: str, said: dict[str, Any]) -> None:
        super().__init__(said.get("message", ""))
        self.state, self.said = state, said


@dataclass(frozen=True)
class RunFolder:
    """A run on disk. `kind` is the job whose status set_status writes; a worker's handle has its `attempt`."""

    path: Path
    attempt: int | None = None
    kind: str = "train"

    @property
    def id(self) -> str:
        """Such as "reviews/v3"."""
        return f"{self.task}/{self.version}"

    @property
    def task(self) -> str:
        return self.path.parent.parent.name

    @property
    def version(self) -> str:
        return self.path.name

    def config(self) -> RunConfig:
        """The frozen run.yaml. Raises UserError naming file and line."""
        return run_config.load(self.path / "run.yaml")

    def fault(self) -> str | None:
        """What is damaged in this folder, in one line; None for a sound one."""
        try:
            self.config()
        except UserError as error:
            return str(error)
        status = self.status()
        return status["message"] if status.get("damaged") else None

    # status.json

    def status(self, kind: str = "train") -> dict[str, Any]:
        """All keys of NEW_STATUS, times in unix seconds. An unreadable file reads as lost, with a message.

        `kind` "evaluate" and "export" have their own file, in eval/ and export/; absent, state is "".
        """
        path = self.status_path(kind)
        try:
            values = json.loads(path.read_bytes())
            if not isinstance(values, dict) or values.get("state") not in STATES:
                raise ValueError("it has no known state")
        except FileNotFoundError:
            if kind != "train":
                return {**NEW_STATUS, "state": ""}
            return {**NEW_STATUS, "state": "lost", "message": f"{path}: no such file", "damaged": True}
        except (OSError, ValueError) as error:
            return {
                **NEW_STATUS,
                "state": "lost",
                "message": f"{path}: cannot be read: {error}",
                "damaged": True,
            }
        return {**NEW_STATUS, **values}

    def status_path(self, kind: str = "train") -> Path:
        folder = {"train": ".", "evaluate": "eval", "export": "export"}[kind]
        return self.path / folder / "status.json"

    def set_status(self, **changes: Any) -> dict[str, Any]:
        """Merge `changes` into the status of this handle's kind; returns the new status.

        A `message` without a `code` is shown as it stands. Threads and processes may call at once.

        Raises Superseded when this handle has an attempt and that is no longer the run's or has ended,
        FileNotFoundError when the folder is gone (it is not made again).
        """
        if "message" in changes:
            changes = {"code": "", "values": {}, **changes}
        with self._locked():
            status = self.status(self.kind)
            before = status["state"]
            if self.attempt is not None and (status["attempt"] != self.attempt or before in ENDED):
                raise Superseded(
                    f"{self.id}: attempt {status['attempt']} is {before}; this is {self.attempt}"
                )
            status.pop("damaged", None)
            status.update(changes)
            if status["state"] not in STATES:
                raise ValueError(f"state {status['state']!r}; the states are {', '.join(STATES)}")
            # Only a change of state must outlive a power cut; steps and heartbeats come every second.
            text = json.dumps(status, ensure_ascii=False)
            write_atomic(self.status_path(self.kind), text, sync=status["state"] != before)
            return status

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    # metrics.jsonl and log.txt

    def append_metric(self, row: dict[str, Any]) -> None:
        """Append one row of the curve; `time` (unix seconds) and `attempt` are added. `step` is required."""
        attempt = self.attempt if self.attempt is not None else self.status()["attempt"]
        row = {"step": row["step"], "time": round(time.time(), 3), "attempt": attempt, **row}
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        handle = os.open(self.path / "metrics.jsonl", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(handle).st_size
            if size and os.pread(handle, 1, size - 1) != b"\n":  # a killed writer left half a row
                line = b"\n" + line
            os.write(handle, line)
        finally:
            os.close(handle)

    def metrics(self, since: int = -1) -> list[dict[str, Any]]:
        """Rows of the curve with step > `since`, in order of writing.

        What was written beyond the checkpoint from which the run went on is left out, be it another attempt or
        the same one after a want of memory. Rows that are not whole (a torn last line) are skipped.
        """
        return [row for row in curve.read(self.path / "metrics.jsonl") if row["step"] > since]

    def log_tail(self, n: int = 200) -> str:
        """The last `n` lines of log.txt; of a progress bar only its last drawing."""
        try:
            with (self.path / "log.txt").open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(0, end - 400 * n - 4096))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        lines = [line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.rstrip("\n").split("\n")]
        return "\n".join(lines[-n:])

    # checkpoints

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first: those with a mark whose files all have the sizes it names."""
        return checkpoints.complete(self.path / "checkpoints")

    def saved_step(self) -> int:
        """Optimizer step of the last complete checkpoint; 0 when there is none."""
        return max((checkpoints.step_of(path) for path in self.checkpoints()), default=0)

    # asking the worker to stop

    def ask_stop(self, kind: str = "train", why: str = "cancelled", attempt: int | None = None) -> None:
        """Ask the worker of the present attempt, or of that number, to stop; it looks once a second.

        `why` is the state it will end in.
        """
        attempt = self.status(kind)["attempt"] if attempt is None else attempt
        if not self._stop_path(kind, attempt).exists():
            write_atomic(self._stop_path(kind, attempt), why)

    def stop_asked(self, kind: str = "train") -> float | None:
        """When the present attempt was asked to stop (unix seconds), or None."""
        try:
            return self._stop_path(kind, self.status(kind)["attempt"]).stat().st_mtime
        except FileNotFoundError:
            return None

    def stop_reason(self, kind: str = "train") -> str:
        """The state in which an attempt ends that was asked to stop: "cancelled" or "timeout"."""
        try:
            told = self._stop_path(kind, self.status(kind)["attempt"]).read_text().strip()
        except OSError:
            told = ""
        return told if told in ENDED else "cancelled"

    def _stop_path(self, kind: str, attempt: int) -> Path:
        return self.status_path(kind).with_name(
            f".stop-{attempt}"
        )  # an old request must not stop a new attempt

    # lineage.yaml

    def lineage(self) -> dict[str, Any]:
        """Where the run comes from: created, parent, changes, reasons, data hash, versions, hardware."""
        try:
            values = yaml.safe_load((self.path / "lineage.yaml").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            return {}
        return values if isinstance(values, dict) else {}

    def add_lineage(self, **values: Any) -> None:
        """Add keys to lineage.yaml."""
        with self._locked():
            _write_yaml(self.path / "lineage.yaml", {**self.lineage(), **values})

    def reasons(self) -> dict[str, Any]:
        """The advice's reasons as they were when the run was made: field → {rule, because, citation, …}."""
        return self.lineage().get("reasons") or {}

    def scores(self) -> dict[str, Any]:
        """eval/metrics.json, or {} when the run has not been evaluated."""
        return read_object(self.path / "eval" / "metrics.json")


def create(
    tasks_dir: Path,
    config: RunConfig,
    reasons: dict[str, Any] | None = None,
    parent: RunFolder | None = None,
) -> RunFolder:
    """Make the next version of the config's task, state "queued"; `Jobs.submit` starts it.

    The folder is filled under another name and renamed into place: readers never see half of it, and of two
    processes that want the same version one gets it and the other the next.
    """
    runs_dir = tasks_dir / config.task / "runs"
    runs_dir.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=runs_dir, prefix=".new-"))
    try:
        building.chmod(0o755)
        _fill(building, config, reasons, parent)
        while True:
            path = runs_dir / f"v{_last_version(runs_dir) + 1}"
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                _rename_folder(building, path)
                return RunFolder(path)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def _rename_folder(old: Path, new: Path) -> None:
    try:
        os.rename(old, new)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):  # another process took this version first
            raise FileExistsError(error.errno, str(error), str(new)) from None
        raise


def _fill(path: Path, config: RunConfig, reasons: dict[str, Any] | None, parent: RunFolder | None) -> None:
    run_config.save(config, path / "run.yaml", reasons)
    now = time.time()
    lineage: dict[str, Any] = {
        "created": datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat(timespec="seconds"),
        "parent": parent.id if parent else None,
        "changes": _differences(parent.config(), config) if parent else {},
        "reasons": reasons or {},
    }
    _write_yaml(path / "lineage.yaml", lineage)
    (path / "log.txt").touch()
    (path / "metrics.jsonl").touch()
    write_atomic(path / "status.json", json.dumps({**NEW_STATUS, "submitted": round(now, 3)}))


def _last_version(runs_dir: Path) -> int:
    matches = (VERSION.fullmatch(name) for name in os.listdir(runs_dir))
    return max((int(match[1]) for match in matches if match), default=0)


def all_runs(tasks_dir: Path) -> list[RunFolder]:
    """Every run folder, newest first. Damaged ones are among them; `fault()` names what is wrong."""
    found = []
    for path in tasks_dir.glob("*/runs/v*"):
        match = VERSION.fullmatch(path.name)
        if match and path.is_dir():
            run = RunFolder(path)
            try:
                submitted = run.status()["submitted"] or path.stat().st_mtime
            except FileNotFoundError:  # removed while we look
                continue
            found.append((submitted, int(match[1]), path))
    return [RunFolder(path) for _, _, path in sorted(found, reverse=True)]


def find(tasks_dir: Path, id: str) -> RunFolder:
    """The run called `id` ("task/v1"). Raises UserError that lists the nearest ids."""
    task, _, version = id.partition("/")
    if TASK_NAME.fullmatch(task) and VERSION.fullmatch(version):
        path = tasks_dir / task / "runs" / version
        if path.is_dir():
            return RunFolder(path)
    known = [run.id for run in all_runs(tasks_dir)]
    near = difflib.get_close_matches(id, known, n=5, cutoff=0.4) or known[:5]
    hint = (
        f"the nearest are: {', '.join(near)}"
        if near
        else "there are no runs yet; `tunesmith train` makes one"
    )
    raise UserError(f"no run {id[:80]!r}; {hint}")


def newest(tasks_dir: Path, task: str) -> RunFolder:
    """The task's newest run. Raises UserError where it has none."""
    found = [folder for folder in all_runs(tasks_dir) if folder.task == task]
    if not found:
        raise UserError(f"task {task!r}: has no run yet; start one: tunesmith train {task}")
    return max(found, key=lambda folder: int(folder.version.removeprefix("v")))


def compare(a: RunFolder, b: RunFolder) -> dict[str, Any]:
    """{"fields": {field: [a's, b's]} where the configs differ, "scores": {run id: its eval metrics}}."""
    fields = {name: [pair["from"], pair["to"]] for name, pair in _differences(a.config(), b.config()).items()}
    return {"fields": fields, "scores": {run.id: run.scores() for run in (a, b)}}


def _differences(old: RunConfig, new: RunConfig) -> dict[str, dict[str, Any]]:
    before, after = old.model_dump(), new.model_dump()
    return {name: {"from": before[name], "to": after[name]} for name in after if before[name] != after[name]}


def _write_yaml(path: Path, values: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(values, default=_plain))  # tuples, dates and dataclasses as YAML has them
    write_atomic(path, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else str(value)
