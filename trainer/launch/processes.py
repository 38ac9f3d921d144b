"""Several processes that train one run together: `accelerate launch` on GPUs, `torchrun` on the CPU.

The worker prepares the data, starts the processes for the training loop alone (launch/rank.py), and evaluates
afterwards itself. DDP, FSDP2 and DeepSpeed ZeRO differ only in accelerate.yaml, which is written into the run.
`accelerate launch --cpu` starts one process and says nothing (accelerate 1.15), hence torchrun there.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from trainer.config import RunConfig, UserError, write_atomic
from trainer.runs import Ended, RunFolder

POLL_SECONDS = 0.2
PORT = 29511  # where the processes of several machines find each other; the first machine listens
LAUNCHER = "TUNESMITH_LAUNCHER"  # "srun" where SLURM has given several machines, "ray" in a Ray job


def train(folder: RunFolder, should_stop: Callable[[], bool], checkpoint: Path | None) -> bool:
    """Run the training loop in `world_size` processes; False when it was stopped before the end.

    Raises UserError where this machine has not what is asked for, Ended with what a process said when it failed.
    """
    config = folder.config()
    failure_path(folder).unlink(missing_ok=True)
    if on_ray():
        from trainer.launch import ray_train

        ray_train.train(folder, should_stop, checkpoint)
    else:
        _launch(folder, config, should_stop, checkpoint)
    if failure_path(folder).is_file():
        said = json.loads(failure_path(folder).read_bytes())
        raise Ended("oom" if said["code"] == "oom" else "failed", said)
    return any((folder.path / name).is_dir() for name in ("adapter", "model"))


def on_ray() -> bool:
    """Whether this worker is the driver of a Ray job."""
    return os.environ.get(LAUNCHER) == "ray"


def score(folder: RunFolder, which: str) -> None:
    """Score the run's weights on a node of the Ray cluster."""
    from trainer.launch import ray_train

    ray_train.evaluate(folder, which)


def _launch(
    folder: RunFolder, config: RunConfig, should_stop: Callable[[], bool], checkpoint: Path | None
) -> None:
    from trainer import base

    device = base.device_of(config)
    check(config, device)
    group = subprocess.Popen(
        command(folder, config, device, checkpoint), env=environment(config), stdin=subprocess.DEVNULL
    )
    try:
        while group.poll() is None:
            if should_stop():  # the first process looks for this file, and all stop at the same step
                folder.ask_stop()
            time.sleep(POLL_SECONDS)
    except BaseException:
        group.terminate()  # the launcher ends its processes
        with contextlib.suppress(subprocess.TimeoutExpired):
            group.wait(timeout=10)
        group.kill()
        raise
    if group.returncode and not failure_path(folder).is_file():
        raise RuntimeError(f"a training process was killed (the launcher's exit status: {group.returncode})")


def check(config: RunConfig, device: str) -> None:
    """Raise UserError where the machine cannot start what is asked for."""
    if config.machines > 1 and os.environ.get(LAUNCHER) != "srun":
        raise UserError(
            f"machines = {config.machines}: this run was started on one; give --where slurm or ray:ADDRESS"
        )
    if device == "cpu":
        if config.parallel != "ddp":
            raise UserError(f"parallel = {config.parallel!r} needs GPUs; set parallel to ddp on a CPU")
        return
    import torch

    if config.processes > torch.cuda.device_count():
        raise UserError(
            f"processes = {config.processes}: this machine shows {torch.cuda.device_count()} GPUs; "
            "set processes to that number, and gradient_accumulation so that the batch stays"
        )
    if config.parallel.startswith("zero"):
        from importlib.util import find_spec

        if find_spec("deepspeed") is None:
            raise UserError(
                f"parallel = {config.parallel!r} needs DeepSpeed: pip install deepspeed; or set parallel to fsdp2"
            )


def command(folder: RunFolder, config: RunConfig, device: str, checkpoint: Path | None) -> list[str]:
    """The launcher's command line. `python -m` and not the scripts: they need no PATH."""
    rank = ["-m", "trainer.launch.rank", str(folder.path), "--attempt", str(folder.attempt or 0)]
    rank += ["--resume", str(checkpoint)] if checkpoint else []
    python = [sys.executable, "-P"]
    across: Sequence[str] = ()
    if config.machines > 1:
        python = ["srun", f"--ntasks={config.machines}", "--ntasks-per-node=1", *python]
        across = ["--rdzv-backend=c10d", f"--rdzv-endpoint={socket.gethostname()}:{PORT}"]
        across = [*across, f"--rdzv-id={folder.task}-{folder.version}-{folder.attempt}"]
    if device == "cuda":
        path = folder.path / "accelerate.yaml"
        from trainer import base

        settings = accelerate_settings(config, base.uses_bf16(config, device))
        write_atomic(path, yaml.safe_dump(settings, sort_keys=False))
        return [*python, "-m", "accelerate.commands.launch", "--config_file", str(path), *rank]
    across = across or ["--standalone"]
    torchrun = [f"--nnodes={config.machines}", f"--nproc-per-node={config.processes}", *across]
    return [*python, "-m", "torch.distributed.run", *torchrun, *rank]


def environment(config: RunConfig) -> dict[str, str]:
    """The processes' environment: modules are not looked for in the task's folder, cores are shared out."""
    cores = max(1, (os.cpu_count() or 1) // config.processes)
    return {"OMP_NUM_THREADS": str(cores), **os.environ, "PYTHONSAFEPATH": "1"}


def accelerate_settings(config: RunConfig, bf16: bool) -> dict[str, Any]:
    """What `accelerate launch --config_file` reads, after the presets that TRL 1.16 ships (accelerate_configs/)."""
    settings: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU",
        "mixed_precision": "bf16" if bf16 else "no",
        "num_machines": config.machines,
        "num_processes": config.world_size,
        "machine_rank": 0,
        "main_process_port": 0,  # a free one
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": False,
    }
    if config.machines > 1:  # with c10d each machine gets its rank when it arrives
        settings |= {
            "rdzv_backend": "c10d",
            "main_process_ip": socket.gethostname(),
            "main_process_port": PORT,
        }
    if config.parallel == "fsdp2":
        settings |= {"distributed_type": "FSDP", "fsdp_config": _fsdp(config)}
    elif config.parallel != "ddp":
        settings |= {"distributed_type": "DEEPSPEED", "deepspeed_config": _deepspeed(config)}
    return settings


def _fsdp(config: RunConfig) -> dict[str, Any]:
    return {
        "fsdp_version": 2,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "fsdp_reshard_after_forward": True,
        "fsdp_offload_params": config.offload,
        "fsdp_cpu_ram_efficient_loading": False,  # each process loads the model itself (trainer/base.py)
        "fsdp_state_dict_type": "FULL_STATE_DICT",
        "fsdp_activation_checkpointing": False,  # the trainer's own setting does it
    }


def _deepspeed(config: RunConfig) -> dict[str, Any]:
    stage = int(config.parallel.removeprefix("zero"))
    where = "cpu" if config.offload else "none"
    settings = {
        "deepspeed_multinode_launcher": "standard",
        "offload_optimizer_device": where,
        "offload_param_device": where if stage == 3 else "none",
        "zero3_init_flag": False,
        "zero_stage": stage,
    }
    return settings | ({"zero3_save_16bit_model": True} if stage == 3 else {})


def failure_path(folder: RunFolder) -> Path:
    """Where a process that fails leaves its status keys for the worker."""
    return folder.path / ".failure.json"
