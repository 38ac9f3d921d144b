"""A run in another place: its folder is sent there, the worker there is kept in sight, and the folder comes back.

The local worker process does this as its work (`worker.place_work`), so queue, heartbeat and cancel are those of any
run. The worker there depends on nothing here: a lost connection is waited out, and after a closed laptop a new
keeper finds the same attempt again by RUN/there.json.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import yaml

from trainer import runs
from trainer.atomic import read_object, write_atomic
from trainer.config import STARTER, RunConfig
from trainer.launch.host import Failed, Host, Unreachable
from trainer.messages import coded
from trainer.runs import ACTIVE, Ended, RunFolder

POLL_SECONDS = 2.0
LONGEST_WAIT = 60.0  # seconds between attempts to reach a machine that does not answer
SILENT_SECONDS = 20.0  # without a heartbeat from there: look whether the worker lives
HUNG_SECONDS = 600.0
THERE = "there.json"  # what was started where: enough to find it again
# Each side writes its own; these are merged and never copied over each other.
OWN = ("status.json", ".lock", ".stop-*", "run.yaml", THERE, "keeper.log", "inputs", ".*.tmp", ".rank-*")
MIRRORED = (
    "stage",
    "step",
    "total_steps",
    "eta_seconds",
    "peak_gb",
    "step_seconds",
    "code",
    "values",
    "message",
)
FILE_FIELDS = ("train_file", "eval_file", "test_file")
MODEL_FIELDS = ("base_model", "teacher_model")
REWARD_FILE = re.compile(r"((?:[\d.]+\*)?(?:file|json):)(.+)")


class Place(Protocol):
    """What differs between ssh, Ray and SLURM. `there` is the run's folder there, `handle` what `start` gave."""

    host: Host  # where the files are: another machine, or this one where storage is shared

    def prepare(self, folder: RunFolder) -> Path:
        """Check the place and make it ready; the folder there that holds tasks/. Raises UserError."""

    def start(self, there: Path, attempt: int) -> str: ...

    def lives(self, handle: str, status: dict[str, Any]) -> bool: ...

    def kill(self, handle: str, status: dict[str, Any]) -> None: ...

    # A job that still waits in a cluster's queue has no worker that could hear of a cancel: `kill` ends it.

    def log(self, handle: str) -> str:
        """What a worker said that could not start."""


def keep(folder: RunFolder, place: Place, should_stop: Callable[[], bool]) -> None:
    """Start the run in its place, or find it again, and stay until it ends. Raises Ended with its end there."""
    should_stop()  # from here on a cancel is passed on instead of ending this process
    known = read_object(folder.path / THERE)
    if not known or known["ended"]:
        known = _begin(folder, place, known)
    raise _watch(folder, place, known, should_stop)


def _begin(folder: RunFolder, place: Place, before: dict[str, Any]) -> dict[str, Any]:
    folder.set_status(stage="place", **coded("place_checked", place=place.host.name))
    root = place.prepare(folder)
    there = Path(before.get("path") or root / "tasks" / folder.task / "runs" / folder.version)
    folder.set_status(**coded("place_sent", place=place.host.name))
    push(folder, place.host, there, there.parents[3])
    known = {"path": str(there), "attempt": folder.attempt, "handle": None, "ended": False}
    known["handle"] = place.start(there, folder.attempt or 0)
    write_atomic(folder.path / THERE, json.dumps(known))
    folder.set_status(**coded("place_started", place=place.host.name))
    return known


