"""A data file measured before anything is trained on it: format, labels, language, lengths, every fault.

`profile` is what advice starts from, `check` what `tunesmith data check` prints. Torch-free and streamed: a file of
JSON lines is measured in parts, by two processes when it is large. 9,600 rows take about a second, 3 with `check`.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import RunConfig, UserError
from trainer.data import near
from trainer.data.columns import Column
from trainer.data.convert import contents, convert_rows, shape_of
from trainer.data.detect import Detected, detect
from trainer.data.faults import Context, findings_of, leaked, told, worst_first
from trainer.data.findings import Finding
from trainer.data.language import language_of
from trainer.data.licence import findings_of_licence, licence_of
from trainer.data.lines import blocks, parse
from trainer.data.measure import DISTINCT, Part, Plan, measure, tokenizer_file
from trainer.data.read import Records, check_path, file_hash, read_records, source, streams
from trainer.data.stage import labels_of

METHOD_OF_FORMAT = {"text": "cpt", "preference": "dpo", "kto": "kto", "prompts": "grpo"}
TASK_OF_FORMAT = {
    "text": "domain-knowledge", "preference": "preference", "kto": "preference", "bio": "ner", "spans": "ner",
}  # fmt: skip
LARGE = 24 << 20  # bytes from which a second process is worth its start
HEAD_ROWS, PART_ROWS = 5000, 1000
LIMIT = 16_000_000  # rows looked at for exact repeats and lengths: 40 bytes each
MOST_PARTS = 200  # whose texts tell the language
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Lengths:
    """Tokens a row: median, 95th percentile, maximum, mean (0: not known; time follows it).

    `histogram`: {"to", "rows"} for rows of at most `to` tokens and more than the bound before; from 16 on bounds double.
    """

    p50: int
    p95: int
    max: int
    mean: float = 0.0
    histogram: tuple[dict[str, int], ...] = ()


@dataclass(frozen=True)
class DataProfile:
    """What a file holds. `rows` are those that can be trained on; `read_rows` all that the file has.

    `tokens` are whole rows and `completion_tokens` the answers, without what a chat template adds: counted with
    `tokenizer`, or estimated (language.token_estimate) where it is "". `loss_share` is the answers' part of all tokens.
    `labels` counts rows by label, None where answers are no labels. `task` is a guess in the words of the advice.
    `duplicates` are rows beyond the first of the same question and answer; `licence` what a column, a card or a licence
    file beside the data says.
    """

    path: str
    sha256: str
    format: str
    rows: int
    read_rows: int
    columns: list[str]
    text_column: str | None
    label_column: str | None
    labels: dict[str, int] | None
    language: str
    script: str
    tokens: Lengths
    completion_tokens: Lengths | None
    duplicates: int
    conflicts: int
    task: str | None
    preference_pairs: int
    thumbs_up: int
    thumbs_down: int
    licence: str = ""
    findings: list[Finding] = field(default_factory=list)
    tokenizer: str = ""
    loss_share: float | None = None


def profile(path: Path, seen: Progress = lambda size: None, tokenizer: str = "") -> DataProfile:
    """Measure a file; `tokenizer` is a tokenizer.json, without which tokens are estimated.

    Raises UserError, "file:line: what; what to do", where it cannot be read at all.
    """
    length = RunConfig.model_fields["max_length"].default
    return _profiled(*measured(Path(path), False, length, tokenizer, seen), None)


def check(
    path: Path, against: Path | None = None, max_length: int | None = None, tokenizer: str = "",
    seen: Progress = lambda size: None, benchmarks: Sequence[Path] = (), schema: str = "", template: str = "",
) -> DataProfile:  # fmt: skip
    """Measure a file and name every fault, broken lines among them; `against` is a test file to look for leaks.

    `tokenizer` is a model's folder, without which tokens are estimated; `seen` is told the bytes read.
    `benchmarks` are files whose questions must not be trained on, `schema` a JSON schema of the answers, `template`
    a chat template to render (given.py). Raises UserError where no row can be used.
    """
    from trainer.data.examples import with_examples  # both read rows as this module shapes them
    from trainer.data.given import findings_of_given

    length = max_length or RunConfig.model_fields["max_length"].default
    tokenizer = tokenizer_file(tokenizer) if tokenizer else ""
    held_out = measured(Path(against), True, length, tokenizer, lambda size: seen(0)) if against else None
    own = measured(Path(path), True, length, tokenizer, seen, held_out[1] if held_out else None)
    measured_all = _profiled(*own, held_out)
    more = findings_of_given(Path(path), list(benchmarks), schema, template)
    more += told(findings_of_licence(measured_all.licence, own[0].licence[1]), Path(path))
    found = with_examples(Path(path), sorted([*measured_all.findings, *more], key=worst_first))
    return replace(measured_all, findings=found)


@dataclass
class Head:
    """The first rows of a file and what they say of all."""

    path: Path
    columns: list[str]
    plan: Plan
    sha256: str = ""
    unit: str = "line"
    licence: tuple[str, str] = ("", "")


def measured(
    path: Path, deep: bool, max_length: int, tokenizer: str, seen: Progress, held_out: Part | None = None
) -> tuple[Head, Part]:
    """The head of a file and all of it measured; `deep` for broken lines as findings and near repeats.

    Rows that stand in `held_out`, another measured file, are `Part.leaks`.
    """
    check_path(path)
    plan = partial(Plan, deep=deep, max_length=max_length, tokenizer=tokenizer)
    if not streams(path):
        given = source(path, seen)
        first = list(islice(given.rows, HEAD_ROWS))
        if not first:
            raise UserError(f"{path}:1: the file holds no rows; give it at least one")
        head = _head(Records(path, given.kind, given.unit, first, ""), plan)
        rows = chain(first, given.rows)
        parts = iter(lambda: list(islice(rows, PART_ROWS)), [])
        merged = merge(_each(parts, head.plan, path.stat().st_size), held_out)
        merged.mended += given.mended
        head.sha256, head.unit = file_hash(path), given.unit
        return head, _usable(head, merged, strict=False)
    first = next(blocks(path))
    parsed = parse(first)
    if not parsed.rows or (parsed.faults and not deep):
        read_records(path)  # says what is wrong with the first broken line
    head = _head(Records(path, "jsonl", "line", parsed.rows, ""), plan)
    digest = hashlib.sha256()

    def read(data: bytes) -> None:
        digest.update(data)
        seen(len(data))

    merged = merge(_each(blocks(path, read), head.plan, path.stat().st_size), held_out)
    head.sha256 = digest.hexdigest()
    return head, _usable(head, merged, strict=not deep)


def _head(records: Records, plan: Callable[..., Plan]) -> Head:
    detected = detect(records)
    method = METHOD_OF_FORMAT.get(detected.format, "sft")
    some = records.rows[:: max(1, len(records.rows) // 2000)]
    texts = [text for row in convert_rows(some, detected, shape_of(method)).rows for text in contents(row)]
    made = plan(detected=detected, method=method, script=language_of(texts)[1] if texts else "other")
    return Head(records.path, list(records.rows[0][1]), made, licence=licence_of(records.path, records.rows))


def _usable(head: Head, part: Part, strict: bool) -> Part:
    if part.broken and (strict or not part.rows):
        raise UserError(f"{head.path}{part.broken[0].text}; mend or remove the line")
    if not part.rows:
        kind, tally = max(part.tallies.items(), key=lambda item: item[1].count)
        where = (
            f"{head.path}:{tally.lines[0]}" if head.unit == "line" else f"{head.path}, row {tally.lines[0]}"
        )
        raise UserError(
            f"{where}: no row can be used ({kind.replace('_', ' ')}); check the columns of this file"
        )
    return part


def _each(sources: Iterator[Any], plan: Plan, size: int) -> Iterator[Part]:
    """Parts in the file's order. A pool holds few parts at a time, so that memory does not grow with the file."""
    cores = min(len(os.sched_getaffinity(0)), 4)
    if size < LARGE or cores < 2:
        yield from (measure(source, plan) for source in sources)
        return
    # A fresh process each: a fork of one with threads (the page's server) can hang.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(cores, mp_context=spawn, initializer=_end_with_parent)
    try:
        with _deaf_to_ctrl_c():
            waiting: list[Future[Part]] = [
                pool.submit(measure, source, plan) for source in islice(sources, 2 * cores)
            ]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [pool.submit(measure, source, plan) for source in islice(sources, 1)]
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that are begun within leave Ctrl-C to their parent; it comes to that once this is left."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """A worker ends when its parent is gone, however that ended."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def merge(parts: Iterable[Part], held_out: Part | None = None) -> Part:
    """One Part of all, in order. What it holds is bounded: beyond LIMIT rows are counted, and sought in `held_out`."""
    merged, columns, sketches = Part(), {name: Column(dtype) for name, dtype in ARRAYS.items()}, None
    leaks = [np.zeros(0, np.int64)]
    for number, part in enumerate(parts, start=1):
        if held_out is not None and part.sketches is not None:
            leaks.append(part.numbers[leaked(part, held_out)])
        room = LIMIT - len(columns["numbers"])
        for name, column in columns.items():
            column.add(getattr(part, name)[:room])
        if part.sketches is not None:
            sketches = sketches or (Column(np.uint8, near.HASHES), Column(np.uint32, near.BANDS))
            room = near.LIMIT - len(sketches[0])
            sketches[0].add(part.sketches.signatures[:room])
            sketches[1].add(part.sketches.bands[:room])
        for table in ("tallies", "schemas", "types"):
            mine = getattr(merged, table)
            for kind, tally in getattr(part, table).items():
                mine[kind].merge(tally) if kind in mine else mine.update({kind: tally})
        _count(merged, part, number)
    for name, column in columns.items():
        setattr(merged, name, column.values)
    merged.leaks = np.concatenate(leaks)
    merged.sketches = near.Sketches(sketches[0].values, sketches[1].values) if sketches else None
    return merged


