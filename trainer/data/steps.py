"""One file of rows into another: repair, dedupe, redact, convert, render. Streamed where the input is; counted always.

Each step is a function (input, options, counts) → rows by output name; history.py runs and records them, so a step
depends on its input and its options alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import RunConfig, UserError
from trainer.data import dividing, mix, near, review, scan
from trainer.data.check import METHOD_OF_FORMAT, measured, repeats
from trainer.data.convert import Row, convert, convert_rows, shape_of
from trainer.data.detect import Detected
from trainer.data.drop import drop
from trainer.data.read import Records
from trainer.data.rows import change_texts, format_of, in_batches, numbered, shaped
from trainer.data.splits import fold
from trainer.data.template import BATCH, Renderer, Template, TooSlow

Rows = Iterator[tuple[str, Row]]  # (name of the output, row); "" where there is one output
THOUGHTS = re.compile(r"<think>.*?</think>\s*", re.S)
SCRIPTS = {"traditional": "s2twp", "simplified": "t2s"}


def usual_method(path: Path) -> str:
    """The training method that the file's format suggests."""
    return METHOD_OF_FORMAT.get(format_of(path).format, "sft")


def first_rows(
    path: Path, count: int, method: str = "", system_prompt: str = "", instruction: str = ""
) -> list[Row]:
    """The first rows of a file in the shape of a method, or of the one that its format suggests. Raises UserError."""
    detected = format_of(path)
    method = method or METHOD_OF_FORMAT.get(detected.format, "sft")
    some = list(islice(numbered(path, Counter()), 10 * count + 100))
    return convert(Records(path, "", "line", some, ""), detected, method, system_prompt, instruction).rows[
        :count
    ]


def repair(path: Path, options: dict[str, Any], counts: Counter[str]) -> Rows:
    """Broken lines and rows that cannot be trained on left out; encoding mended, NUL and template marks removed."""
    detected = format_of(path, mend=True)
    shape = shape_of(METHOD_OF_FORMAT.get(detected.format, "sft"))
    spelling = _spelling(path, detected) if options.get("labels") else {}
    silent = (lambda text: THOUGHTS.sub("", text)) if options.get("no_think") else (lambda text: text)
    label = detected.columns.get("label", "")
    for number, record in numbered(path, counts, mend=True):
        counts["read"] += 1
        mended = {
            name: change_texts(value, lambda text: _mended(silent(text), counts))
            for name, value in record.items()
        }
        converted = convert_rows([(number, mended)], detected, shape)
        counts.update({kind: len(lines) for kind, lines in converted.faults.items()})
        if converted.rows:
            given = str(mended.get(label, ""))
            if spelling.get(fold(given), given) != given:
                mended[label] = spelling[fold(given)]
                counts["label_spelling"] += 1
            yield "", mended


def _mended(text: str, counts: Counter[str]) -> str:
    clean = text.replace("\0", "")
    if not clean.isascii():
        clean = clean.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        clean = scan.mend(clean)
    if "<" in clean or "[" in clean:
        clean = scan.MARKS.sub("", clean)
    counts["texts_mended"] += clean != text
    return clean


def _spelling(path: Path, detected: Detected) -> dict[str, str]:
    """The commonest spelling of each label."""
    column, spelled = detected.columns.get("label", ""), {}
    for label, _ in Counter(
        str(r.get(column, "")).strip() for _, r in numbered(path, Counter(), True)
    ).most_common():
        spelled.setdefault(fold(label), label)
    return spelled


def redact(path: Path, options: dict[str, Any], counts: Counter[str]) -> Rows:
    """Personal data and keys replaced by their names, in every column."""

    def change(text: str) -> str:
        text, kinds = scan.redact(text)
        counts.update(kinds)
        return text

    for _, record in numbered(path, counts):
        counts["read"] += 1
        yield "", change_texts(record, change)


def dedupe(path: Path, options: dict[str, Any], counts: Counter[str]) -> Rows:
    """The first of each group of repeats: exact, or with `near` nearly so, or with `inputs` of the same question.

    `against` leaves out what stands in a test file. Rows that cannot be trained on stay for `repair`.
    """
    length = RunConfig.model_fields["max_length"].default
    nothing = lambda size: None
    against = options.get("against")
    held_out = measured(Path(against), True, length, "", nothing)[1] if against else None
    _, part = measured(path, True, length, "", nothing, held_out)
    drop: dict[int, str] = {}

    def leave_out(kind: str, mask: np.ndarray) -> None:
        for line in part.numbers[mask]:
            drop.setdefault(int(line), kind)

    # The same question, whatever its answer, is a repeat where inputs are compared.
    same = replace(part, answers=np.zeros_like(part.answers)) if options.get("inputs") else part
    repeated, _ = repeats(same, False)
    drop.update({int(line): "leakage" for line in part.leaks})
    if len(part.numbers) < part.rows:
        counts["row_uncounted"] += part.rows - len(part.numbers)
    leave_out("repeated_input" if options.get("inputs") else "duplicates", repeated)
    if options.get("near"):
        groups = near.groups(part.sketches)
        alike = np.zeros(len(part.numbers), bool)
        alike[: len(groups)] = groups != np.arange(len(groups))
        leave_out("near_duplicates", alike)
    for number, record in numbered(path, counts):
        counts["read"] += 1
        if number in drop:
            counts[drop[number]] += 1
        else:
            yield "", record


def converted(path: Path, options: dict[str, Any], counts: Counter[str]) -> Rows:
    """Rows as TRL takes them; `script`: in one Chinese script, `system` and `instruction`: said to the model first."""
    change = _script(options["script"]) if options.get("script") else None
    told = {"system_prompt": options.get("system", ""), "instruction": options.get("instruction", "")}
    for _, _, row in shaped(path, counts, format_of(path), **told):
        yield "", change_texts(row, change) if change else row


@cache
def _script(name: str) -> Callable[[str], str]:
    import opencc

    if name not in SCRIPTS:
        raise UserError(f"--script {name}: choose {' or '.join(SCRIPTS)}")
    return opencc.OpenCC(SCRIPTS[name]).convert


def rendered(path: Path, options: dict[str, Any], counts: Counter[str]) -> Rows:
    """Rows as one text each, {"text"}, written by a chat template; those that it refuses are left out."""
    found = Template(options["template_source"], options.get("template_marks") or {})
    rows = (
        row
        for _, _, row in shaped(path, counts, format_of(path), options.get("system", ""))
        if "prompt" in row
    )
    with Renderer(found) as render:
        for batch in in_batches(rows, BATCH):
            try:
                done = render(batch)
            except TooSlow:
                raise UserError(
                    f"{path}: the chat template takes too long or too much memory; use another"
                ) from None
            for one in done:
                counts["template_fails"] += bool(one.fault)
                yield from (("", {"text": text}) for text in one.texts[:1])


STEPS: dict[str, Callable[[Path, dict[str, Any], Counter[str]], Rows]] = {
    "repair": repair, "dedupe": dedupe, "redact": redact, "convert": converted, "split": dividing.divide,
    "drop": drop, "add": review.add, "render": rendered, "sample": mix.sample, "balance": mix.balance, "relabel": mix.relabel, "merge": mix.merge,
}  # fmt: skip
