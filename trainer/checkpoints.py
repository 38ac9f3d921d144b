"""Checkpoints of a run: marked when whole, hashed before one is used, the oldest removed after the newest is marked.

A Trainer's checkpoint is not atomic: resuming from a torn one may crash or go on from noise. Importing this costs
no torch.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import xxhash

from trainer.config import write_atomic

CHECKPOINT = re.compile(r"checkpoint-(\d+)")
COMPLETE = "complete.json"  # the mark that a checkpoint was written to its end
BLOCK = 1 << 22  # bytes read at once


def mark_complete(checkpoint: Path) -> None:
    """Mark a checkpoint as written to its end, with size and hash of every file. Call after the last one is there."""
    files = {}
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and path.name != COMPLETE:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            name = str(path.relative_to(checkpoint))
            files[name] = {"size": path.stat().st_size, "xxh3": digest(path)}
    write_atomic(checkpoint / COMPLETE, json.dumps({"files": files}))


def digest(path: Path) -> str:
    """XXH3 of a file, 128 bits: against torn and rotten files, not against an enemy; some 10 GB a second."""
    state = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            state.update(block)
    return state.hexdigest()


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint carries its mark and every file in it has the size it had then. Cheap."""
    try:
        files = json.loads((checkpoint / COMPLETE).read_bytes())["files"]
        return bool(files) and all(
            (checkpoint / name).stat().st_size == told["size"] for name, told in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def is_sound(checkpoint: Path) -> bool:
    """Whether every file of a checkpoint still has the hash that its mark tells. Reads them all."""
    if not is_complete(checkpoint):
        return False
    try:
        files = json.loads((checkpoint / COMPLETE).read_bytes())["files"]
        return all(digest(checkpoint / name) == told["xxh3"] for name, told in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def complete(folder: Path) -> list[Path]:
    """Complete checkpoints in a folder, the oldest first."""
    found = [(step_of(path), path) for path in folder.glob("checkpoint-*") if is_complete(path)]
    return [path for step, path in sorted(found) if step]


def step_of(checkpoint: Path) -> int:
    """The optimizer step of a checkpoint, 0 for another folder."""
    match = CHECKPOINT.fullmatch(checkpoint.name)
    return int(match[1]) if match else 0


def newest_sound(folder: Path) -> Path | None:
    """The checkpoint to go on from: the newest whose hashes hold. A damaged one is set aside and said so."""
    for path in reversed(complete(folder)):
        if is_sound(path):
            return path
        print(f"{path.name}: its files are not what was written; passed over", flush=True)
        (path / COMPLETE).unlink(missing_ok=True)
    return None


def remove_torn(folder: Path) -> None:
    """Remove checkpoints without a mark: what a kill or a full disk left takes room and helps nobody."""
    for path in folder.glob("checkpoint-*"):
        if step_of(path) and not is_complete(path):
            shutil.rmtree(path, ignore_errors=True)


def rotate(folder: Path, keep: int, best: str | None) -> None:
    """Leave the newest `keep` complete checkpoints, and the best one. Call when the newest carries its mark.

    The Trainer's own rotation would delete the last one before the new one is marked.
    """
    for path in complete(folder)[:-keep]:
        if best is None or path.name != Path(best).name:
            shutil.rmtree(path, ignore_errors=True)
