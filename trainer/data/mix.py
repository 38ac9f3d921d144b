"""Rows chosen, repeated, renamed or put together: sample, balance, relabel, merge. For steps.py's table.

Two passes over the file: the first learns the label of each row, the second writes, so that only the rows that are
repeated stay in memory. Every draw is made by the seed, so that `tunesmith data rebuild` gives the same bytes.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainer.config import UserError
from trainer.data.convert import Row
from trainer.data.detect import Detected
from trainer.data.rows import change_texts, column_of, format_of, labels_in, numbered, shaped
from trainer.data.splits import label_of

Rows = Iterator[tuple[str, Row]]
SOURCE = "source_file"  # the column that says where a merged row comes from
FAMILIES = {
    "preference": "pairs",
    "kto": "verdicts",
    "text": "texts",
}  # every other format is of questions with answers


def sample(path: Path, options: dict[str, Any], counts: Counter[str]) -> Rows:
    """`rows` rows, or a `fraction` of them, in the file's order; with `stratify` the same share of every label."""
    classes = _classes(path, options.get("by", "")) if options.get("stratify") else None
    numbers = classes or {"": [number for number, _ in numbered(path, Counter())]}
    total = sum(map(len, numbers.values()))
    wanted = options["rows"] if options.get("rows") else round(options["fraction"] * total)
    generator = random.Random(options["seed"])
    kept: set[int] = set()
    for name, size in _shares({name: len(members) for name, members in numbers.items()}, wanted).items():
        kept.update(generator.sample(numbers[name], size))
    yield from _kept(path, kept, counts, "not_sampled")


def _shares(sizes: dict[str, int], wanted: int) -> dict[str, int]:
    """`wanted` divided in proportion to the sizes by largest remainder, none above its size."""
    total = sum(sizes.values())
    wanted = min(wanted, total)
    exact = {name: wanted * size / total for name, size in sizes.items()}
    shares = {name: int(share) for name, share in exact.items()}
    left = wanted - sum(shares.values())
    for name in sorted(sizes, key=lambda name: (shares[name] - exact[name], name))[:left]:
        shares[name] += 1
    return shares


def _kept(path: Path, kept: set[int], counts: Counter[str], kind: str) -> Rows:
    for number, record in numbered(path, counts):
        counts["read"] += 1
        if number in kept:
            yield "", record
        else:
            counts[kind] += 1


def balance(path: Path, options: dict[str, Any], counts: Counter[str]) -> Rows:
    """Classes brought nearer to each other in size, in this order: `weights`, `cap`, `ratio`.

    weights: {label: factor on its rows}; cap: most rows of a class; ratio: smaller classes are repeated until the
    largest is at most `ratio` times theirs. `by` names a column in place of the label.
    """
    classes = _classes(path, options.get("by", ""))
    weights = _known(options.get("weights") or {}, classes, path)
    sizes = targets({name: len(rows) for name, rows in classes.items()}, weights, options)
    generator = random.Random(options["seed"])
    copies: dict[int, int] = {}
    for name in sorted(classes):
        numbers, size = classes[name], sizes[name]
        whole, rest = divmod(size, len(numbers))
        extra = set(generator.sample(numbers, rest))
        copies.update({number: whole + (number in extra) for number in numbers})
        counts[f"label: {name[:80]}"] = size
    repeated: list[dict[str, Any]] = []
    for number, record in numbered(path, counts):
        counts["read"] += 1
        times = copies.get(number, 0)
        if times:
            yield "", record
            repeated += [record] * (times - 1)
        else:
            counts["capped" if number in copies else "no_label"] += 1
    generator.shuffle(repeated)  # the repeats follow, so that a batch is not filled with one row
    counts["oversampled"] += len(repeated)
    yield from (("", record) for record in repeated)


def targets(sizes: dict[str, int], weights: dict[str, float], options: dict[str, Any]) -> dict[str, int]:
    """Rows that each class is to have."""
    wanted = {name: max(1, round(size * weights.get(name, 1))) for name, size in sizes.items()}
    if options.get("cap"):
        wanted = {name: min(size, options["cap"]) for name, size in wanted.items()}
    if options.get("ratio"):
        least = math.ceil(max(wanted.values()) / options["ratio"])
        wanted = {name: max(size, least) for name, size in wanted.items()}
    return wanted