def _count(merged: Part, part: Part, number: int) -> None:
    """What is counted of a part, the `number`th."""
    merged.read, merged.rows = merged.read + part.read, merged.rows + part.rows
    merged.broken += part.broken[: max(0, 1000 - len(merged.broken))]
    merged.mended["broken"] += len(part.broken)
    merged.mended += part.mended
    if len(merged.labels) <= DISTINCT:
        merged.labels += part.labels
        merged.label_lines = part.label_lines | merged.label_lines
    merged.verdicts += part.verdicts
    merged.several, merged.tools = merged.several + part.several, merged.tools + part.tools
    merged.json_like += part.json_like
    # Few texts of many parts say more of the language than many of the first.
    merged.texts = [*merged.texts, *part.texts][: 50 * max(20, min(number, MOST_PARTS))]
    merged.labelled += part.labelled if len(merged.labelled) < 10_000 else []


ARRAYS = {
    "numbers": np.int64, "questions": np.uint64, "answers": np.uint64, "asked": np.uint64, "tokens": np.int32,
    "answer_tokens": np.int32,
}  # fmt: skip


def _profiled(head: Head, part: Part, held_out: tuple[Head, Part] | None) -> DataProfile:
    plan, detected = head.plan, head.plan.detected
    labels = labels_of_part(part, detected)
    language, script = language_of(part.texts)
    again = repeats(part, labels is not None)
    answered = detected.format != "text"
    pairs = part.rows if detected.format == "preference" else 0
    context = Context(
        head.path, detected, plan, part, labels, script, *again, held_out[1] if held_out else None,
        held_out[0].path if held_out else None,
    )  # fmt: skip
    return DataProfile(
        path=str(head.path),
        sha256=head.sha256,
        format=detected.format,
        rows=part.rows,
        read_rows=part.read,
        columns=head.columns,
        text_column=detected.columns.get("text"),
        label_column=detected.columns.get("label"),
        labels=dict(sorted(labels.items(), key=lambda item: -item[1])) if labels else None,
        language=language,
        script=script,
        tokens=_percentiles(part.tokens),
        completion_tokens=_percentiles(part.answer_tokens) if answered else None,
        duplicates=int(again[0].sum()),
        conflicts=int(again[1].sum()) if labels is not None else 0,
        task=_task(detected, part, labels),
        preference_pairs=pairs,
        thumbs_up=part.verdicts[True],
        thumbs_down=part.verdicts[False],
        licence=head.licence[0],
        findings=findings_of(context),
        tokenizer=plan.tokenizer,
        loss_share=float(part.answer_tokens.sum() / max(1, part.tokens.sum())) if answered else 1.0,
    )


