"""Data files that tests write and read."""

import json
from pathlib import Path


def write(path: Path, content) -> Path:
    """A file of raw bytes, of text, or of rows as JSON lines, with its folder."""
    if not isinstance(content, str | bytes):
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines_of(path: Path) -> list:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
