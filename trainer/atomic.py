"""A file or folder that readers see whole or not at all; every room of the trainer writes through here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def write_atomic(path: Path, text: str, sync: bool = True) -> None:
    """Write a text file through a temporary one in the same folder and rename it into place.

    `sync=False` skips the flush to disk, for what is rewritten every second: a reader still sees a whole
    file, only a power cut may lose the last one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object of a file, {} where there is none: not written yet, damaged, or something else."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


@contextlib.contextmanager
def assembled(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` that takes its place when the block ends well; gone when it does not."""
    building = path.with_name(f".{path.name}.part")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        yield building
        shutil.rmtree(path, ignore_errors=True)
        os.replace(building, path)
    finally:
        shutil.rmtree(building, ignore_errors=True)