def _classes(path: Path, column: str) -> dict[str, list[int]]:
    """Line numbers by label, or by the value of a column. Raises UserError where there are no classes."""
    detected = format_of(path)
    classes: dict[str, list[int]] = defaultdict(list)
    for number, record, row in shaped(path, Counter(), detected):
        if column and column not in record and not classes:
            raise UserError(f"{path}: no column {column!r}; choose one of {', '.join(list(record)[:8])}")
        classes[str(record.get(column)) if column else label_of(row).strip()].append(number)
    if not column and labels_in(Counter({n: len(rows) for n, rows in classes.items()}), detected) is None:
        raise UserError(
            f"{path}: its answers are no labels ({len(classes):,} different ones); name a column with --by"
        )
    return dict(classes)


def _known(given: dict[str, Any], classes: dict[str, Any], path: Path) -> dict[str, Any]:
    unknown = sorted(set(given) - set(classes))
    if unknown:
        raise UserError(f"{path}: no label {unknown[0]!r}; the labels are {', '.join(sorted(classes)[:12])}")
    return given


def relabel(path: Path, options: dict[str, Any], counts: Counter[str]) -> Rows:
    """Labels renamed by `map`; a label mapped to nothing leaves its rows out."""
    detected = format_of(path)
    mapping = {old.strip(): new.strip() for old, new in options["map"].items()}
    column = column_of(path, detected)
    _known(mapping, _classes(path, ""), path)
    for _, record, row in shaped(path, counts, detected):
        old = label_of(row).strip()
        if old not in mapping:
            yield "", record
        elif mapping[old]:
            counts["relabelled"] += 1
            rename = lambda text, o=old: mapping[o] if text.strip() == o else text
            yield (
                "",
                record
                | {
                    column: change_texts(record[column], rename) if _is_text(record[column]) else mapping[old]
                },
            )
        else:
            counts["label_dropped"] += 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str | list | dict)


def merge(path: Path, options: dict[str, Any], counts: Counter[str]) -> Rows:
    """Several files one after the other, each row with the name of its file in the column `source_file`.

    `weights`: 1 is every row once, 0.5 half of them, 2 all of them twice. Files of one format and the same columns
    keep them; others are written as rows that TRL takes.
    """
    paths = [path, *map(Path, options.get("sources") or [])]
    weights = list(options.get("weights") or [])
    weights += [1.0] * (len(paths) - len(weights))
    found = [format_of(one) for one in paths]
    _same_family(paths, found)
    alike = len({(one.format, tuple(sorted(one.columns.items()))) for one in found}) == 1
    names = _names(paths)
    for at, (one, detected, weight) in enumerate(zip(paths, found, weights, strict=True)):
        generator = random.Random(f"{options['seed']}:{at}")
        numbers = [number for number, _, _ in shaped(one, Counter(), detected)]
        whole, part = int(weight), weight - int(weight)
        extra = set(generator.sample(numbers, round(part * len(numbers))))
        for number, record, row in shaped(one, counts, detected):
            times = whole + (number in extra)
            counts["not_sampled"] += not times
            counts[f"source: {names[at]}"] += times
            yield from [("", (record if alike else row) | {SOURCE: names[at]})] * times


def _same_family(paths: list[Path], found: list[Detected]) -> None:
    kinds = [FAMILIES.get(one.format, "questions with answers") for one in found]
    for path, detected, kind in zip(paths, found, kinds, strict=True):
        if kind != kinds[0]:
            raise UserError(
                f"{path}: is {detected.format} and {paths[0]} is {found[0].format}, which are trained by other methods; "
                "merge files of one kind"
            )


def _names(paths: list[Path]) -> list[str]:
    """File names, with as much of their folders as tells them apart."""
    names = [one.name for one in paths]
    return (
        names
        if len(set(names)) == len(names)
        else [f"{one.resolve().parent.name}/{one.name}" for one in paths]
    )
