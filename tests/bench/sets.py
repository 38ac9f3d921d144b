"""The question sets that search is measured on: documents, questions, and what counts as found. Not a benchmark itself.

A document is (name, text); a question carries `found(name, passage) -> bool`. Real data from shared/data, and the
golden and held-out sets of tests/assistant over the knowledge base.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import log2
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from ingest.text import to_simplified  # noqa: E402
from kb.pages import pages  # noqa: E402

DATA = ROOT.parent / "shared" / "data"
GOLDEN = ROOT / "tests" / "assistant" / "golden.yaml"
HELDOUT = ROOT / "tests" / "assistant" / "heldout.yaml"
SQUAD = {
    "xquad_zh": "xquad/xquad.zh.json",
    "xquad_en": "xquad/xquad.en.json",
    "drcd": "drcd_dev/DRCD_dev.json",
}
QUIZ = re.compile(r"^### \d+\.\s*(.+?)\s*$", re.MULTILINE)
MARKUP = re.compile(r"<!--.*?-->|<[A-Za-z][^>]*>|</\w+>", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """`found` tells of a retrieved passage and the name of its document whether it answers."""

    text: str
    lang: str
    found: Callable[[str, str], bool]
    kind: str = ""
    id: str = ""
    pages: tuple[str, ...] = ()  # ids of the pages of the knowledge base that hold the answer


@dataclass(frozen=True)
class QuestionSet:
    name: str
    documents: list[tuple[str, str]]
    questions: list[Question]
    over_kb: bool = False  # the documents are the pages of the knowledge base


def squad(name: str, simplified: bool = False) -> QuestionSet:
    """A SQuAD file: one document a paragraph, a question finds its own paragraph."""
    documents, questions = [], []
    lang = "en" if name.endswith("en") else "zh-CN" if simplified or name.endswith("zh") else "zh-TW"
    for article in json.loads((DATA / SQUAD[name]).read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            document = f"{len(documents):04}.txt"
            documents.append((document, paragraph["context"]))
            for qa in paragraph["qas"]:
                text = to_simplified(qa["question"]) if simplified else qa["question"]
                questions.append(Question(text, lang, lambda n, _, d=document: n == d))
    return QuestionSet(name + "_simplified" * simplified, documents, questions)


def hf_course(lang: str) -> QuestionSet:
    """The course in one language without its quizzes; a quiz question finds a page of its own chapter."""
    documents, questions = [], []
    for path in sorted((DATA / "hf_course" / "chapters" / lang).glob("chapter*/*.mdx")):
        text = path.read_text(encoding="utf-8")
        if "<Question" not in text:
            documents.append((f"{path.parent.name}-{path.stem}.md", MARKUP.sub("", text)))
            continue
        chapter = path.parent.name
        for asked in QUIZ.findall(text):
            questions.append(Question(asked, lang, lambda n, _, c=chapter: n.startswith(c + "-")))
    return QuestionSet(f"hf_course_{lang}", documents, questions)


def golden(split: str | None = None) -> QuestionSet:
    """The golden questions that have an answer, over the pages of both languages."""
    rows = [row for row in golden_rows(split) if row["kind"] != "unanswerable"]
    return _over_pages("golden" + (f"_{split}" if split else ""), rows)


def heldout(_split: str | None = None) -> QuestionSet:
    """The held-out questions, which have no parts; one that no page answers is never found."""
    return _over_pages("heldout", rows_of(HELDOUT))


def golden_rows(split: str | None = None) -> list[dict]:
    return [row for row in rows_of(GOLDEN) if split in (None, row["split"])]


def rows_of(file: Path) -> list[dict]:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _over_pages(name: str, rows: list[dict]) -> QuestionSet:
    documents = [(f"{page.id}.{page.lang}.md", page.body) for page in pages()]
    questions = []
    for row in rows:
        ids = tuple(row["pages"])
        holds = re.compile(row.get("gold", r"(?!)"), re.IGNORECASE)  # (?!) matches nothing
        found = lambda n, p, holds=holds, ids=ids: n.rsplit(".", 2)[0] in ids and bool(holds.search(p))
        questions.append(Question(row["q"], row["lang"], found, row["kind"], row["id"], ids))
    return QuestionSet(name, documents, questions, over_kb=True)


def scores(ranks: list[int | None]) -> dict[str, float]:
    """nDCG@10 (one relevant passage), hit@5 and MRR@10 from the rank, from 1, of the first that answers."""
    n = len(ranks) or 1
    top = [rank for rank in ranks if rank and rank <= 10]
    return {
        "ndcg@10": round(sum(1 / log2(rank + 1) for rank in top) / n, 4),
        "hit@5": round(sum(rank <= 5 for rank in top) / n, 4),
        "mrr@10": round(sum(1 / rank for rank in top) / n, 4),
    }


def rank_of(question: Question, retrieved: list[tuple[str, str]]) -> int | None:
    """Place, from 1, of the first of the retrieved (name, passage) that answers."""
    return next((at for at, one in enumerate(retrieved, 1) if question.found(*one)), None)
