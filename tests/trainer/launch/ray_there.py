"""Stands for `python` of a Ray cluster's driver: the processes add up ranks over gloo instead of training a model.

All else is real: job, driver, Ray Train's group, run folder, checkpoints, restart.
"""

import os
import sys
import time
from pathlib import Path


def work(folder, checkpoint):
    import torch
    from torch import distributed

    from trainer.checkpoints import mark_complete
    from trainer.launch.rank import together

    step = int(checkpoint.name.split("-")[1]) if checkpoint else 0
    first = distributed.get_rank() == 0
    with (folder.path / "starts").open("a") as file:
        file.write(f"{step} {distributed.get_world_size()} {os.environ['RANK']}\n")
    stop = together(lambda: folder.stop_asked() is not None)
    while step < folder.config().max_steps and not stop():
        time.sleep(0.05)
        step += 1
        total = torch.tensor([1.0])
        distributed.all_reduce(total)
        if first:
            folder.append_metric({"step": step, "loss": float(total)})
            folder.set_status(step=step, total_steps=folder.config().max_steps)
        if first and step % folder.config().save_steps == 0:
            saved = folder.path / "checkpoints" / f"checkpoint-{step}"
            saved.mkdir(parents=True, exist_ok=True)
            (saved / "weights").write_text(str(step))
            mark_complete(saved)
    if first and step >= folder.config().max_steps:
        (folder.path / "model").mkdir(exist_ok=True)


if __name__ == "__main__":
    from trainer import worker
    from trainer.launch import processes

    def train(folder, should_stop, resume_from):
        from trainer.launch import ray_train

        ray_train.work = work
        folder.set_status(stage="train")
        processes.train(folder, should_stop, resume_from)

    worker.work_of = lambda kind: train
    sys.argv = sys.argv[sys.argv.index("trainer.worker") :]
    assert Path(sys.argv[1]).is_dir()
    sys.exit(worker.main())
