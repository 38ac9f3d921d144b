"""Memory and use of the device while a run trains; asked in a thread, so that no step waits for the driver."""

from __future__ import annotations

import os
import threading
from typing import Any

import psutil

from trainer.hardware import gpu_use

EVERY = 5.0  # seconds between questions to the driver


class Gauge:
    """`read()` gives what is known now: {"memory_gb"} on a CPU, with {"gpu_use"} (0 to 1) on a GPU."""

    def __init__(self, on_gpu: bool) -> None:
        self.on_gpu = on_gpu
        self.use: float | None = None
        self.ended = threading.Event()
        if on_gpu:
            threading.Thread(target=self._watch, daemon=True, name="gauge").start()

    def _watch(self) -> None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
        index = int(visible) if visible.isdecimal() else 0
        while True:
            found = gpu_use(index)
            if found is None:  # no nvidia-smi, or a card that does not say
                return
            self.use = round(found[0], 2)
            if self.ended.wait(EVERY):
                return

    def read(self) -> dict[str, Any]:
        if not self.on_gpu:
            return {"memory_gb": round(psutil.Process().memory_info().rss / 2**30, 3)}
        import torch

        found: dict[str, Any] = {"memory_gb": round(torch.cuda.max_memory_reserved() / 2**30, 3)}
        return found if self.use is None else {**found, "gpu_use": self.use}

    def stop(self) -> None:
        self.ended.set()
