"""Passages: what was found with what stands around it, once, within the size of a passage."""

from __future__ import annotations

from contextlib import closing

import pytest

from assistant import rerank
from assistant.markers import Cited
from assistant.passages import widened
from assistant.retrieve import search
from ingest.chunker import MAX_SIZE, size
from ingest.index import Index
from ingest.sync import add_paths, build_kb


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("passages")
    build_kb(folder / "index")
    (folder / "a.md").write_text("# Zoo\n\n## Lion\n\nA lion sleeps.\n\n## Quagga\n\nA quagga is extinct.\n")
    add_paths(folder / "index", [folder / "a.md"])
    with closing(Index.open(folder / "index")) as opened:
        yield opened


def test_a_small_section_comes_with_its_neighbours_in_reading_order(index):
    (hit,) = widened(index, search(index, "quagga", k=3, source=None)[:1], 1)
    assert hit.text == "### Lion\n\nA lion sleeps.\n\n### Quagga\n\nA quagga is extinct."
    assert hit.anchor == "quagga" and [part.anchor for part in hit.parts] == ["lion", "quagga"]


def test_passages_keep_to_their_size_and_say_nothing_twice(index):
    for question in ("learning rate for LoRA", "過擬合怎麼辦", "DPO beta"):
        hits = search(index, question, k=20)
        passages = widened(index, hits, 5)
        assert len(passages) == 5 and passages[0].id == hits[0].id
        ids = [part.id for passage in passages for part in passage.parts or [passage]]
        assert len(ids) == len(set(ids))
        for passage in passages:
            assert sum(size(part.text) for part in passage.parts) <= MAX_SIZE
            urls = [source["url"] for source in passage.sources]
            assert len(urls) == len(set(urls))


def test_a_citation_of_a_widened_passage_leads_to_the_section_with_the_quote(index):
    (passage,) = widened(index, search(index, "lion", k=1), 1)
    cited = Cited([passage])
    cited.feed("A quagga is extinct [1].")
    cited.finish()
    assert [(c.anchor, c.heading) for c in cited.citations] == [("quagga", "Zoo › Quagga")]


def test_the_search_command_gives_passages(index):
    found = rerank.search(index, "quagga", 2)
    assert found[0].parts and len(found) == 2
