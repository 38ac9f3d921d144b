"""The process that does a run's work: python -m trainer.worker RUN --kind train --job 3 --attempt 1

`jobs` starts it; it takes everything from the run folder and puts everything there. It beats once a second,
stops when asked, ends itself when its folder is gone or its attempt is over, and starts the next job last.
Torch is imported only by the work itself, after the environment for it is set.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer import checkpoints
from trainer.config import RunConfig, UserError
from trainer.jobs import Jobs, stop_overdue, stopped
from trainer.launch import local
from trainer.launch.alone import Alone, next_attempt
from trainer.memory import is_out_of_memory
from trainer.messages import MISTAKE, coded
from trainer.runs import Ended, RunFolder, Superseded

BEAT_SECONDS = 1.0
GRACE = (
    30.0  # seconds to stop after being asked; below the grace in jobs, so that the worker ends itself first
)
LOG_LIMIT = 50_000_000  # bytes of log.txt; beyond it the middle is dropped

Work = Callable[[RunFolder, Callable[[], bool], Path | None], None]


class Stopped(BaseException):
    """Raised in the main thread when it is asked to stop where nothing needs saving."""


class Worker:
    """One attempt of one job, in this process."""

    def __init__(self, folder: RunFolder, job: int, jobs: Jobs | Alone) -> None:
        assert folder.attempt is not None
        self.folder, self.kind, self.job = folder, folder.kind, job
        self.jobs = jobs
        self.away = (
            folder.status()["where"] != "local" and folder.kind == "train"
        )  # this keeps sight of another
        self.asked = threading.Event()  # to stop
        self.polled = self.obeyed = False  # the training loop looks for it; it has seen it
        self.ended = threading.Event()
        self.began, self.limit = (
            time.monotonic(),
            0.0,
        )  # seconds that this attempt may take; 0: as long as it does

    def should_stop(self) -> bool:
        """What the training loop asks after every step; once true, it saves a checkpoint and returns."""
        self.polled = True
        if self.asked.is_set() and not self.obeyed:
            self.obeyed = True
            self.folder.set_status(**coded("saving"))
        return self.asked.is_set()

    def on_signal(self, *_: Any) -> None:
        """SIGTERM, from outside or from the heartbeat. Runs in the main thread, between two of its steps."""
        if self.asked.is_set():
            return
        if self.away and self.folder.stop_asked(self.kind) is None:
            return  # this machine shuts down; the run elsewhere goes on and is found again
        self.asked.set()
        in_loop = self.polled and self.kind == "train" and self.folder.status()["stage"] == "train"
        if not in_loop and not (self.away and self.polled):
            raise Stopped

    def beat(self) -> None:
        """The heartbeat thread."""
        while not self.ended.wait(BEAT_SECONDS):
            try:
                self.folder.set_status(heartbeat=round(time.time(), 3))
                if self._out_of_time():
                    self.folder.ask_stop(self.kind, "timeout")
                if self.folder.stop_asked(self.kind) is not None:
                    self._stop()
            except (FileNotFoundError, Superseded) as error:
                if not self.ended.is_set():
                    self.quit(error)
            except (OSError, sqlite3.Error) as error:  # a full disk: the work meets it too and says it better
                print(f"heartbeat: {error}", file=sys.stderr)
            cap_log(self.folder.path / "log.txt", LOG_LIMIT)

    def _out_of_time(self) -> bool:
        return self.kind == "train" and 0 < self.limit < time.monotonic() - self.began

    def _stop(self) -> None:
        if not self.asked.is_set():
            self.folder.set_status(**coded("stopping"))
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        elif stop_overdue(self.folder, self.kind, GRACE):
            self.finish(*stopped(self.folder, self.kind))
            end_process()

    def quit(self, why: Exception) -> None:
        """End without a report: the run is somebody else's, or gone."""
        print(f"worker of attempt {self.folder.attempt} ends: {why}", file=sys.stderr)
        if not self.folder.path.is_dir():
            self.jobs.store.folder_gone(self.job, self.folder.attempt or 0)
            self.jobs.dispatch()
        end_process()

    def do(self, work: Work) -> tuple[str, dict[str, Any]]:
        """Run the work. Returns the state that it ended in and what to say of it."""
        saved = checkpoints.newest_sound(self.folder.path / "checkpoints")
        print(
            f"attempt {self.folder.attempt}: {self.kind}", f"from {saved.name}" if saved else "", flush=True
        )
        try:
            work(self.folder, self.should_stop, saved)
        except (UserError, Superseded):
            raise
        except Ended as ended:
            return ended.state, ended.said
        except Exception as error:
            traceback.print_exc()
            said = explain(error, self.folder)
            return ("oom" if said["code"] == "oom" else "failed"), said
        if self.obeyed:
            return stopped(self.folder, self.kind)
        return "done", {"code": "", "values": {}, "message": "", "stage": ""}

    def finish(self, state: str, said: dict[str, Any]) -> None:
        """Report the end and let the queue move."""
        self.jobs.store.finished(self.job, self.folder, state, **said)
        self.jobs.dispatch()


def run(path: Path, kind: str, job: int, attempt: int, work: Work | None = None, alone: bool = False) -> int:
    """Do one attempt of a job. Returns the exit status: 0 done or not its turn, 1 otherwise.

    `work` stands in for the kind's own work; `alone`: no queue but the run folder's status.
    """
    home = path.parents[3]  # home/tasks/<task>/runs/<version>
    worker = Worker(RunFolder(path, attempt, kind), job, Alone() if alone else Jobs(home))
    pid = os.getpid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for whoever follows the run
    try:
        worker.jobs.store.started(job, worker.folder, pid, local.created(pid) or 0.0)
        try:
            state, said = _attempt(worker, work)
        except Stopped:
            state, said = stopped(worker.folder, kind)
        if not path.is_dir():
            worker.quit(FileNotFoundError(path))
        worker.finish(state, said)
    except Superseded as error:
        print(f"worker ends: {error}", file=sys.stderr)
        return 0
    return 0 if state == "done" else 1


