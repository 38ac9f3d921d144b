"""The worker as a process of its own on this machine: start it, know it again, end it.

`jobs` calls this; the process outlives whoever started it. A pid alone says nothing (the system gives it to
another process later), so a worker is its pid together with the time at which the process was created.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from trainer.runs import RunFolder

CLOCK_SLACK = 2.0  # seconds; the creation time is derived from the boot time, which the clock's setting moves
_children: list[
    subprocess.Popen
] = []  # ours to wait for: a dead child that nobody waits for stays as a zombie


def command(folder: RunFolder, kind: str, job: int, attempt: int) -> list[str]:
    """The worker's command line. -P keeps the working folder off the module path."""
    return [
        sys.executable, "-P", "-u", "-X", "faulthandler", "-m", "trainer.worker",
        str(folder.path), "--kind", kind, "--job", str(job), "--attempt", str(attempt),
    ]  # fmt: skip


def spawn(folder: RunFolder, kind: str, job: int, attempt: int) -> tuple[int, float]:
    """Start a worker in a session of its own, what it prints appended to log.txt.

    Returns its pid and creation time (unix seconds). Raises OSError when the machine refuses.
    """
    wait_for_dead_children()
    away = kind == "train" and folder.status()["where"] != "local"  # then log.txt is the other worker's
    with (folder.path / ("keeper.log" if away else "log.txt")).open("ab") as log:
        child = subprocess.Popen(
            command(folder, kind, job, attempt),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder.path.parent.parent,  # the task's folder: relative paths in run.yaml start there
            start_new_session=True,
        )
    _children.append(child)
    return child.pid, created(child.pid) or 0.0


def wait_for_dead_children() -> None:
    _children[:] = [child for child in _children if child.poll() is None]


def created(pid: int) -> float | None:
    """Creation time of a living process in unix seconds; None when there is none."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (psutil.NoSuchProcess, ValueError):
        return None


def alive(pid: int, pid_created: float) -> bool:
    """Whether the process with this pid lives and is the one that was created then."""
    wait_for_dead_children()
    now = created(pid)
    return now is not None and abs(now - pid_created) <= CLOCK_SLACK


def kill(pid: int, pid_created: float) -> None:
    """SIGKILL the worker and what it started. A stranger that got the same pid is left alone."""
    now = created(pid)
    if now is not None and abs(now - pid_created) > CLOCK_SLACK:
        return
    # The worker leads its group. When it is dead already, its number stays taken while children of it live.
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def memory_kills() -> int | None:
    """How many processes the memory killer has ended since this machine or container began; None where it does not say.

    A worker that dies while this rises was most likely one of them: SIGKILL itself says nothing.
    """
    own = Path("/sys/fs/cgroup/memory.events")  # of the container, if it has one; else the whole machine
    for path in (own, Path("/proc/vmstat")):
        try:
            rows = dict(line.split() for line in path.read_text().splitlines())
            return int(rows["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return None
