"""Chunks follow the headings, keep tables and code whole, and keep their ids."""

from dataclasses import replace

import pytest

from ingest.chunker import MAX_SIZE, size, split
from ingest.readers import ASKED, Document, kb_documents

SOURCES = [
    {"key": "peft", "name": "PEFT", "url": "https://example.org/peft", "date": "2026-01-02"},
    {"key": "trl", "name": "TRL", "url": "https://example.org/trl", "date": "2026-01-03"},
]


def document(text: str, **fields) -> Document:
    values = dict(
        id="kb:methods/x:en", title="X", lang="en", text=text, source="kb", page="methods/x", sha256=""
    )
    return Document(**(values | fields))


def test_ids_come_from_anchors_or_headings():
    text = "Lead.\n\n## How much {#rank}\n\nSixteen.\n\n## No anchor here!\n\nText.\n\n## 中文 標題\n\n字。"
    assert [chunk.id for chunk in split(document(text))] == [
        "kb:methods/x:en#top",
        "kb:methods/x:en#rank",
        "kb:methods/x:en#no-anchor-here",
        "kb:methods/x:en#中文-標題",
    ]


def test_a_change_in_one_section_leaves_the_other_ids_alone():
    before = "## A {#a}\n\nOne.\n\n## B {#b}\n\nTwo."
    after = "## New {#new}\n\nZero.\n\n" + before.replace("One.", "First. " * 500)
    ids = {chunk.id for chunk in split(document(after))}
    assert {"kb:methods/x:en#a", "kb:methods/x:en#a/2", "kb:methods/x:en#b"} <= ids


def test_ids_are_unique_even_where_headings_repeat():
    ids = [chunk.id for chunk in split(document("## Same\n\nOne.\n\n## Same\n\nTwo.\n\n# X\n\nThree."))]
    assert len(ids) == len(set(ids)) == 3


def test_the_heading_is_the_path_and_subsections_keep_the_anchor():
    text = "## Rank {#rank}\n\nA.\n\n### Large models\n\nB.\n\n## Alpha\n\nC."
    chunks = split(document(text))
    assert [chunk.heading for chunk in chunks] == ["X › Rank", "X › Rank › Large models", "X › Alpha"]
    assert [chunk.anchor for chunk in chunks] == ["rank", "rank", "alpha"]
    assert chunks[1].indexed() == "X › Rank › Large models\nB." and chunks[1].text == "B."


def test_footnotes_become_the_chunks_own_sources():
    text = "## A {#a}\n\nRank 16[^peft].\n\n## B {#b}\n\nBeta[^trl], and a note[^1]."
    first, second = split(document(text, sources=SOURCES))
    assert first.text == "Rank 16." and [source["name"] for source in first.sources] == ["PEFT"]
    assert second.text == "Beta, and a note[^1]." and [source["name"] for source in second.sources] == ["TRL"]
    assert set(first.sources[0]) == {"name", "url", "date"}


def test_a_section_that_cites_nothing_has_the_sources_of_its_page():
    assert len(split(document("## A\n\nText.", sources=SOURCES))[0].sources) == 2


def test_a_table_stays_whole_and_a_long_one_repeats_its_header():
    rows = "\n".join(f"| model {i} | {i} GB of memory on one card |" for i in range(10))
    short = f"Before.\n\n| name | memory |\n| --- | --- |\n{rows}\n\nAfter."
    assert len(split(document(short))) == 1
    long = short.replace(rows, "\n".join([rows] * 20))
    tables = [chunk.text for chunk in split(document(long)) if "| model" in chunk.text]
    assert len(tables) > 1
    assert all("| name | memory |\n| --- | --- |\n| model" in text for text in tables)
    assert sum(text.count("| model") for text in tables) == 200


def test_a_pipe_in_a_sentence_is_no_table():
    text = "Use a | b here.\n\nAnother | sentence."
    assert split(document(text))[0].text == text


def test_code_stays_whole_and_its_comments_are_no_headings():
    code = "```python\n# not a heading\nx = 1\n\n| y |\n```"
    chunks = split(document(f"## Run {{#run}}\n\nDo this:\n\n{code}\n\nDone."))
    assert len(chunks) == 1 and code in chunks[0].text


def test_long_code_is_cut_between_lines_inside_fences():
    code = "```python\n" + "\n".join(f"value_{i} = {i}" for i in range(400)) + "\n```"
    texts = [chunk.text for chunk in split(document(code))]
    assert len(texts) > 1
    assert all(text.startswith("```python\n") and text.endswith("\n```") for text in texts)
    assert sum(text.count("value_") for text in texts) == 400


@pytest.mark.parametrize("sentence", ["這是一個句子，講的是微調。", "This is a sentence about tuning. "])
def test_a_long_paragraph_is_cut_at_sentences_and_loses_nothing(sentence):
    chunks = split(document(sentence * 300))
    assert len(chunks) > 1 and all(size(chunk.text) <= MAX_SIZE for chunk in chunks)
    assert all(chunk.text.endswith(sentence.strip()) for chunk in chunks)
    assert sum(chunk.text.count(sentence.strip()) for chunk in chunks) == 300


def test_a_paragraph_of_usual_length_is_one_chunk():
    assert len(split(document("字" * 790))) == 1


@pytest.mark.parametrize(
    "text", ["", "\n\n", "# Only a heading", "```\nnever closed", "#" * 1000, "|\n|-\n|"]
)
def test_odd_markdown_does_not_break(text):
    assert isinstance(split(document(text)), list)


def test_the_same_document_gives_the_same_chunks():
    page = kb_documents()[0]
    assert split(page) == split(replace(page))


def test_every_anchored_section_of_a_page_is_a_chunk_with_a_source():
    for page in kb_documents():
        chunks = split(page)
        if page.id.startswith(ASKED):  # questions claim nothing
            assert {chunk.page for chunk in chunks} == {page.page}
            continue
        assert all(chunk.text.strip() and chunk.sources and chunk.lang == page.lang for chunk in chunks)
        assert not any("[^" in chunk.text or "{#" in chunk.text or "<!--" in chunk.text for chunk in chunks)
