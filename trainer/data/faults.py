"""What was measured in a whole file → its findings, the worst first. For check.py."""

from __future__ import annotations

import math
import shlex
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainer.data import near
from trainer.data.detect import Detected
from trainer.data.findings import Finding, finding
from trainer.data.labels import likely_wrong
from trainer.data.measure import Part, Plan, Tally
from trainer.data.splits import fold

DERIVED = (
    "script_traditional",
    "script_simplified",
    "invalid_json",
)  # tallies that are judged, not told as they are
IMBALANCE = 10
RARE_ROWS = 10
ORDER = {"error": 0, "warning": 1, "info": 2}


@dataclass
class Context:
    """A measured file; `held_out` is the test file that it is checked against."""

    path: Path
    detected: Detected
    plan: Plan
    part: Part
    labels: dict[str, int] | None
    script: str
    repeated: np.ndarray
    conflicting: np.ndarray
    held_out: Part | None = None
    held_out_path: Path | None = None


def findings_of(context: Context) -> list[Finding]:
    """Every finding, with its command for this file."""
    found = [*_read(context), *_repeated(context), *_labelled(context), *_lengths(context), *_mixed(context)]
    if context.plan.deep:
        found += [*_schema(context), *_near(context), *_doubted(context)]
    return told(
        found, context.path, against=str(context.held_out_path), max_length=str(context.plan.max_length)
    )


def told(found: list[Finding], path: Path, **names: str) -> list[Finding]:
    """Findings with their commands for this file, the worst first."""
    quoted = {name: shlex.quote(text) for name, text in names.items() if name != "benchmarks"}
    quoted |= {"file": shlex.quote(str(path)), "out": shlex.quote(f"{path.stem}.clean.jsonl")}
    quoted |= {"review": shlex.quote(f"{path.stem}.review.jsonl"), "benchmarks": names.get("benchmarks", "")}
    whole = [replace(item, command=item.command.format(**quoted)) if item.command else item for item in found]
    return sorted(whole, key=worst_first)


def worst_first(item: Finding) -> tuple[int, int]:
    """What findings are sorted by."""
    return ORDER[item.severity], -item.rows


def _of(kind: str, tally: Tally, **values: object) -> Finding:
    return finding(kind, tally.count, tally.lines, tally.example, **values)


def _at(kind: str, context: Context, chosen: np.ndarray, **values: object) -> list[Finding]:
    """The finding of the rows that a mask chooses; none where it chooses none."""
    lines = context.part.numbers[chosen][:5]
    return [finding(kind, int(chosen.sum()), [int(line) for line in lines], **values)] if len(lines) else []


def _read(context: Context) -> list[Finding]:
    part = context.part
    broken: dict[str, Tally] = defaultdict(Tally)
    for fault in part.broken:
        broken[fault.kind].add(fault.number, fault.text.split(": ", 1)[-1])
    found = [_of(kind, tally) for kind, tally in broken.items()]
    found += [finding(kind, count) for kind, count in part.mended.items() if kind != "broken" and count]
    limit = f"{context.plan.max_length:,}"
    deep_only = () if context.plan.deep else ("over_max_length", "answer_cut")
    for kind, tally in part.tallies.items():
        if kind not in DERIVED and kind not in deep_only:
            found.append(_of(kind, tally, limit=limit))
    if context.detected.unused:
        columns = context.detected.unused
        found.append(finding("unused_column", len(columns), example=", ".join(columns)[:200]))
    invalid = part.tallies.get("invalid_json", Tally())
    if invalid.count and 2 * part.json_like > part.rows:
        found.append(_of("invalid_json", invalid, of=f"{part.json_like:,}"))
    return found


def _repeated(context: Context) -> list[Finding]:
    found = _at("duplicates", context, context.repeated)
    if len(context.part.numbers) < context.part.rows:
        limit = len(context.part.numbers)
        found.append(finding("row_uncounted", context.part.rows - limit, limit=f"{limit:,}"))
    if context.labels is not None:
        return found + _at("label_conflict", context, context.conflicting)
    if context.detected.format in ("text", "preference", "kto") or not context.plan.deep:
        return found
    _, firsts = np.unique(context.part.asked, return_index=True)
    later = np.ones(len(context.part.asked), bool)
    later[firsts] = False
    same = int((later & context.repeated).sum())
    elsewhere = int((later & ~context.repeated & ~context.conflicting).sum())
    return found + _at("repeated_input", context, later, same=f"{same:,}", elsewhere=f"{elsewhere:,}")


