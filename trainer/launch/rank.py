"""One of the processes that train a run together: python -m trainer.launch.rank RUN --attempt 2 [--resume CHECKPOINT]

launch/processes.py starts it through a launcher that sets RANK, WORLD_SIZE and where the first one listens. Data
and base model lie ready in the run folder; each process reads them, and the first alone writes.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from trainer.config import UserError, write_atomic
from trainer.launch.processes import failure_path
from trainer.messages import MISTAKE
from trainer.runs import RunFolder, Superseded

PR_SET_PDEATHSIG = 1  # prctl(2)


def work(folder: RunFolder, checkpoint: Path | None) -> None:
    """The training loop's part of this process. Raises what the loop raises."""
    from trainer import base, train
    from trainer.data.stage import thaw

    config = folder.config()
    staged = thaw(folder.path / "data")
    assert staged is not None
    train.prepare_process(config)
    device = base.device_of(config)
    if device == "cuda":
        import torch

        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    base_path, tokenizer = train.prepare(folder, config, staged)
    stop = together(lambda: folder.stop_asked() is not None)
    train.run_loop(folder, config, base_path, tokenizer, staged, device, stop, checkpoint)


def together(asked: Callable[[], bool]) -> Callable[[], bool]:
    """A `should_stop` that all processes call after the same step and that tells all the same.

    One that stopped a step before the others would leave them waiting for its gradients for ever. The first
    process looks; the others hear it over gloo, which costs no wait for the GPU.
    """
    heard: dict[str, object] = {}

    def should_stop() -> bool:
        import torch
        from torch import distributed

        if "group" not in heard:
            heard["group"] = distributed.new_group(backend="gloo")
        if not heard.get("stop"):
            flag = torch.tensor([int(distributed.get_rank() == 0 and asked())])
            distributed.broadcast(flag, 0, group=heard["group"])
            heard["stop"] = bool(flag.item())
        return bool(heard["stop"])

    return should_stop


def run(folder: RunFolder, checkpoint: Path | None) -> int:
    """Do the work; what goes wrong is left in the run folder for the worker to tell. Returns the exit status."""
    try:
        work(folder, checkpoint)
    except Superseded as error:
        print(f"process {os.environ.get('RANK')} ends: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exc()
        return fail(folder, said_of(error, folder))
    return 0


def said_of(error: Exception, folder: RunFolder) -> dict:
    """Status keys for what went wrong in a process."""
    from trainer.worker import explain

    if isinstance(error, UserError):
        return {"code": MISTAKE, "values": {}, "message": " ".join(str(error).split())}
    return explain(error, folder)


def fail(folder: RunFolder, said: dict) -> int:
    """Leave them for the worker. Returns the exit status."""
    # The first failure is the cause: when one process goes, the others lose their connection to it.
    if not failure_path(folder).exists():
        write_atomic(failure_path(folder), json.dumps(said, ensure_ascii=False))
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.launch.rank", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--resume", type=Path)
    args = parser.parse_args()
    # The launcher starts its processes in sessions of their own: a signal to the worker's group misses them.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return run(RunFolder(args.run, args.attempt), args.resume)


if __name__ == "__main__":
    sys.exit(main())
