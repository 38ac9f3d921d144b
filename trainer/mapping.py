"""A YAML file of `field: value` lines, read with its faults told by file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from kb.errors import UserError


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a file. Raises UserError for a missing file, broken YAML (with its line) or another shape."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; `tunesmith runs` lists the runs, `tunesmith new` makes a task"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise UserError(f"{path}:{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}:1: expected `field: value` lines, found {type(values).__name__}")
    return values
