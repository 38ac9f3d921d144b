"""A data file measured before anything is trained on it: format, labels, language, lengths, faults.

What `tunesmith data check` prints and what the advice starts from. Torch-free; 9,600 rows take about a second.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from trainer.data.convert import Converted, Row, contents, convert
from trainer.data.detect import Detected, detect
from trainer.data.findings import Finding, finding
from trainer.data.language import language_of, token_estimate
from trainer.data.read import Records, read_records
from trainer.data.splits import fold, key
from trainer.data.stage import label_set

METHOD_OF_FORMAT = {"text": "cpt", "preference": "dpo", "kto": "kto"}
TASK_OF_FORMAT = {"text": "domain-knowledge", "preference": "preference", "kto": "preference"}


@dataclass(frozen=True)
class Lengths:
    """Tokens a row: median, 95th percentile, maximum."""

    p50: int
    p95: int
    max: int


@dataclass(frozen=True)
class DataProfile:
    """What a file holds. `rows` are those that can be trained on; `read_rows` all that the file has.

    `tokens` are whole rows and `completion_tokens` the answers, estimated (language.token_estimate), without
    what a chat template adds. `labels` counts rows by label, None where answers are no labels. `task` is a
    guess in the words of the advice. `duplicates` are rows beyond the first of the same question and answer.
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
    findings: list[Finding] = field(default_factory=list)


def profile(path: Path) -> DataProfile:
    """Measure a file. Raises UserError, "file:line: what; what to do", where it cannot be read at all."""
    records = read_records(Path(path))
    detected = detect(records)
    converted = convert(records, detected, METHOD_OF_FORMAT.get(detected.format, "sft"))
    rows = converted.rows
    labels = label_set(rows, detected.format)
    language, script = language_of([text for row in rows for text in contents(row)])
    whole, answers = _lengths(rows, script)
    repeats, conflicts = _repeats(converted, labels is not None)
    counts = Counter(row["completion"][-1]["content"] for row in rows) if labels else None
    verdicts = Counter(row["label"] for row in rows) if detected.format == "kto" else Counter()
    return DataProfile(
        path=str(path),
        sha256=records.sha256,
        format=detected.format,
        rows=len(rows),
        read_rows=len(records.rows),
        columns=list(records.rows[0][1]),
        text_column=detected.columns.get("text"),
        label_column=detected.columns.get("label"),
        labels=dict(counts.most_common()) if counts else None,
        language=language,
        script=script,
        tokens=whole,
        completion_tokens=answers,
        duplicates=len(repeats),
        conflicts=len(conflicts),
        task=_task(detected, rows, labels),
        preference_pairs=len(rows) if detected.format == "preference" else 0,
        thumbs_up=verdicts[True],
        thumbs_down=verdicts[False],
        findings=_findings(records, detected, converted, counts, script, repeats, conflicts),
    )


def _lengths(rows: list[Row], script: str) -> tuple[Lengths, Lengths | None]:
    whole, answers = [], []
    for row in rows:
        endings = [row[name] for name in ("completion", "chosen", "rejected") if name in row]
        answer = max((token_estimate(_joined(ending), script) for ending in endings), default=0)
        if endings:
            answers.append(answer)
        head = row["text"] if "text" in row else _joined(row["prompt"])
        whole.append(token_estimate(head, script) + answer)
    return _percentiles(whole), _percentiles(answers) if answers else None


def _joined(messages: list[dict[str, str]]) -> str:
    return "\n".join(message["content"] for message in messages)


def _percentiles(values: list[int]) -> Lengths:
    ordered = sorted(values)
    at = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))]
    return Lengths(at(0.5), at(0.95), ordered[-1])


def _repeats(converted: Converted, labelled: bool) -> tuple[list[int], list[int]]:
    """Lines that repeat an earlier row, and lines whose question has another label elsewhere."""
    answers: dict[str, set[str]] = defaultdict(set)
    lines: dict[str, list[int]] = defaultdict(list)
    repeats = []
    for row, number in zip(converted.rows, converted.numbers, strict=True):
        question = key(row)
        answer = fold("\n".join(contents({**row, "prompt": []})) if "prompt" in row else "")
        if answer in answers[question] and "label" not in row:
            repeats.append(number)
        answers[question].add(answer)
        lines[question].append(number)
    conflicts = [
        n for question, found in answers.items() if labelled and len(found) > 1 for n in lines[question]
    ]
    return repeats, sorted(conflicts)


def _task(detected: Detected, rows: list[Row], labels: list[str] | None) -> str | None:
    if detected.format in TASK_OF_FORMAT:
        return TASK_OF_FORMAT[detected.format]
    if labels:
        return "classification"
    if any("tools" in row for row in rows[:100]):
        return "tool-use"
    several = sum(sum(message["role"] == "user" for message in row["prompt"]) > 1 for row in rows)
    return "chat" if several > 0.2 * len(rows) else "generation"


def _findings(
    records: Records, detected: Detected, converted: Converted, labels: Counter[str] | None, script: str,
    repeats: list[int], conflicts: list[int],
) -> list[Finding]:  # fmt: skip
    found = [finding(kind, count) for kind, count in records.mended.items()]
    found += [finding(kind, len(lines), lines) for kind, lines in converted.faults.items()]
    if repeats:
        found.append(finding("duplicates", len(repeats), repeats))
    if conflicts:
        found.append(finding("label_conflict", len(conflicts), conflicts))
    if (
        detected.format == "text+label"
        and len({row["completion"][0]["content"] for row in converted.rows}) == 1
    ):
        found.append(finding("one_label", len(converted.rows)))
    if labels:
        rare = sum(count < 10 for count in labels.values())
        spellings = Counter(fold(label) for label in labels)
        variants = sum(spellings[fold(label)] > 1 for label in labels)
        found += [finding("rare_label", rare)] if rare else []
        found += [finding("label_spelling", variants)] if variants else []
    if script == "mixed" and any("\u3400" <= char <= "\u9fff" for char in contents(converted.rows[0])[0]):
        found.append(finding("mixed_script", len(converted.rows)))
    if detected.unused:
        found.append(finding("unused_column", len(detected.unused)))
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(found, key=lambda item: (order[item.severity], -item.rows))
