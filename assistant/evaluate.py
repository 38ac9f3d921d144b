"""How good are the answers? Asks each question of a set and counts. `tunesmith eval-answers`, tests/bench/answers.py.

A set is YAML (a list) or JSON lines; a row has
  q      the question
  lang   the reader's language, zh-TW, zh-CN or en (default: the question's)
  kind   any word to count by; `unanswerable` means that the question must be refused
  gold   a regular expression, case ignored, for the fact that the answer must hold (optional)
  id     any word to find the row by (default: its place, from 1)
Other keys are left alone. Every figure is a count over the rows that come back with it.
"""

from __future__ import annotations

import json
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from assistant.answer import simplified, stream, to_json
from assistant.citations import is_claim, plain, sentences
from assistant.llm import Settings
from assistant.markers import marker_numbers, strip_markers
from assistant.types import Answer
from ingest.chunker import Chunk
from ingest.index import Index
from ingest.text import detect_lang
from kb.errors import UserError

UNANSWERABLE = "unanswerable"
JUDGED = 0.8  # share of a sentence's words that the cited passages must hold, by the second judge
_BULLET = re.compile(r"^\s*(?:[-*+]|\d{1,2}[.)、])\s+")
_WORD = re.compile(r"[a-z0-9][a-z0-9.,_%+-]*|[\u3400-\u9fff]+")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
Row = dict[str, Any]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Asked:
    """A question of a set, see the top of this file."""

    id: str
    q: str
    lang: str
    kind: str
    gold: str


