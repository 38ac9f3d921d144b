"""The step `drop`: rows with a finding of given kinds left out, as `data check` names them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import RunConfig, UserError
from trainer.data.check import labels_of_part, measured, repeats
from trainer.data.convert import Row
from trainer.data.faults import doubts, outliers
from trainer.data.findings import faults
from trainer.data.given import judged_by_schema, overlapping
from trainer.data.measure import Part, measure
from trainer.data.rows import in_batches, numbered

TOGETHER = 50  # rows measured at a time; one by one only where some of them has a finding


def droppable() -> list[str]:
    """Kinds of findings whose rows this step can leave out."""
    return [kind for kind, fault in faults().items() if "data drop" in fault.get("command", "")]


def drop(path: Path, options: dict[str, Any], counts: Counter[str]) -> Iterator[tuple[str, Row]]:
    """Rows without a finding of `kinds`. Raises UserError for a kind that rows cannot be dropped by."""
    kinds = set(options["kinds"])
    unknown = sorted(kinds - set(droppable()))
    if unknown:
        raise UserError(
            f"--kind {unknown[0]}: rows cannot be left out by it; choose of {', '.join(droppable())}"
        )
    length = options.get("max_length") or RunConfig.model_fields["max_length"].default
    head, part = measured(path, True, length, "", lambda size: None)
    labelled = labels_of_part(part, head.plan.detected) is not None
    doubted = [part.labelled[at][0] for at, _ in doubts(part)] if labelled else []
    whole: dict[int, str] = {}
    if "benchmark_overlap" in kinds:
        files = [Path(file) for file in options.get("benchmarks") or []]
        whole.update({number: "benchmark_overlap" for number, _, _ in overlapping(path, files)})
    if "schema_mismatch" in kinds:
        judged = judged_by_schema(path, options.get("schema") or "")
        whole.update({number: "schema_mismatch" for number, fault, _ in judged if fault})
    for kind, mask in (
        ("length_outlier", outliers(part)),
        ("label_conflict", repeats(part, labelled)[1] & labelled),
        ("likely_wrong_label", np.isin(part.numbers, doubted)),
    ):
        if kind in kinds:
            whole.update({int(number): kind for number in part.numbers[mask]})
    usual = _usual(part)
    for some in in_batches(numbered(path, counts), TOGETHER):
        named = kinds & _found(measure(some, head.plan), usual)
        for number, record in some:
            counts["read"] += 1
            own = sorted(named & _found(measure([(number, record)], head.plan), usual)) if named else []
            kind = own[0] if own else whole.get(number)
            if kind:
                counts[kind] += 1
            else:
                yield "", record


def _usual(part: Part) -> set[tuple[str, ...]]:
    """The commonest columns of the rows, and the commonest type of each column."""
    columns = max(part.schemas, key=lambda names: part.schemas[names].count, default=())
    types: dict[str, tuple[str, str]] = {}
    for column, kind in sorted(part.types, key=lambda one: part.types[one].count):
        types[column] = (column, kind)
    return {columns, *types.values()}


def _found(part: Part, usual: set[tuple[str, ...]]) -> set[str]:
    """Kinds of findings in some rows."""
    odd = {"mixed_schema": part.schemas.keys() - usual, "wrong_type": part.types.keys() - usual}
    return set(part.tallies) | {kind for kind, others in odd.items() if others}
