"""The questions that search is measured on: their gold still matches the pages as they are."""

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from ingest.chunker import split
from ingest.readers import ASKED, kb_documents

HERE = Path(__file__).parent
SETS = {name: yaml.safe_load((HERE / f"{name}.yaml").read_text("utf-8")) for name in ("golden", "heldout")}


@cache
def passages() -> dict[tuple[str, str], list[str]]:
    """Texts by page and language, as search shows them (questions that lead to a section are none)."""
    found: dict[tuple[str, str], list[str]] = {}
    for document in kb_documents():
        if not document.id.startswith(ASKED):
            for chunk in split(document):
                found.setdefault((chunk.page, chunk.lang), []).append(chunk.text)
    return found


def unmatched(row: dict, lang: str) -> list[str]:
    """The row's pages of which no passage in this language matches its gold."""
    holds = re.compile(row["gold"], re.IGNORECASE)
    return [page for page in row["pages"] if not any(holds.search(p) for p in passages()[page, lang])]


@pytest.mark.parametrize("lang", ["en", "zh-TW"])
@pytest.mark.parametrize("name", SETS)
def test_each_gold_matches_a_passage_of_its_pages_in_both_languages(name, lang):
    rows = [row for row in SETS[name] if "gold" in row]
    assert [row["id"] for row in rows if len(unmatched(row, lang)) == len(row["pages"])] == []


@pytest.mark.parametrize("lang", ["en", "zh-TW"])
def test_no_heldout_question_names_a_page_in_vain(lang):
    rows = [row for row in SETS["heldout"] if "gold" in row]
    assert {row["id"]: pages for row in rows if (pages := unmatched(row, lang))} == {}


@pytest.mark.parametrize("name", SETS)
def test_a_question_has_a_gold_and_pages_or_says_that_it_has_none(name):
    rows = SETS[name]
    assert len({row["id"] for row in rows}) == len({row["q"] for row in rows}) == len(rows)
    for row in rows:
        without = row.get("missing") or row["kind"] == "unanswerable"
        assert without != bool(row.get("gold") and row.get("pages")), row["id"]


def test_the_heldout_questions_are_fifty_in_each_script():
    langs = [row["lang"] for row in SETS["heldout"]]
    assert {lang: langs.count(lang) for lang in set(langs)} == {"zh-TW": 50, "zh-CN": 50, "en": 50}
