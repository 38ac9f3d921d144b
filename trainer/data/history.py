"""Steps run, written whole or not at all, and recorded: data_source.yaml says how each file came to be.

`tunesmith data rebuild` runs the recorded steps again and compares every byte.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trainer.config import UserError, write_atomic
from trainer.data.read import check_path, file_hash
from trainer.data.steps import STEPS

RECORD = "data_source.yaml"
PART = ".part"  # the end of a file that is not whole yet; before it the number of the process
# options that name a file, or several: their content is part of what a step is run on
ONE_FILE, FILES = ("against", "frozen", "reviewed", "schema"), ("sources", "benchmarks")


@dataclass
class Step:
    """One step. Paths are relative to the folder of data_source.yaml where they lie in it.

    `counts` are rows read, written, and left out or changed by kind; `outputs` maps each file to its SHA-256,
    `others` each further file that the options name.
    """

    step: str
    input: str
    input_sha256: str
    options: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)


def run(step: str, path: Path, out: Path, options: dict[str, Any]) -> Step:
    """Run a step on a file and record it. `out` is a file, or for `split` a folder.

    Raises UserError. Nothing is left of an output that was not finished.
    """
    path, out = Path(path), Path(out)
    check_path(path)
    if out.resolve() == path.resolve():
        raise UserError(f"{out}: would overwrite its own input; give another file")
    folder = out if step == "split" else out.parent
    names = ("train.jsonl", "eval.jsonl", "test.jsonl") if step == "split" else (out.name,)
    made = Step(step, _relative(path, folder), file_hash(path), _recorded(options, folder))
    for other in _files(options):
        check_path(other)
        if other.resolve() in [(folder / name).resolve() for name in names]:
            raise UserError(f"{other}: would be overwritten by this step; write into another folder")
        made.others[_relative(other, folder)] = file_hash(other)
    counts: Counter[str] = Counter()
    with writers(folder, names) as write:
        for name, row in STEPS[step](path, options, counts):
            write(name or out.name, row)
            counts["written"] += 1
            if step == "split":
                counts[name.removesuffix(".jsonl")] += 1
        if not counts["written"]:
            raise UserError(f"{path}: no row is left after {step}; nothing was written")
    made.counts = {kind: count for kind, count in counts.items() if count}
    made.outputs = {name: file_hash(folder / name) for name in names}
    _record(folder, made)
    return made


@contextmanager
def writers(folder: Path, names: tuple[str, ...]) -> Iterator[Any]:
    """write(name, row) into temporary files that take their names when all is well, and vanish otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    temporary = {}
    files = {}
    try:
        for name in names:
            handle, temporary[name] = tempfile.mkstemp(PART, f".{name}.{os.getpid()}.", folder)
            files[name] = os.fdopen(handle, "w", encoding="utf-8", newline="\n")
        yield lambda name, row: files[name].write(json.dumps(row, ensure_ascii=False) + "\n")
        for name, file in files.items():
            file.flush()
            os.fsync(file.fileno())
            file.close()
            os.replace(temporary[name], folder / name)
    except BaseException:
        for file in files.values():
            file.close()
        for path in temporary.values():
            Path(path).unlink(missing_ok=True)
        raise


def _sweep(folder: Path) -> None:
    """Remove what a process that was killed had begun to write here."""
    import psutil

    for path in folder.glob(f".*{PART}"):
        process = path.name.split(".")[-3]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            path.unlink(missing_ok=True)


def steps(folder: Path) -> list[Step]:
    """The recorded steps of a folder, in their order. Raises UserError where the record is damaged."""
    path = folder / RECORD
    if not path.is_file():
        return []
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        if "imports" in document:  # a folder may hold imported files and no step yet
            document = {"steps": [], **document}
        return [Step(**item) for item in document["steps"]]
    except (yaml.YAMLError, TypeError, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a record of steps: {str(error).splitlines()[0]}; remove it") from None


def rebuild(folder: Path) -> list[str]:
    """Run the recorded steps of a folder again; a line for each. Raises UserError where a byte differs."""
    folder = Path(folder)
    recorded = steps(folder)
    if not recorded:
        raise UserError(
            f"{folder / RECORD}: no recorded steps; make files with `tunesmith data repair`, `dedupe`, …"
        )
    told = []
    for step in recorded:
        source = _found(step.input, folder)
        hashes = {source: step.input_sha256} | {
            _found(name, folder): sha for name, sha in step.others.items()
        }
        for file, sha in hashes.items():
            check_path(file)
            if file_hash(file) != sha:
                raise UserError(
                    f"{file}: is not the file that {step.step} was run on; bring back the one of {sha[:12]}…"
                )
        if (
            step.step not in STEPS
            or not step.outputs
            or any("/" in name or name.startswith(".") for name in step.outputs)
        ):
            raise UserError(
                f"{folder / RECORD}: unknown step {step.step!r}; choose one of {', '.join(STEPS)}"
            )
        options = _with_paths(step.options, lambda name: str(_found(name, folder)))
        out = folder if step.step == "split" else folder / next(iter(step.outputs))
        again = run(step.step, source, out, options)
        changed = [name for name, digest in step.outputs.items() if again.outputs.get(name) != digest]
        if changed:
            raise UserError(
                f"{folder / changed[0]}: differs from the one recorded; another version of the program made it"
            )
        told.append(f"{step.step} {step.input}: {', '.join(step.outputs)} as recorded")
    return told


def _record(folder: Path, made: Step) -> None:
    kept = [step for step in steps(folder) if not set(step.outputs) & set(made.outputs)]
    told = [
        {name: value for name, value in asdict(step).items() if value or name != "others"}
        for step in [*kept, made]
    ]
    document = {**_others(folder), "steps": told}
    head = "# How the files of this folder were made. Run the steps again: tunesmith data rebuild FOLDER\n"
    write_atomic(folder / RECORD, head + yaml.safe_dump(document, allow_unicode=True, sort_keys=False))


def _others(folder: Path) -> dict[str, Any]:
    """What else the record holds: the imports (sources/record.py)."""
    path = folder / RECORD
    document = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return {name: value for name, value in (document or {}).items() if name != "steps"}


def _recorded(options: dict[str, Any], folder: Path) -> dict[str, Any]:
    kept = {name: value for name, value in options.items() if value not in (None, False, "", [], {})}
    return _with_paths(kept, lambda name: _relative(Path(name), folder))


def _with_paths(options: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The options with every path in them changed."""
    changed = {name: change(options[name]) for name in ONE_FILE if options.get(name)}
    changed |= {name: [change(one) for one in options[name]] for name in FILES if options.get(name)}
    return {**options, **changed}


def _files(options: dict[str, Any]) -> list[Path]:
    """Every file that the options name."""
    named = [options[name] for name in ONE_FILE if options.get(name)]
    return [Path(name) for name in [*named, *(one for name in FILES for one in options.get(name) or [])]]


def _relative(path: Path, folder: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(folder.resolve())) if path.is_relative_to(folder.resolve()) else str(path)


def _found(name: str, folder: Path) -> Path:
    return Path(name) if Path(name).is_absolute() else folder / name
