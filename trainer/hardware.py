"""What this machine has: GPUs, cores, memory, disk. Asked before a run is planned, and kept in its lineage.

No torch: GPUs are read from `nvidia-smi`, so the question costs milliseconds. Try `python -m trainer.hardware`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from kb.facts import Gpu, table

GIB = 2**30
QUERY = "name,memory.total,memory.free,compute_cap"
BF16_CAPABILITY = 8.0  # Ampere; NVIDIA: CUDA GPU compute capability, https://developer.nvidia.com/cuda-gpus


@dataclass(frozen=True)
class GpuInfo:
    """One GPU; memory in GiB, as the driver sees it."""

    name: str
    memory_gb: float
    free_gb: float
    bf16: bool


@dataclass(frozen=True)
class Hardware:
    """One machine; memory and disk in GiB. `gpus` is empty where no NVIDIA driver answers."""

    gpus: list[GpuInfo] = field(default_factory=list)
    cpu_cores: int = 1
    ram_gb: float = 0.0
    disk_free_gb: float = 0.0


def probe(disk: Path | None = None) -> Hardware:
    """This machine's hardware; `disk` is the folder whose free space counts (default: the user's home)."""
    return Hardware(
        gpus=parse_nvidia_smi(_nvidia_smi()),
        cpu_cores=psutil.cpu_count(logical=True) or 1,
        ram_gb=round(psutil.virtual_memory().total / GIB, 1),
        disk_free_gb=round(shutil.disk_usage(disk or Path.home()).free / GIB, 1),
    )


def parse_nvidia_smi(text: str) -> list[GpuInfo]:
    """GPUs from the CSV that `nvidia-smi --query-gpu=QUERY` prints, memory in MiB. Odd lines are left out."""
    gpus = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        try:
            name, total, free, capability = parts[0], *map(float, parts[1:4])
        except ValueError:  # "[N/A]" of a card in MIG mode, or a driver's message
            continue
        gpus.append(
            GpuInfo(name, round(total / 1024, 1), round(free / 1024, 1), capability >= BF16_CAPABILITY)
        )
    return gpus


def gpu_row(name: str, memory_gb: float | None = None) -> Gpu | None:
    """The row of gpus.yaml for a card as people and drivers write it ("4090", "NVIDIA A100-SXM4-80GB").

    Where a model was sold in several sizes the name's own size decides, then `memory_gb`, then the table's first.
    """
    words = _words(name)
    rows = [row for row in table("gpus") if _model(row) in words]
    if not rows:
        return None
    size = next((float(word[:-2]) for word in words if re.fullmatch(r"\d+gb", word)), memory_gb)
    named = [row for row in rows if row.id.split("-")[-1] in words] or rows
    return min(named, key=lambda row: abs(row.memory_gb - size)) if size else named[0]


def _model(row: Gpu) -> str:
    """What tells a card from others: "rtx-4060-ti-16gb" → "4060ti", "a100-80gb" → "a100"."""
    parts = [
        part for part in row.id.split("-") if part not in ("rtx", "pcie", "sxm") and not part.endswith("gb")
    ]
    return "".join(parts)


def _words(name: str) -> set[str]:
    text = re.sub(r"(?:nvidia|geforce|tesla|rtx|gtx|quadro)", " ", name.lower())
    text = text.replace("dgx spark", "gb10")
    text = re.sub(r"(\d)\s*(ti|super|ada)\b(?:\s*(super)\b)?", r"\1\2\3", text)
    text = re.sub(r"\bpro\s+(\d)", r"pro\1", text)
    text = re.sub(r"(\d)\s+gb?\b", r"\1gb", text)
    words = set(re.findall(r"[a-z0-9]+", text))
    if "hbm3" in words or any(word.startswith("sxm") for word in words):
        words.add("sxm")  # "A100-SXM4-80GB"; an H100 with HBM3 is the SXM one, the PCIe card says so
    return words


def gpu_use(index: int = 0) -> tuple[float, float] | None:
    """(share of the last moment in which a GPU computed, GiB in use on it by everybody); None where nobody says."""
    lines = _nvidia_smi("utilization.gpu,memory.used").splitlines()
    try:
        use, used = (float(part) for part in lines[index].split(","))
    except (IndexError, ValueError):
        return None
    return use / 100, used / 1024


def _nvidia_smi(query: str = QUERY) -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    command = [program, f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    try:
        # A hung driver must not hang the page; a machine whose driver fails trains on the CPU.
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


if __name__ == "__main__":
    print(probe())
