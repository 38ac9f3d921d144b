"""A worker whose training is a loop that sleeps; all else is the real worker. Tests of the queue start it.

SLOW_STEP: seconds a step. SLOW_MODE: "deaf" never looks whether it should stop, "oom", "bug" and "mistake" raise.
"""

import os
import signal
import sys
import time
from pathlib import Path

from trainer import worker
from trainer.checkpoints import mark_complete
from trainer.config import UserError
from trainer.launch import local


def command(folder, kind, job, attempt):
    return [sys.executable, "-P", __file__, str(folder.path), kind, str(job), str(attempt)]


def work(folder, should_stop, resume_from):
    config, mode = folder.config(), os.environ.get("SLOW_MODE", "")
    if mode == "deaf":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        should_stop = lambda: False
    step = int(resume_from.name.split("-")[1]) if resume_from else 0
    folder.set_status(stage="train", step=step, total_steps=config.max_steps)
    trace(folder, "begin", step)
    while step < config.max_steps:
        time.sleep(float(os.environ.get("SLOW_STEP", "0.02")))
        step += 1
        folder.append_metric({"step": step, "loss": 1 / step})
        folder.set_status(step=step)
        if mode == "oom":
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        if mode == "bug":
            raise KeyError("no such key")
        if mode == "mistake":
            raise UserError("train.tsv:3: no label; give every row one")
        stop = should_stop()
        if step % config.save_steps == 0 or stop:
            save(folder, step)
        if stop:
            break
    trace(folder, "end", step)


def save(folder, step):
    checkpoint = folder.path / "checkpoints" / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "weights").write_text(str(step))
    mark_complete(checkpoint)


def trace(folder, what, step):
    with (folder.path.parents[3] / "trace").open("a") as file:
        file.write(f"{what} {folder.id} {step}\n")


if __name__ == "__main__":
    local.command = command
    path, kind, job, attempt = sys.argv[1:]
    sys.exit(worker.run(Path(path), kind, int(job), int(attempt), work))