def _watch(folder: RunFolder, place: Place, known: dict[str, Any], should_stop: Callable[[], bool]) -> Ended:
    there, host, handle = Path(known["path"]), place.host, known["handle"]
    status: dict[str, Any] = {}
    beat, beat_at, asked, failures, unreachable = None, time.monotonic(), False, 0, 0.0
    while True:
        try:
            if should_stop() and not asked:
                request = str(there / f".stop-{known['attempt']}")
                host.shell('printf %s "$2" >"$1"', request, folder.stop_reason())
                asked = True
            status = json.loads(host.run(["cat", str(there / "status.json")]))
            if asked and status["state"] == "starting":  # no worker yet that could hear of it
                place.kill(handle, status)
                status |= {"state": "cancelled", **coded("cancelled_queued")}
            now = time.monotonic()
            if status["heartbeat"] != beat:
                beat, beat_at = status["heartbeat"], now
            if status["state"] in ACTIVE and now - beat_at > SILENT_SECONDS:
                if not place.lives(handle, status):
                    # Read again: a worker writes its end before it goes.
                    status = json.loads(host.run(["cat", str(there / "status.json")]))
                    status = _died(place, handle, status) if status["state"] in ACTIVE else status
                elif now - beat_at > HUNG_SECONDS and status["heartbeat"]:
                    place.kill(handle, status)
                    status |= {"state": "lost", **coded("hung", minutes=10, saved=folder.saved_step())}
            ended = status["state"] not in ACTIVE
            pull(folder, host, there, checkpoints=True)
            failures = 0
        except (Unreachable, Failed) as error:
            failures += 1
            unreachable = unreachable if failures > 1 else time.time()
            minutes = int((time.time() - unreachable) // 60)
            folder.set_status(
                **coded("unreachable", place=host.name, error=str(error)[:200], minutes=minutes)
            )
            time.sleep(min(POLL_SECONDS * 2**failures, LONGEST_WAIT) if not asked else POLL_SECONDS)
            continue
        _mirror(folder, status, asked)
        if ended:
            write_atomic(folder.path / THERE, json.dumps({**known, "ended": True}))
            return _end(folder, status)
        time.sleep(POLL_SECONDS)


def _mirror(folder: RunFolder, status: dict[str, Any], asked: bool) -> None:
    changes = {name: status[name] for name in MIRRORED}
    if asked and status["code"] != "saving":
        changes |= coded("stopping")
    elif not changes["message"]:
        changes |= {"code": "", "values": {}}
    folder.set_status(**changes)


def _died(place: Place, handle: str, status: dict[str, Any]) -> dict[str, Any]:
    if not status["heartbeat"]:
        said = place.log(handle).strip().splitlines()
        error = said[-1][:200] if said else "it ended without a word"
        return {**status, "state": "failed", **coded("not_started", error=error)}
    return {**status, "state": "lost", "code": "", "message": ""}


def _end(folder: RunFolder, status: dict[str, Any]) -> Ended:
    said = {name: status[name] for name in ("code", "values", "message")}
    if status["state"] == "lost" and not said["message"]:
        saved = folder.saved_step()
        said = coded("lost", step=status["step"], saved=saved) if saved else coded("lost_unsaved")
    return Ended(status["state"], said | ({"stage": ""} if status["state"] == "done" else {}))


# the folder, there and back


def push(folder: RunFolder, host: Host, there: Path, root: Path) -> None:
    """Send the run folder, the files that its values name and a run.yaml with their paths there."""
    host.run(["mkdir", "-p", "--", str(there / "inputs")])
    values = folder.config().model_dump()
    task = folder.path.parent.parent  # relative paths in run.yaml start here, and there alike
    for name in FILE_FIELDS:
        values[name] = values.get(name) and _send(task / Path(values[name]).expanduser(), host, there, name)
    values["rewards"] = [_send_reward(text, task, host, there) for text in values.get("rewards") or []]
    for name in MODEL_FIELDS:
        path = task / Path(values.get(name) or "").expanduser()
        if values.get(name) and path.is_dir() and path != task:
            mark = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
            values[name] = str(root / "models" / f"{path.name}-{mark}")
            host.run(["mkdir", "-p", "--", values[name]])
            host.rsync(f"{path.resolve()}/", host.at(values[name] + "/"))
    excluded = [f"--exclude=/{name}" for name in (*OWN, "log.txt", "metrics.jsonl")]
    host.rsync(*excluded, "--exclude=/*/status.json", f"{folder.path}/", host.at(f"{there}/"))
    attempt = folder.attempt or 0
    fresh = {**runs.NEW_STATUS, "state": "starting", "attempt": attempt, "step": folder.saved_step()}
    for name, text in {
        "run.yaml": yaml.safe_dump(RunConfig.model_validate(values).model_dump(), allow_unicode=True),
        "status.json": json.dumps(fresh),
    }.items():
        outgoing = folder.path / f".{name}.outgoing"
        write_atomic(outgoing, text)
        host.rsync(str(outgoing), host.at(there / name))
        outgoing.unlink()


def _send(path: Path, host: Host, there: Path, name: str) -> str:
    """Send a file beside the run; its path there, from the task's folder as the worker has it."""
    target = there / "inputs" / f"{name}{path.suffix}"
    host.rsync(str(path.resolve()), host.at(target))
    return str(target.relative_to(there.parents[1]))


def _send_reward(text: str, task: Path, host: Host, there: Path) -> str:
    match = REWARD_FILE.fullmatch(text)
    if not match:
        return text
    path = task / Path(match[2]).expanduser()
    return match[1] + _send(path, host, there, f"reward-{path.stem}")


def pull(folder: RunFolder, host: Host, there: Path, checkpoints: bool) -> None:
    """Bring back what the worker there wrote. A half-written checkpoint has no valid mark and is not used."""
    excluded = [f"--exclude=/{name}" for name in (*OWN, "base", "checkpoints")]
    host.rsync(*excluded, "--exclude=/*/status.json", host.at(f"{there}/"), f"{folder.path}/")
    if checkpoints and host.shell('[ -d "$1/checkpoints" ] && echo yes || true', str(there)).strip():
        host.rsync("--delete", host.at(f"{there}/checkpoints/"), f"{folder.path}/checkpoints/")
    _name_base(folder)


def _name_base(folder: RunFolder) -> None:
    """An adapter that comes back names its base by the path there; here it has another."""
    path, config = folder.path / "adapter" / "adapter_config.json", folder.config()
    with contextlib.suppress(OSError, ValueError, KeyError):
        values = json.loads(path.read_text(encoding="utf-8"))
        name = str(folder.path / "base") if config.base_model == STARTER else config.base_model
        if values["base_model_name_or_path"] != name:
            write_atomic(path, json.dumps({**values, "base_model_name_or_path": name}, indent=2))


def home_mark(folder: RunFolder) -> str:
    """Eight characters for this home folder, so that those of two machines do not meet in one place."""
    return hashlib.sha256(f"{platform.node()}:{folder.path.parents[3]}".encode()).hexdigest()[:8]
