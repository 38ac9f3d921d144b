"""Trackers beside the run's own curve: trackio, TensorBoard, Weights & Biases. Nothing leaves this machine by itself.

The Trainer's own callbacks write to them; here is where they write, under which names, and what is missing. Called
before a trainer is built.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from trainer.config import RunConfig, UserError
from trainer.runs import RunFolder

PACKAGES = {"trackio": "trackio", "wandb": "wandb", "tensorboard": "tensorboard"}
START_SECONDS = 40.0  # for the dashboard to answer


def check(config: RunConfig) -> None:
    """Raise UserError where a tracker that the run names is not installed."""
    for name in config.report_to:
        if find_spec(PACKAGES[name]) is None:
            raise UserError(
                f"report_to = {name!r}: it is not installed; run `pip install 'tunesmith[{name}]'`, or leave it out"
            )


def prepare(folder: RunFolder, config: RunConfig) -> None:
    """Say where the trackers write. wandb stays offline unless WANDB_MODE says otherwise: `wandb sync` sends it."""
    if "trackio" in config.report_to:  # read once, when trackio is imported
        os.environ.setdefault("TRACKIO_DIR", str(folder.path.parents[3] / "trackio"))
    if "tensorboard" in config.report_to:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder.path / "tensorboard")
    if "wandb" in config.report_to:
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ["WANDB_DIR"] = str(folder.path)
        os.environ["WANDB_PROJECT"] = folder.task


class Dashboard:
    """trackio's dashboard of a home, a process of its own on loopback; started when it is asked for."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen | None = None
        self.port = 0

    def open(self) -> str:
        """Its address; starts it first. Raises UserError where trackio is missing or does not answer."""
        if find_spec("trackio") is None:
            raise UserError("trackio is not installed; run `pip install 'tunesmith[trackio]'`")
        if self.process is None or self.process.poll() is not None:
            self._start()
        return f"http://127.0.0.1:{self.port}/"

    def _start(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        code = (
            "import sys, trackio; "
            "trackio.show(host='127.0.0.1', server_port=int(sys.argv[1]), open_browser=False, share=False, block_thread=True)"
        )
        (self.home / "trackio").mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(self.port)],
            env={**os.environ, "TRACKIO_DIR": str(self.home / "trackio"), "HF_HUB_OFFLINE": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)
        self.close()
        raise UserError("the trackio dashboard did not start; try `trackio show` in a terminal")

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
