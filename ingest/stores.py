"""Words in Tantivy: the lexical half of the index. It only ever follows the manifest."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

from ingest.chunker import Chunk
from ingest.text import tokens

K1 = 1.2  # Tantivy's BM25: k1 1.2, b 0.75


class Words:
    """BM25 over the tokens of ingest/text.py. One process at a time may create it. `reload` shows what another process has committed."""

    def __init__(self, folder: Path):
        import tantivy

        folder.mkdir(parents=True, exist_ok=True)
        schema = (
            tantivy.SchemaBuilder()
            .add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
            .add_text_field("document", tokenizer_name="raw", index_option="basic")
            .add_text_field("source", tokenizer_name="raw", index_option="basic")
            .add_integer_field("modified", fast=True)
            .add_text_field("body", tokenizer_name="whitespace", index_option="freq")
            .build()
        )
        self._folder = folder
        self._index = tantivy.Index(schema, path=str(folder))
        self._index.config_reader("manual")

    def reload(self) -> None:
        self._index.reload()

    def replace(self, documents: list[str], chunks: list[Chunk]) -> None:
        """Take out what these documents had and add these chunks, in one commit."""
        import tantivy

        sweep(self._folder)
        writer = self._index.writer(heap_size=64_000_000, num_threads=1)
        for document in documents:
            writer.delete_documents_by_term("document", document)
        for chunk in chunks:
            entry = tantivy.Document()
            entry.add_text("id", chunk.id)
            entry.add_text("document", chunk.document)
            for place in _places(chunk.source):
                entry.add_text("source", place)
            entry.add_integer("modified", _day(chunk.modified))
            entry.add_text("body", " ".join(tokens(chunk.indexed())))
            writer.add_document(entry)
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()

    def search(
        self, weights: dict[str, float], limit: int, source: str | None = None, since: date | None = None
    ) -> list[tuple[str, float]]:
        """(chunk id, weighted BM25) of the best `limit` chunks that hold at least one of the terms."""
        import tantivy

        query, schema = tantivy.Query, self._index.schema
        terms = [
            (tantivy.Occur.Should, query.boost_query(query.term_query(schema, "body", term, "freq"), weight))
            for term, weight in weights.items()
        ]
        if not terms:
            return []
        wanted = query.boolean_query(terms)
        within = []
        if source is not None:
            within.append(query.term_query(schema, "source", source, "basic"))
        if since is not None:
            integer = tantivy.FieldType.Integer
            within.append(query.range_query(schema, "modified", integer, since.toordinal(), None))
        if within:
            musts = [wanted, *(query.const_score_query(part, 0.0) for part in within)]
            wanted = query.boolean_query([(tantivy.Occur.Must, part) for part in musts])
        searcher = self._index.searcher()
        found = searcher.search(wanted, limit).hits
        return [(searcher.doc(address).get_first("id"), score) for score, address in found]

    def count(self) -> int:
        """Number of chunks."""
        return self._index.searcher().num_docs

    def holding(self, term: str) -> int:
        """Number of chunks that hold a term."""
        return self._index.searcher().doc_freq("body", term)


def sweep(folder: Path) -> None:
    """Take away deletion files of a writer that was killed before its commit.

    Tantivy counts its operations from the last commit on, so the next commit would give a file the same name
    and be refused. Only the holder of the index's lock may call this.
    """
    meta = folder / "meta.json"
    if not meta.exists():
        return
    segments = json.loads(meta.read_text(encoding="utf-8"))["segments"]
    committed = {
        f"{segment['segment_id'].replace('-', '')}.{segment['deletes']['opstamp']}.del"
        for segment in segments
        if segment.get("deletes")
    }
    for file in folder.glob("*.del"):
        if file.name not in committed:
            file.unlink(missing_ok=True)


def _places(source: str) -> list[str]:
    """The source and every folder above it, so that a filter by folder is one term."""
    path = Path(source)
    return [source, *(str(parent) for parent in path.parents if path.is_absolute())]


def _day(modified: str) -> int:
    """An ISO date as a number that can be compared; what has none lies before every date."""
    return date.fromisoformat(modified).toordinal() if modified else 0
