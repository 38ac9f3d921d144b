"""The training loop on the nodes of a Ray cluster, by Ray Train's TorchTrainer; called by the worker in a Ray job.

When a node or process dies, Ray starts the group again, and the loop goes on from the newest whole checkpoint, which
lies with the run on storage that all nodes see.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.config import RunConfig, UserError
from trainer.launch import rank
from trainer.launch.processes import failure_path
from trainer.runs import RunFolder

work: Callable[[RunFolder, Path | None], None] = rank.work  # what each process does
AGAIN_IS_THE_SAME = ("oom", "disk_full")  # failures that a new start meets again


def train(folder: RunFolder, should_stop: Callable[[], bool], checkpoint: Path | None) -> None:
    """Run the loop in `world_size` processes of the cluster; returns when it ended or was stopped."""
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    config, gpu = folder.config(), _connect(folder.config())
    trainer = TorchTrainer(
        _loop,
        train_loop_config={"path": str(folder.path), "attempt": folder.attempt, "work": work},
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=config.world_size,
            use_gpu=gpu,
            placement_strategy="SPREAD" if config.machines > 1 else "PACK",
        ),
        run_config=RayRunConfig(
            name=f"attempt-{folder.attempt}",
            storage_path=str(folder.path / "ray"),
            failure_config=FailureConfig(max_failures=int(os.environ.get("TUNESMITH_RAY_FAILURES", "3"))),
        ),
    )
    try:
        trainer.fit()
    except Exception:
        if not failure_path(folder).is_file():  # there a process has said it better
            raise
    should_stop()  # the processes heard of it by the stop file; now this one has


def _connect(config: RunConfig) -> bool:
    """Join the cluster of this job; whether the run uses its GPUs. Raises UserError for more than it has."""
    import ray

    if not ray.is_initialized():
        ray.init(address="auto", log_to_driver=True, configure_logging=False)
    has = ray.cluster_resources()
    gpus = int(has.get("GPU", 0))
    if config.device == "cuda" and not gpus:
        raise UserError("device = 'cuda': the Ray cluster has no GPUs; set device to auto or cpu")
    gpu = config.device != "cpu" and gpus > 0
    kind, count = ("GPU", gpus) if gpu else ("CPU", int(has.get("CPU", 0)))
    if config.world_size > count:
        raise UserError(
            f"processes × machines = {config.world_size}: the Ray cluster has {count} {kind}s; set them lower"
        )
    return gpu


def _loop(given: dict[str, Any]) -> None:
    """What Ray Train calls in each process, at first and after each loss of one."""
    folder = RunFolder(Path(given["path"]), given["attempt"])
    os.chdir(folder.path.parents[1])  # relative paths in run.yaml start here
    if failure_path(folder).is_file():
        return
    try:
        given["work"](folder, next(reversed(folder.checkpoints()), None))
    except Exception as error:
        from trainer.worker import explain

        if isinstance(error, UserError) or explain(error, folder)["code"] in AGAIN_IS_THE_SAME:
            rank.fail(folder, rank.said_of(error, folder))
        raise


def evaluate(folder: RunFolder, which: str) -> None:
    """Score on a node, where the GPUs are; the driver may run on one without."""
    import ray

    options = {"num_gpus": 1} if _connect(folder.config()) else {"num_cpus": 1}
    ray.get(ray.remote(_score).options(**options).remote(str(folder.path), folder.attempt, which))


def _score(path: str, attempt: int, which: str) -> None:
    from trainer.evaluate import evaluate as score

    folder = RunFolder(Path(path), attempt)
    os.chdir(folder.path.parents[1])
    score(folder, which, lambda: folder.stop_asked() is not None)
