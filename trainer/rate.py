"""What this machine computes a second: two seconds of matrix products, once for each device and torch version.

`tunesmith probe` measures at once, the worker before its first training; advice and estimate only read what is kept in
HOME/rates.json. torch is imported by `measure` alone; python -m trainer.rate HOME is the child that calls it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from trainer.atomic import read_object, write_atomic
from trainer.config import UserError
from trainer.hardware import Hardware

FILE = "rates.json"
SECONDS = 2.0
SIZE = {"cuda": 8192, "cpu": 1024}  # of the square matrices: as wide as a model's layers
LIMIT = 180.0  # seconds for the child, most of it the import of torch


def key_of(hardware: Hardware) -> str:
    """Device and torch version: another one is measured anew."""
    device = hardware.gpus[0].name if hardware.gpus else f"cpu x{hardware.cpu_cores}"
    try:
        return f"{device} | torch {version('torch')}"
    except PackageNotFoundError:
        return device


def known(home: Path, hardware: Hardware) -> float | None:
    """FLOP a second that were measured for this device, bf16 on a GPU and fp32 on a CPU; None before that."""
    row = read_object(home / FILE).get(key_of(hardware))
    return float(row["flops"]) if isinstance(row, dict) and row.get("flops") else None


def measure(home: Path, hardware: Hardware) -> float:
    """Measure in this process and keep the result. Imports torch."""
    import torch

    on_gpu = bool(hardware.gpus) and torch.cuda.is_available()
    size = SIZE["cuda" if on_gpu else "cpu"]
    where = (
        {"device": "cuda", "dtype": torch.bfloat16} if on_gpu else {"device": "cpu", "dtype": torch.float32}
    )
    left, right = torch.randn(size, size, **where), torch.randn(size, size, **where)
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    best, end = 0.0, time.monotonic() + SECONDS
    left @ right  # the first product loads the kernels
    wait()
    while time.monotonic() < end:
        start = time.perf_counter()
        for _ in range(4):
            left @ right
        wait()
        best = max(best, 4 * 2 * size**3 / (time.perf_counter() - start))
    kept = read_object(home / FILE) | {
        key_of(hardware): {"flops": best, "seconds": SECONDS, "at": round(time.time())}
    }
    write_atomic(home / FILE, json.dumps(kept, indent=1))
    return best


def measure_apart(home: Path) -> dict[str, Any]:
    """{"device", "flops"} measured by a child process. Raises UserError where torch cannot compute here."""
    command = [sys.executable, "-m", "trainer.rate", str(home)]
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=root)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"the probe took more than {LIMIT:.0f} s; is the device busy? try again later"
        ) from None
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no output"])[-1][:200]
        raise UserError(f"the device cannot be measured: {why}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    from trainer.hardware import probe

    machine = probe()
    print(json.dumps({"device": key_of(machine), "flops": measure(Path(sys.argv[1]), machine)}))
