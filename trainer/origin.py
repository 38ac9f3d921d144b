"""What a run's result depends on, for lineage.yaml: versions, the state of the code, the machine, and the result itself.

Two runs of the same values that differ here may differ in their weights; `repeat` sets the two side by side.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from trainer.runs import RunFolder

PACKAGES = (
    "tunesmith", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "tokenizers", "bitsandbytes",
    "safetensors", "numpy",
)  # fmt: skip
CODE = Path(__file__).resolve().parents[1]
GIT_SECONDS = 5.0


def versions() -> dict[str, str]:
    """Python and the packages that compute, as they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def code_state(folder: Path = CODE) -> dict[str, Any] | None:
    """{"commit", "changed"} of the checkout that this code runs from; None where it was installed as a package."""
    if shutil.which("git") is None or not (folder / ".git").exists():
        return None
    commit, status = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "-uno")
    return None if commit is None else {"commit": commit, "changed": bool(status)}


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def hardware(device: str) -> dict[str, Any]:
    """The machine as far as it may change a number: processor, threads, card and its driver."""
    import torch

    found: dict[str, Any] = {
        "device": device,
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "ram_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "threads": torch.get_num_threads(),
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name(0)
        found["memory_gb"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
        found["cuda"] = torch.version.cuda
        driver = Path("/proc/driver/nvidia/version")
        if driver.is_file():
            found["driver"] = driver.read_text().splitlines()[0][:120]
    return found


def _processor() -> str:
    try:
        rows = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (row.partition(":")[2].strip() for row in rows if row.startswith("model name"))
    return next(names, platform.processor())


def note_result(folder: RunFolder, weights: Path) -> None:
    """Keep the last losses of the curve and the hash of the weights, once they are there."""
    if "result" in folder.lineage():
        return
    losses = {}
    for row in folder.metrics():
        losses |= {name: row[name] for name in ("loss", "eval_loss") if name in row}
    folder.add_lineage(result={**losses, "weights_sha256": weights_hash(weights)})


def weights_hash(folder: Path) -> str:
    """SHA-256 over the safetensors of a model or adapter, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
