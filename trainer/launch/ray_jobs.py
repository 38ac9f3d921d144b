"""A run on a Ray cluster: Ray Jobs starts the worker on it, tells its state and log, and ends it.

The worker is the job's driver: it prepares the data and lets Ray Train run the training loop on the nodes
(launch/ray_train.py). Everything lies on `storage`, which this machine and all nodes see under one path.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from trainer.config import UserError
from trainer.launch import places
from trainer.launch.host import Host
from trainer.launch.keeper import home_mark
from trainer.launch.ssh import send_source
from trainer.runs import RunFolder


class RayCluster:
    """The place `ray:ADDRESS`; ADDRESS is that of the dashboard, such as 10.0.0.5:8265."""

    def __init__(self, address: str, wanted: places.Ray, home: Path) -> None:
        self.address = address if "://" in address else f"http://{address}"
        self.wanted, self.host = wanted, Host()
        self.storage = Path(wanted.storage).expanduser() if wanted.storage else home / "places" / "ray"

    def client(self) -> Any:
        """The cluster's job server. Raises UserError with the way out."""
        try:
            from ray.job_submission import JobSubmissionClient
        except ImportError:
            raise UserError("--where ray: Ray is not installed; run: pip install 'tunesmith[ray]'") from None
        try:
            return JobSubmissionClient(self.address)
        except Exception as error:  # requests' and Ray's own errors of many kinds
            text = " ".join(str(error).split())[:160]
            raise UserError(
                f"ray:{self.address}: no Ray dashboard answers there ({text}); the port is usually 8265"
            ) from None

    def prepare(self, folder: RunFolder) -> Path:
        self.client()
        self.storage.mkdir(parents=True, exist_ok=True)
        self.source = send_source(self.host, self.storage)
        return self.storage / home_mark(folder)

    def start(self, there: Path, attempt: int) -> str:
        """Submit the job; its id."""
        python = self.wanted.python or sys.executable
        worker = [
            python,
            "-P",
            "-u",
            "-m",
            "trainer.worker",
            str(there),
            "--alone",
            "--attempt",
            str(attempt),
        ]
        # Ray hands the entrypoint to a shell.
        entrypoint = f"cd {shlex.quote(str(there.parents[1]))} && exec {shlex.join(worker)}"
        settings = {
            "PYTHONPATH": str(self.source),
            "TUNESMITH_LAUNCHER": "ray",
            "TUNESMITH_RAY_FAILURES": str(self.wanted.failures),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "RAY_TRAIN_V2_ENABLED": "1",
        }
        log = shlex.quote(str(there / "log.txt"))
        return self.client().submit_job(
            entrypoint=f"{entrypoint} >>{log} 2>&1",
            runtime_env={"env_vars": settings},
            metadata={"run": f"{there.parents[1].name}/{there.name}"},
        )

    def lives(self, handle: str, status: dict[str, Any]) -> bool:
        return not self.client().get_job_status(handle).is_terminal()

    def kill(self, handle: str, status: dict[str, Any]) -> None:
        self.client().stop_job(handle)

    def log(self, handle: str) -> str:
        found = self.client().get_job_info(handle)
        return f"{self.client().get_job_logs(handle)}\n{found.message or ''}"
