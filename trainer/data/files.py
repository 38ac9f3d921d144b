"""Files in, files out: what `tunesmith data repair|dedupe|redact|convert|split|preview` do. Torch-free.

Each returns a report in lines; history.py keeps the record beside the output.
"""

from __future__ import annotations

from pathlib import Path

from trainer.data.convert import Row
from trainer.data.findings import faults, finding
from trainer.data.history import RECORD, Step, run
from trainer.data.steps import first_rows, format_of

TEXTS_MENDED = "{n} texts were mended (encoding, NUL, template marks)"


def repair_file(path: Path, out: Path, labels: bool = False) -> str:
    """Write the file without its broken lines and useless rows, its encoding mended; `labels` unifies spellings."""
    return _report(run("repair", path, out, {"labels": labels}), out)


def dedupe_file(
    path: Path, out: Path, near: bool = False, inputs: bool = False, against: Path | None = None
) -> str:
    """Write the file without repeats (exact, nearly so, of the same question, or of a test file)."""
    options = {"near": near, "inputs": inputs, "against": str(against) if against else ""}
    return _report(run("dedupe", path, out, options), out)


def redact_file(path: Path, out: Path) -> str:
    """Write the file with personal data and keys replaced by their names."""
    return _report(run("redact", path, out, {}), out)


def convert_file(path: Path, out: Path, script: str = "") -> str:
    """Write the file's rows as JSONL that TRL takes; returns a report of what went in and what did not."""
    return _report(run("convert", path, out, {"script": script}), out, f" of {format_of(path).format}")


def split_file(
    path: Path, out: Path, test_fraction: float, eval_fraction: float, seed: int, near: bool = False, group: str = ""
) -> str:  # fmt: skip
    """Write train.jsonl, eval.jsonl and test.jsonl into the folder `out`; returns their sizes."""
    options = {"test_fraction": test_fraction, "eval_fraction": eval_fraction, "seed": seed}
    counts = run("split", path, out, options | {"near": near, "group": group}).counts
    return f"{out}: " + ", ".join(f"{name} {counts.get(name, 0)}" for name in ("train", "eval", "test"))


def preview(path: Path, rows: int) -> list[Row]:
    """The first rows as the trainer gets them, before the chat template."""
    return first_rows(Path(path), rows)


def _report(step: Step, out: Path, what: str = "") -> str:
    counts = dict(step.counts)
    lines = [f"{out}: {counts.pop('written'):,} rows{what}, of {counts.pop('read'):,} read"]
    for kind, count in counts.items():
        if kind in faults() and kind != "repeated_input":
            lines.append(finding(kind, count).message["en"])
        elif kind == "texts_mended":
            lines.append(TEXTS_MENDED.format(n=f"{count:,}"))
        else:
            lines.append(f"{count:,} rows of {kind.replace('_', ' ')} left out")
    return "\n".join([*lines, f"recorded in {out.parent / RECORD}"])