def labels_of_part(part: Part, detected: Detected) -> dict[str, int] | None:
    """Rows by label, None where answers are no labels."""
    if detected.format in ("preference", "kto", "text", "bio", "spans") or len(part.labels) > DISTINCT:
        return None
    return dict(part.labels) if labels_of(part.labels, detected.format) else None


def _percentiles(values: np.ndarray) -> Lengths:
    ordered = np.sort(values)
    at = lambda share: int(ordered[min(len(ordered) - 1, int(share * len(ordered)))])
    bounds = 2 ** np.arange(4, max(5, int(ordered[-1] - 1).bit_length() + 1))
    upto = ordered.searchsorted(bounds, side="right")
    histogram = tuple(
        {"to": int(bound), "rows": int(rows)}
        for bound, rows in zip(bounds, np.diff(upto, prepend=0), strict=True)
    )
    first = next(i for i, one in enumerate(histogram) if one["rows"])
    return Lengths(at(0.5), at(0.95), int(ordered[-1]), float(ordered.mean()), histogram[first:])


def repeats(part: Part, labelled: bool) -> tuple[np.ndarray, np.ndarray]:
    """(rows that repeat an earlier row, rows whose question has another answer).

    Of the second all rows where answers are labels, since one of them is wrong; else those beyond the first.
    """
    order = np.lexsort((part.answers, part.questions))  # stable: the first of equal rows stays the first
    question = part.questions[order]
    begins = np.concatenate([[True], question[1:] != question[:-1]])
    answer = part.answers[order]
    new = begins | np.concatenate([[True], answer[1:] != answer[:-1]])
    del question, answer  # a file of many millions of rows is measured in little memory
    repeated = np.zeros(len(order), bool)
    repeated[order[~new]] = True
    starts = np.flatnonzero(begins)
    several = np.add.reduceat(new, starts, dtype=np.int32) > 1
    sizes = np.diff(np.append(starts, len(order)))
    variants = np.zeros(len(order), bool)
    variants[order[np.repeat(several, sizes)]] = True
    if labelled:
        return repeated, variants
    variants[np.minimum.reduceat(order, starts)] = False  # the row that asks first
    return repeated, variants & ~repeated


def _task(detected: Detected, part: Part, labels: dict[str, int] | None) -> str | None:
    if detected.format in TASK_OF_FORMAT:
        return TASK_OF_FORMAT[detected.format]
    if labels:
        return "classification"
    if part.tools:
        return "tool-use"
    return "chat" if part.several > 0.2 * part.rows else "generation"