def load(path: Path) -> list[Asked]:
    """The questions of a file. Raises UserError, with file and row, for what is no such set."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix in (".jsonl", ".ndjson"):
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; give a file of questions, .yaml or .jsonl") from None
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as questions ({' '.join(str(error).split())[:160]})") from None
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path}: expected a list of questions, each {{q: …}}")
    return [_asked(path, number, row) for number, row in enumerate(rows, 1)]


def _asked(path: Path, number: int, row: Any) -> Asked:
    if not isinstance(row, dict) or not isinstance(row.get("q"), str) or not row["q"].strip():
        raise UserError(f'{path}: row {number} has no question; write it as {{q: "…"}}')
    values = {key: str(row.get(key) or "") for key in ("id", "lang", "kind", "gold")}
    try:
        re.compile(values["gold"])
    except re.error as error:
        raise UserError(f"{path}: row {number}: gold is no regular expression ({error})") from None
    values["id"] = values["id"] or str(number)
    values["lang"] = values["lang"] or detect_lang(row["q"])
    return Asked(q=row["q"], **values)


def evaluate(index: Index, asked: Sequence[Asked], settings: Settings, progress: Progress) -> dict[str, Any]:
    """The figures of all, by language and by kind, and the rows that they are counted from.

    Raises BackendError when the backend asked for is not there.
    """
    index.embedder.embed(["the first text loads the model, which is no part of an answer's time"])
    rows = []
    for number, one in enumerate(asked, 1):
        progress(number - 1, len(asked), one.q[:40])
        rows.append(measured(index, one, settings))
        progress(number, len(asked), one.q[:40])
    groups = {key: sorted({row[key] for row in rows if row[key]}) for key in ("lang", "kind")}
    return {
        "backends": sorted({row["backend"] for row in rows}),
        "models": sorted({row["model"] for row in rows if row["model"]}),
        "all": scores(rows),
        **{f"by_{key}": {name: scores([row for row in rows if row[key] == name]) for name in names}
           for key, names in groups.items()},
        "rows": rows,
    }  # fmt: skip


def measured(index: Index, one: Asked, settings: Settings) -> Row:
    """One question asked: its answer, each sentence judged twice, and the seconds to its first and last words."""
    start, first, answer = time.perf_counter(), None, None
    for part in stream(index, one.q, (), one.lang, settings):
        first = first if first is not None or not part.text else time.perf_counter() - start
        answer = part
    seconds = time.perf_counter() - start
    assert isinstance(answer, Answer)
    passages = {chunk.id: chunk for chunk in index.get([citation.id for citation in answer.citations])}
    quotes = "\n".join(citation.quote for citation in answer.citations)
    held = lambda text: bool(re.search(one.gold, text, re.IGNORECASE))
    judged = bool(one.gold) and not answer.refused
    return {
        "id": one.id, "q": one.q, "lang": one.lang, "kind": one.kind, "answerable": one.kind != UNANSWERABLE,
        "has_gold": bool(one.gold), "refused": answer.refused, "backend": answer.backend, "model": answer.model, "error": answer.error,
        "gold_in_answer": held(f"{answer.text}\n{quotes}") if judged else None,
        "gold_in_cited": held("\n".join(chunk.text for chunk in passages.values())) if judged else None,
        "sentences": [] if answer.refused else judge(answer, passages),
        "first_seconds": round(first if first is not None else seconds, 4), "seconds": round(seconds, 4),
        "answer": to_json(answer),
    }  # fmt: skip


def judge(answer: Answer, passages: dict[str, Chunk]) -> list[Row]:
    """Each sentence of an answer that claims something, by two judges.

    supported: the answerer's own check (citations.support). holds: another one, that shares no code with it: every
    quote stands in its passage word for word, and the cited passages hold at least JUDGED of the sentence's words
    (Latin words, pairs of Han characters) and all of its numbers.
    """
    by_marker = {citation.marker: citation for citation in answer.citations}
    found = []
    for sentence in claims(answer.text):
        cited = [by_marker[n] for n in marker_numbers(sentence) if n in by_marker]
        frame = "\n".join(f"{passages[c.id].heading}\n{passages[c.id].text}" for c in cited)
        frame = f"{frame}\n{simplified(frame)}" if answer.lang == "zh-CN" else frame
        exact = all(_flat(c.quote) in _flat(plain(passages[c.id].text)) for c in cited)
        said, held = words(plain(strip_markers(sentence))), words(plain(frame))
        share = len(said & held) / len(said) if said else 1.0
        numbers = _numbers(strip_markers(sentence)) <= _numbers(frame)
        found.append({
            "text": sentence, "cited": [c.marker for c in cited],
            "supported": bool(cited) and not any(sentence in other for other in answer.unsupported),
            "holds": bool(cited) and exact and numbers and share >= JUDGED,
            "quoted": exact, "numbers": numbers, "words": round(share, 3),
        })  # fmt: skip
    return found


def claims(text: str) -> list[str]:
    """The sentences of an answer that claim something, as they are shown, without bullets."""
    found = []
    for sentence in sentences(text):
        shown = _BULLET.sub("", sentence).strip()
        if shown and is_claim(shown):
            found.append(shown)
    return found


def words(text: str) -> set[str]:
    """Latin words and pairs of neighbouring Han characters, in lower case; for the second judge."""
    found: set[str] = set()
    for run in _WORD.findall(unicodedata.normalize("NFKC", text).lower()):
        if run[0] < "\u3400":
            found.add(run.rstrip(".,-"))
        else:
            found |= {run[i : i + 2] for i in range(max(1, len(run) - 1))}
    return found


def _numbers(text: str) -> set[str]:
    found = _NUMBER.findall(unicodedata.normalize("NFKC", text))
    return {number.replace(",", "") for number in found}


def _flat(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def scores(rows: Sequence[Row]) -> dict[str, Any]:
    """The figures of some rows; None where nothing is there to count.

    citation_precision: cited sentences that their passage holds, of all cited (own check, second judge);
    citation_recall: sentences with a citation, of all; unsupported: sentences that nothing carries, of all;
    gold: answers that hold the fact asked for, of the answerable questions that name one, refused ones included.
    """
    said = [sentence for row in rows for sentence in row["sentences"]]
    cited = [sentence for sentence in said if sentence["cited"]]
    refused = [row for row in rows if row["refused"]]
    strange = [row for row in rows if not row["answerable"]]
    known = [row for row in rows if row["answerable"]]
    gold = [row for row in known if row["has_gold"]]
    return {
        "questions": len(rows), "answered": len(rows) - len(refused), "sentences": len(said),
        "citation_precision": _share([s["supported"] for s in cited]),
        "citation_precision_second_judge": _share([s["holds"] for s in cited]),
        "citation_recall": _share([bool(s["cited"]) for s in said]),
        "unsupported": _share([not s["supported"] for s in said]),
        "gold_in_answer": _share([bool(row["gold_in_answer"]) for row in gold]),
        "gold_in_cited": _share([bool(row["gold_in_cited"]) for row in gold]),
        "refusal_precision": _share([not row["answerable"] for row in refused]),
        "refusal_recall": _share([row["refused"] for row in strange]),
        "answerable_refused": _share([row["refused"] for row in known]),
        "first_seconds": _quantiles([row["first_seconds"] for row in rows]),
        "seconds": _quantiles([row["seconds"] for row in rows]),
    }  # fmt: skip


def _share(values: list[bool]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def _quantiles(values: list[float]) -> dict[str, float] | None:
    """Median and 95th percentile (nearest rank)."""
    if not values:
        return None
    ordered, top = sorted(values), len(values) - 1
    return {"p50": round(ordered[round(0.5 * top)], 3), "p95": round(ordered[round(0.95 * top)], 3)}
