"""Checks of a file against what a person gives: benchmarks, a schema of the answers, a chat template.

Each reads the rows once more, and only where it is asked for. For check.py.
"""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainer.config import UserError
from trainer.data import template as templates
from trainer.data.convert import Row, contents
from trainer.data.faults import told
from trainer.data.findings import Finding, finding
from trainer.data.measure import Tally, question_and_answer
from trainer.data.rows import format_of, in_batches, shaped
from trainer.data.splits import fold

# A run of so many folded characters that a row shares with a benchmark is an overlap: about the 13 words of GPT-3's
# check (Brown et al. 2020, arXiv:2005.14165, appendix C); Han characters say about three letters' worth each.
RUN, HAN_RUN = 60, 20
STRIDE = 10
COMMON = 3  # benchmark rows that may share a run before it is taken as their common instruction
MOST_ROWS = 100_000  # rendered with a template
HAN = re.compile(r"[\u3400-\u9fff]")


def findings_of_given(path: Path, benchmarks: list[Path], schema: str, template: str) -> list[Finding]:
    """Findings of what is given; [] where nothing is. Raises UserError where a given file is no good."""
    found: list[Finding] = []
    if benchmarks:
        found += _overlaps(path, benchmarks)
    if schema:
        found += _against_schema(path, schema)
    if template:
        found += _rendered(_rows(path), template)
    options = " ".join(f"--benchmark {shlex.quote(str(file))}" for file in benchmarks)
    return told(found, path, benchmarks=options, schema=schema)


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Rows that can be trained on; broken lines are left to the check itself."""
    detected = format_of(path, mend=True)
    yield from ((number, row) for number, _, row in shaped(path, Counter(), detected, mend=True))


# benchmarks


def overlapping(path: Path, benchmarks: list[Path]) -> Iterator[tuple[int, str, str]]:
    """(line, benchmark, what is shared) of rows that hold text of a benchmark."""
    runs: dict[str, str] = {}
    for file in benchmarks:
        runs |= dict.fromkeys(_runs_of(Path(file)), Path(file).name)
    for number, row in _rows(path):
        text = fold("\n".join(contents(row)))
        question = fold("\n".join(contents({"prompt": row["prompt"]}))) if "prompt" in row else text
        hit = next(
            (run for run in _windows(text, 1) if run in runs),
            f"={question}" if f"={question}" in runs else "",
        )
        if hit:
            yield number, runs[hit], hit.removeprefix("=")


def _overlaps(path: Path, benchmarks: list[Path]) -> list[Finding]:
    tally, by_file = Tally(), Counter()
    for number, name, run in overlapping(path, benchmarks):
        tally.add(number, f"{name}: {run[:120]}")
        by_file[name] += 1
    if not tally.count:
        return []
    names = ", ".join(f"{name} {count:,}" for name, count in by_file.most_common(5))
    return [finding("benchmark_overlap", tally.count, tally.lines, tally.example, names=names)]


def _runs_of(path: Path) -> set[str]:
    """Runs of characters of a benchmark's questions that tell its rows apart, and its short questions whole."""
    seen: Counter[str] = Counter()
    for _, row in _rows(path):
        question, answer = question_and_answer(row)
        parts = set(_windows(question + answer, STRIDE))
        seen.update(parts or ({f"={question}"} if question else ()))
    return {run for run, count in seen.items() if count <= COMMON or run.startswith("=")}


def _windows(text: str, step: int) -> Iterator[str]:
    size = HAN_RUN if 2 * len(HAN.findall(text[:2000])) > len(text[:2000]) else RUN
    return (text[at : at + size] for at in range(0, len(text) - size + 1, step))


# a schema of the answers


def judged_by_schema(path: Path, given: str) -> Iterator[tuple[int, str, str]]:
    """(line, fault or "", answer) of every answer."""
    validator = _validator(given)
    for number, row in _rows(path):
        if "completion" not in row and "chosen" not in row:
            continue
        answer = row.get("completion", row.get("chosen"))[-1]["content"]
        try:
            fault = next((error.message for error in validator.iter_errors(json.loads(answer))), "")
        except (ValueError, RecursionError) as error:
            fault = f"not JSON: {error}"
        yield number, fault, answer


def _against_schema(path: Path, given: str) -> list[Finding]:
    tally, judged = Tally(), 0
    for number, fault, answer in judged_by_schema(path, given):
        judged += 1
        if fault:
            tally.add(number, f"{fault[:80]} · {answer[:80]}")
    if not tally.count:
        return []
    share = f"{100 * (judged - tally.count) / judged:.1f}"
    return [
        finding("schema_mismatch", tally.count, tally.lines, tally.example, of=f"{judged:,}", share=share)
    ]


@lru_cache(maxsize=4)
def _validator(given: str) -> Any:
    import jsonschema

    path = Path(given).expanduser()
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        kind.check_schema(schema)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}; give a JSON schema file") from None
    except (ValueError, jsonschema.SchemaError) as error:
        raise UserError(f"{path}: no JSON schema: {str(error).splitlines()[0][:120]}; give one") from None
    return kind(schema)


# a chat template


def _rendered(rows: Iterable[tuple[int, Row]], given: str) -> list[Finding]:
    failed, doubled = Tally(), Tally()
    template = templates.load_template(given)
    begin = template.marks.get("bos_token", "")
    chosen = ((number, row) for number, row in rows if "prompt" in row)
    with templates.Renderer(template) as render:
        for at, batch in enumerate(in_batches(chosen, templates.BATCH)):
            if at * templates.BATCH >= MOST_ROWS:
                break
            try:
                done = render([row for _, row in batch])
            except templates.TooSlow:
                return [finding("template_slow", len(batch), [batch[0][0]], seconds=templates.SECONDS)]
            for (number, _), one in zip(batch, done, strict=True):
                if one.fault:
                    failed.add(number, one.fault)
                elif begin and any(text.count(begin) > 1 for text in one.texts):
                    doubled.add(number, one.texts[0][:80])
    found = [finding("template_fails", failed.count, failed.lines, failed.example)] if failed.count else []
    return found + (
        [finding("template_bos", doubled.count, doubled.lines, doubled.example)] if doubled.count else []
    )
