"""A run on a SLURM cluster: an sbatch script that calls the worker, submitted here or by the user.

`--where slurm` submits it from the login node and keeps sight of the job; `--slurm-file OUT` only writes the script,
for a run folder that the compute nodes see. Several machines: the worker starts its processes through srun.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from trainer.config import RunConfig, UserError
from trainer.launch import places
from trainer.launch.host import Failed, Host
from trainer.launch.keeper import home_mark
from trainer.runs import RunFolder

WARNING = 300  # seconds before the time limit at which the worker is told, to write its checkpoint
GONE = ("CANCELLED", "COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "BOOT_FAIL")


def script(path: Path, config: RunConfig, wanted: places.Slurm, attempt: int = 0) -> str:
    """The sbatch script of a run folder. `attempt` 0: the worker takes the next one when it starts.

    SLURM signals the worker before the time limit, and it leaves a checkpoint (sbatch(1), --signal).
    """
    gpus = 0 if config.device == "cpu" else wanted.gpus or config.processes
    head = {
        "job-name": f"tunesmith-{path.parent.parent.name}-{path.name}",
        "nodes": config.machines,
        "ntasks-per-node": 1,
        "output": path / "log.txt",
        "open-mode": "append",
        "signal": f"B:TERM@{WARNING}",
        **({"gpus-per-node": gpus} if gpus else {}),
        **({"partition": wanted.partition} if wanted.partition else {}),
        **({"time": wanted.time} if wanted.time else {}),
    }
    lines = ["#!/bin/bash", *(f"#SBATCH --{name}={value}" for name, value in head.items())]
    lines += [f"#SBATCH {line}" for line in wanted.lines]
    worker = [sys.executable, "-P", "-u", "-m", "trainer.worker", str(path), "--alone"]
    worker += ["--attempt", str(attempt)] if attempt else []
    source = str(Path(__file__).resolve().parents[2])
    lines += [
        "",
        *wanted.setup,
        f"export PYTHONPATH={shlex.quote(source)}",
        *(["export TUNESMITH_LAUNCHER=srun"] if config.machines > 1 else []),
        f"cd {shlex.quote(str(path.parent.parent))}  # relative paths in run.yaml start here",
        # The shell gets the signal and hands it on; `exec` would lose the batch step's own exit.
        f"{shlex.join(worker)} &",
        "worker=$!",
        "trap 'kill -TERM $worker' TERM",
        "while kill -0 $worker 2>/dev/null; do wait $worker; ended=$?; done",
        "exit ${ended:-1}",
    ]
    return "\n".join(lines) + "\n"


class Slurm:
    """The place `slurm`: this machine is a login node, and `storage` is seen by the compute nodes."""

    def __init__(self, wanted: places.Slurm, home: Path) -> None:
        self.wanted, self.host = wanted, Host()
        self.storage = Path(wanted.storage).expanduser() if wanted.storage else home / "places" / "slurm"

    def prepare(self, folder: RunFolder) -> Path:
        if shutil.which("sbatch") is None:
            raise UserError(
                "--where slurm: no sbatch on this machine; run tunesmith on the login node, or write the script with --slurm-file"
            )
        self.config = folder.config()
        return self.storage / home_mark(folder)

    def start(self, there: Path, attempt: int) -> str:
        """Submit the script; the job's number."""
        path = there / "slurm.sbatch"
        path.write_text(script(there, self.config, self.wanted, attempt), encoding="utf-8")
        try:
            return self.host.run(["sbatch", "--parsable", str(path)]).strip().split(";")[0]
        except Failed as error:
            raise UserError(
                f"sbatch refused the job: {error.text}; mend slurm: in task_definition.yaml"
            ) from None

    def lives(self, handle: str, status: dict[str, Any]) -> bool:
        """Whether SLURM still has the job: waiting, running or ending."""
        try:
            said = self.host.run(["squeue", "--noheader", "--jobs", handle, "--format=%T"]).strip()
        except Failed:  # "Invalid job id": it ended some minutes ago
            return False
        return bool(said) and said not in GONE

    def kill(self, handle: str, status: dict[str, Any]) -> None:
        subprocess.run(["scancel", handle], check=False, stdin=subprocess.DEVNULL)

    def log(self, handle: str) -> str:
        return f"SLURM ended job {handle} before the worker began; see sacct -j {handle}"