def _labelled(context: Context) -> list[Finding]:
    labels, found = context.labels, []
    if context.detected.format == "text+label" and len(context.part.labels) == 1:
        found.append(finding("one_label", context.part.rows))
    if not labels:
        return found
    lines = lambda names: sorted(context.part.label_lines.get(name, 0) for name in names)
    rare = [name for name, count in labels.items() if count < RARE_ROWS]
    spellings = Counter(fold(name) for name in labels)
    variants = [name for name in labels if spellings[fold(name)] > 1]
    if rare:
        found.append(finding("rare_label", len(rare), lines(rare), ", ".join(rare[:5])))
    if variants:
        found.append(
            finding("label_spelling", len(variants), lines(variants), ", ".join(sorted(variants)[:6]))
        )
    ratio = max(labels.values()) / min(labels.values())
    if context.plan.deep and ratio >= IMBALANCE:
        least, most = min(labels, key=labels.__getitem__), max(labels, key=labels.__getitem__)
        example = f"{most}: {labels[most]:,}; {least}: {labels[least]:,}"
        found.append(finding("imbalance", labels[least], lines([least]), example, ratio=math.floor(ratio)))
    if context.held_out is not None:
        absent = sorted(set(context.held_out.labels) - set(labels))
        found += [finding("absent_label", len(absent), example=", ".join(absent[:6]))] if absent else []
    return found


def _lengths(context: Context) -> list[Finding]:
    if not context.plan.deep:
        return []
    return _at("length_outlier", context, outliers(context.part))


def outliers(part: Part) -> np.ndarray:
    """Rows of more than ten times the median's tokens, and more than 100."""
    return part.tokens > max(10 * float(np.median(part.tokens)), 100)


def _mixed(context: Context) -> list[Finding]:
    if not context.plan.deep:
        han = any("\u3400" <= char <= "\u9fff" for text in context.part.texts[:20] for char in text)
        return [finding("mixed_script", context.part.rows)] if context.script == "mixed" and han else []
    sides = [context.part.tallies.get(f"script_{name}", Tally()) for name in ("traditional", "simplified")]
    rarer = min(sides, key=lambda tally: tally.count)
    share = rarer.count / max(1, sum(side.count for side in sides))
    return [_of("mixed_script", rarer)] if rarer.count >= 2 and share >= 0.01 else []


def _schema(context: Context) -> list[Finding]:
    found = []
    usual = max(context.part.schemas.values(), key=lambda tally: tally.count, default=None)
    others = [tally for tally in context.part.schemas.values() if tally is not usual]
    if others:
        found.append(_of("mixed_schema", _together(others)))
    by_column: dict[str, list[Tally]] = defaultdict(list)
    for (column, _), tally in context.part.types.items():
        by_column[column].append(tally)
    rarer = [t for tallies in by_column.values() for t in sorted(tallies, key=lambda t: -t.count)[1:]]
    if rarer:
        found.append(_of("wrong_type", _together(rarer)))
    return found


def _together(tallies: list[Tally]) -> Tally:
    whole = Tally()
    for tally in sorted(tallies, key=lambda tally: tally.lines[0]):
        whole.merge(tally)
    whole.lines.sort()
    return whole


def _near(context: Context) -> list[Finding]:
    part, found = context.part, []
    if part.sketches is None:
        return found
    compared = len(part.sketches.bands)
    own = ~context.repeated[:compared]  # exact repeats are told already
    mask = np.zeros(len(part.numbers), bool)
    mask[:compared] = near.groups(part.sketches, among=own) != np.arange(compared)
    # The same question with another answer is told as such.
    found += _at("near_duplicates", context, mask & ~context.conflicting)
    if compared < part.rows:
        found.append(finding("row_left", part.rows - compared, limit=f"{compared:,}"))
    if len(part.leaks):
        found.append(finding("leakage", len(part.leaks), [int(line) for line in part.leaks[:5]]))
    return found


def leaked(part: Part, held_out: Part) -> np.ndarray:
    """Rows of `part` that stand, or nearly stand, in `held_out`: the same question, or alike by MinHash."""
    return np.isin(part.questions, held_out.questions) | near.like(part.sketches, held_out.sketches)


def _doubted(context: Context) -> list[Finding]:
    rows = context.part.labelled
    found = doubts(context.part) if context.labels is not None else []
    if not found:
        return []
    at, better = found[0]
    example = f"{rows[at][2]} → {better}? {rows[at][1][:80]}"
    return [finding("likely_wrong_label", len(found), [rows[index][0] for index, _ in found], example)]


def doubts(part: Part) -> list[tuple[int, str]]:
    """(index among `part.labelled`, better label) of rows whose label is doubted."""
    rows = part.labelled
    return (
        likely_wrong([text for _, text, _ in rows], [label for _, _, label in rows])
        if len(rows) >= 60
        else []
    )