def _attempt(worker: Worker, work: Work | None) -> tuple[str, dict[str, Any]]:
    with contextlib.suppress(UserError):  # told below
        worker.limit = worker.folder.config().time_limit_hours * 3600
    heart = threading.Thread(target=worker.beat, name="heartbeat", daemon=True)
    heart.start()
    try:
        signal.signal(signal.SIGTERM, worker.on_signal)
        prepare_environment(worker.folder.config())
        return worker.do(work or (place_work if worker.away else work_of(worker.kind)))
    except UserError as error:  # run.yaml was damaged after it was queued
        return "failed", {"code": MISTAKE, "message": " ".join(str(error).split())}
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        worker.ended.set()
        heart.join()


def place_work(folder: RunFolder, should_stop: Callable[[], bool], _: Path | None) -> None:
    """The work of a run that is trained in another place: keep sight of it (launch/keeper.py)."""
    from trainer.launch import keeper, places

    where, known = folder.status()["where"], places.load(folder.path.parent.parent)
    keeper.keep(folder, open_place(where, known, folder), should_stop)


def open_place(where: str, known: Any, folder: RunFolder) -> Any:
    """The place of a run, by its name and what the task's definition says of it."""
    from trainer.launch import places

    kind = places.kind_of(where)
    if kind == "ssh":
        from trainer.launch.ssh import Ssh

        return Ssh(places.remote_of(where, known))
    if kind == "ray":
        from trainer.launch.ray_jobs import RayCluster

        return RayCluster(where.partition(":")[2], known.ray, folder.path.parents[3])
    from trainer.launch.slurm import Slurm

    return Slurm(known.slurm, folder.path.parents[3])


def work_of(kind: str) -> Work:
    """The function that does a kind of job. Imports what that needs, at the moment of use."""

    def train(folder: RunFolder, should_stop: Callable[[], bool], _: Path | None) -> None:
        from trainer import baseline, rehearse
        from trainer.train import train

        for kind in (rehearse, baseline):  # run folders of their own kind, each with its plan in it
            if (folder.path / kind.PLAN).is_file():
                kind.perform(folder, should_stop)
                return
        train(folder, should_stop)

    def evaluate(folder: RunFolder, should_stop: Callable[[], bool], _: Path | None) -> None:
        from trainer import generate
        from trainer.evaluate import evaluate

        with contextlib.suppress(generate.Stopped):
            evaluate(folder, "tuned", should_stop)
            if "base" not in folder.scores():
                evaluate(folder, "base", should_stop)

    def export(folder: RunFolder, *_: Any) -> None:
        from trainer.export import export

        export(folder, **folder.status("export")["args"])

    return {"train": train, "evaluate": evaluate, "export": export}[kind]


def prepare_environment(config: RunConfig) -> None:
    """Threads and device, which the numeric libraries read once, when they are imported."""
    if config.threads:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
            os.environ[name] = str(config.threads)
    if config.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def explain(error: Exception, folder: RunFolder) -> dict[str, Any]:
    """Status keys for an error that is nobody's typing mistake: out of memory, a full disk, a bug."""
    text = " ".join(str(error).split())[:300]
    if is_out_of_memory(error):
        config = folder.config()
        values = {
            name: getattr(config, name) for name in ("batch_size", "gradient_accumulation", "max_length")
        }
        return coded("oom", step=folder.status(folder.kind)["step"], **values)
    if _disk_is_full(error):
        return coded("disk_full", error=text)
    return coded("bug", error=f"{type(error).__name__}: {text}")


def _disk_is_full(error: BaseException) -> bool:
    """Also as torch and safetensors put it, whose errors are no OSError."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    phrases = (
        "no space left on device",
        "file too large",
        "disk quota exceeded",
        "pytorchstreamwriter failed",
    )
    return any(phrase in str(error).lower() for phrase in phrases)


def cap_log(path: Path, limit: int) -> None:
    """Keep a log under `limit` bytes: its first tenth and its last half stay.

    The file is rewritten in place, since the process holds it open for appending.
    """
    try:
        size = path.stat().st_size
        if size <= limit:
            return
        with path.open("r+b") as file:
            head = file.read(limit // 10)
            file.seek(size - limit // 2)
            tail = file.read()
            file.seek(0)
            dropped = size - len(head) - len(tail)
            file.write(head + f"\n... {dropped} bytes dropped ...\n".encode() + tail)
            file.truncate()
    except OSError as error:
        print(f"log.txt: {error}", file=sys.stderr)


def end_process() -> None:
    """End at once, with everything that this worker started."""
    sys.stderr.flush()
    if os.getsid(0) == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.worker", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--kind", choices=("train", "evaluate", "export"), default="train")
    parser.add_argument("--job", type=int, default=0)
    parser.add_argument("--attempt", type=int, default=0, help="0: the next one, with --alone")
    parser.add_argument("--alone", action="store_true", help="no queue: another place, or a cluster's own")
    args = parser.parse_args()
    if args.alone:
        attempt = args.attempt or next_attempt(RunFolder(args.run))
        return run(args.run, args.kind, 0, attempt, alone=True)
    return run(args.run, args.kind, args.job, args.attempt)


if __name__ == "__main__":
    sys.exit(main())
