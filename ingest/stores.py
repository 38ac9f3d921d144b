"""The two stores behind the index: words in Tantivy, vectors in Chroma. Both only ever follow the manifest."""

from __future__ import annotations

import logging
import threading
from functools import cache
from math import log
from pathlib import Path

import numpy as np

from ingest.chunker import Chunk
from ingest.text import tokens

K1 = 1.2  # Tantivy's BM25: k1 1.2, b 0.75


class Words:
    """BM25 over the tokens of ingest/text.py. `reload` shows what another process has committed."""

    def __init__(self, folder: Path):
        import tantivy

        folder.mkdir(parents=True, exist_ok=True)
        schema = (
            tantivy.SchemaBuilder()
            .add_text_field("id", stored=True, tokenizer_name="raw", index_option="basic")
            .add_text_field("document", tokenizer_name="raw", index_option="basic")
            .add_text_field("source", tokenizer_name="raw", index_option="basic")
            .add_text_field("body", tokenizer_name="whitespace", index_option="freq")
            .build()
        )
        self._index = tantivy.Index(schema, path=str(folder))
        self._index.config_reader("manual")

    def reload(self) -> None:
        self._index.reload()

    def replace(self, documents: list[str], chunks: list[Chunk]) -> None:
        """Take out what these documents had and add these chunks, in one commit."""
        import tantivy

        writer = self._index.writer(heap_size=64_000_000, num_threads=1)
        for document in documents:
            writer.delete_documents_by_term("document", document)
        for chunk in chunks:
            entry = tantivy.Document()
            entry.add_text("id", chunk.id)
            entry.add_text("document", chunk.document)
            for place in _places(chunk.source):
                entry.add_text("source", place)
            entry.add_text("body", " ".join(tokens(chunk.indexed())))
            writer.add_document(entry)
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()

    def search(self, weights: dict[str, float], limit: int, source: str | None) -> list[tuple[str, float]]:
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
        if source is not None:
            within = query.const_score_query(query.term_query(schema, "source", source, "basic"), 0.0)
            wanted = query.boolean_query([(tantivy.Occur.Must, wanted), (tantivy.Occur.Must, within)])
        searcher = self._index.searcher()
        found = searcher.search(wanted, limit).hits
        return [(searcher.doc(address).get_first("id"), score) for score, address in found]

    def idf(self, terms: list[str]) -> dict[str, float]:
        """Inverse document frequency as BM25 has it, ln(1 + (N - n + .5) / (n + .5)); 0 for a term that is nowhere."""
        searcher = self._index.searcher()
        total = searcher.num_docs
        counts = {term: searcher.doc_freq("body", term) for term in terms}
        return {
            t: log(1 + (total - n + 0.5) / (n + 0.5)) if 0 < n <= total else 0.0 for t, n in counts.items()
        }


def _places(source: str) -> list[str]:
    """The source and every folder above it, so that a filter by folder is one term."""
    path = Path(source)
    return [source, *(str(parent) for parent in path.parents if path.is_absolute())]


class Vectors:
    """Cosine search in Chroma, one client a folder in this process.

    Chroma reads stale when another process has written, and a stale writer would lose the other's rows:
    so every call says the manifest's generation, and the client is opened anew when that is not its own.
    """

    def __init__(self, folder: Path):
        self._folder, self._generation = folder, -1
        self._client = self._collection = None
        self._lock = threading.RLock()

    def _at(self, generation: int):
        if self._collection is None or generation != self._generation:
            self.close()
            import chromadb
            from chromadb.config import Settings

            logging.getLogger("chromadb").setLevel(logging.ERROR)
            self._client = chromadb.PersistentClient(str(self._folder), Settings(anonymized_telemetry=False))
            # embedding_function=None: the default one would try to download a model.
            self._collection = self._client.get_or_create_collection(
                "chunks", embedding_function=None, metadata={"hnsw:space": "cosine"}
            )
            self._generation = generation
        return self._collection

    def close(self) -> None:
        """Let go of the client; the next call opens another."""
        with self._lock:
            if self._client is not None:
                self._client.close()
            self._client = self._collection = None

    def replace(self, generation: int, gone: list[str], chunks: list[Chunk], vectors: np.ndarray) -> None:
        """Delete `gone`, then add the chunks' vectors. The caller tells the next generation by `advance`."""
        with self._lock:
            collection = self._at(generation)
            for part in _parts(gone):
                collection.delete(ids=part)
            for rows in _parts(list(range(len(chunks)))):
                collection.upsert(
                    ids=[chunks[i].id for i in rows],
                    embeddings=vectors[rows],
                    metadatas=[{"document": chunks[i].document} for i in rows],
                )

    def advance(self, generation: int) -> None:
        """What this process wrote makes up this generation."""
        with self._lock:
            self._generation = generation

    def count(self, generation: int) -> int:
        with self._lock:
            return self._at(generation).count()

    def search(
        self, generation: int, vector: np.ndarray, limit: int, documents: list[str] | None
    ) -> list[tuple[str, float]]:
        """(chunk id, cosine) of the nearest `limit` chunks, among these documents when given."""
        with self._lock:
            where = None if documents is None else {"document": {"$in": documents}}
            found = self._at(generation).query(
                query_embeddings=vector[None], n_results=limit, include=["distances"], where=where
            )
        return [(i, 1 - distance) for i, distance in zip(found["ids"][0], found["distances"][0], strict=True)]


@cache
def vectors_at(folder: Path) -> Vectors:
    """The one Vectors of a folder in this process: two would each miss what the other writes."""
    return Vectors(folder)


def _parts(items: list, length: int = 2000):
    return [items[i : i + length] for i in range(0, len(items), length)]
