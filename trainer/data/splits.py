"""Rows → train, eval and test with no text in two of them; each label in its share. Torch-free.

Last step of the flow file → read → detect → convert → split.
"""

from __future__ import annotations

import random
import unicodedata
from collections import defaultdict
from dataclasses import dataclass

from trainer.data.convert import Row, contents


@dataclass
class Splits:
    """Disjoint lists of rows."""

    train: list[Row]
    eval: list[Row]
    test: list[Row]


def key(row: Row) -> str:
    """What makes two rows the same question: the text before the answer, folded (NFKC, case, spaces)."""
    parts = contents({"prompt": row["prompt"]}) if "prompt" in row else contents(row)
    return fold("\n".join(parts))


def fold(text: str) -> str:
    """NFKC, one case, no white space: spelling variants of one text fold to the same string."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def label_of(row: Row) -> str:
    """The answer of a row as a label, for stratifying; "" where it has none."""
    if "completion" in row:
        verdict = f"{row['label']} " if isinstance(row.get("label"), bool) else ""
        return verdict or row["completion"][-1]["content"]
    return ""


def split(
    rows: list[Row],
    eval_fraction: float,
    test_fraction: float,
    seed: int,
    stratify: bool = True,
    together: list[str] | None = None,
    strata: list[str] | None = None,
) -> Splits:
    """Split by label and seed; rows with the same question stay together, so none is in two splits.

    `together` names another group for each row (a customer, a cluster of near repeats) that stays in one split;
    `strata` a class for each row in place of its label.

    Each label gives round(fraction × its rows) to a split; a split that wants any row gets at least one.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    names = [key(row) for row in rows] if together is None else together
    owner = {id(row): name for name, row in zip(names, rows, strict=True)}
    given = {id(row): name for name, row in zip(strata or [], rows, strict=False)}
    for name, row in zip(names, rows, strict=True):
        groups[name].append(row)
    classes: dict[str, list[list[Row]]] = defaultdict(list)
    for group in groups.values():
        classes[given.get(id(group[0]), label_of(group[0])) if stratify else ""].append(group)
    generator = random.Random(seed)
    splits = Splits([], [], [])
    for label in sorted(classes):
        members = classes[label]
        generator.shuffle(members)
        total = sum(len(group) for group in members)
        _deal(members, splits, round(test_fraction * total), round(eval_fraction * total))
    if len(groups) >= 3:
        for part, fraction in ((splits.test, test_fraction), (splits.eval, eval_fraction)):
            if fraction and not part:
                _move_one_group(splits.train, part, owner)
    for part in (splits.train, splits.eval, splits.test):
        generator.shuffle(part)
    return splits


def _deal(groups: list[list[Row]], splits: Splits, test_rows: int, eval_rows: int) -> None:
    wanted = [(splits.test, test_rows), (splits.eval, eval_rows)]
    for group in groups:
        for index, (part, room) in enumerate(wanted):
            if len(group) <= room:  # a large group of repeats never overfills a small split
                part.extend(group)
                wanted[index] = (part, room - len(group))
                break
        else:
            splits.train.extend(group)


def _move_one_group(source: list[Row], target: list[Row], owner: dict[int, str]) -> None:
    if source:
        chosen = owner[id(source[-1])]
        target.extend(row for row in source if owner[id(row)] == chosen)
        source[:] = [row for row in source if owner[id(row)] != chosen]


def by_time(rows: list[Row], times: list[float], eval_fraction: float, test_fraction: float) -> Splits:
    """The oldest rows to train on, newer ones for eval, the newest for test; rows of one moment are not parted.

    A question that an older part holds already is left out of the newer one.
    """
    order = sorted(range(len(rows)), key=lambda at: times[at])  # stable: equal times in the file's order
    count = len(rows)
    ends = [
        _moment(order, times, count - round(share * count))
        for share in (test_fraction + eval_fraction, test_fraction)
    ]
    bounds = ((0, ends[0]), (ends[0], ends[1]), (ends[1], count))
    train, evaluation, test = ([rows[at] for at in order[start:end]] for start, end in bounds)
    evaluation = without_overlap(evaluation, train)
    return Splits(train, evaluation, without_overlap(test, [*train, *evaluation]))


def _moment(order: list[int], times: list[float], at: int) -> int:
    """`at` moved back to the first row of its moment."""
    while 0 < at < len(order) and times[order[at]] == times[order[at - 1]]:
        at -= 1
    return at


def without_overlap(rows: list[Row], held_out: list[Row]) -> list[Row]:
    """`rows` whose question is not among those of `held_out`."""
    seen = {key(row) for row in held_out}
    return [row for row in rows if key(row) not in seen]
