"""The two stores behind the index: words in Tantivy, vectors in Chroma. Both only ever follow the manifest."""

from __future__ import annotations

import json
import logging
import threading
from math import log
from pathlib import Path

import numpy as np

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


COLLECTION = "chunks"
TENANT, DATABASE = "default_tenant", "default_database"  # Chroma's own names where none is given


class Vectors:
    """Cosine search in Chroma: written through its PersistentClient, read through the Rust engine below that.

    Importing `chromadb` costs one CPU second, its engine .02, which a cold search feels. An open engine does
    not see what others write, so a reader says the manifest's generation and the engine is opened anew when
    that has changed. `tests/ingest/test_sync.py` compares the two.
    """

    def __init__(self, folder: Path):
        self._folder, self._generation, self._engine = folder, -1, None
        self._lock = threading.Lock()

    def replace(self, gone: list[str], chunks: list[Chunk], vectors: np.ndarray) -> None:
        """Delete the vectors of `gone`, then add those of the chunks."""
        with self.client() as client:
            # embedding_function=None: the default one would try to download a model.
            collection = client.get_or_create_collection(
                COLLECTION, embedding_function=None, metadata={"hnsw:space": "cosine"}
            )
            for part in _parts(gone):
                collection.delete(ids=part)
            for rows in _parts(list(range(len(chunks)))):
                collection.upsert(
                    ids=[chunks[i].id for i in rows],
                    embeddings=vectors[rows],
                    metadatas=[{"document": chunks[i].document} for i in rows],
                )

    def client(self):
        """A client of its own, to be used in a `with`: the next one sees what other processes have written."""
        import chromadb
        from chromadb.config import Settings

        logging.getLogger("chromadb").setLevel(logging.ERROR)
        return chromadb.PersistentClient(str(self._folder), Settings(anonymized_telemetry=False))

    def search(
        self, generation: int, vector: np.ndarray, limit: int, documents: list[str] | None
    ) -> list[tuple[str, float]]:
        """(chunk id, cosine) of the nearest `limit` chunks, among these documents when given."""
        where = None if documents is None else json.dumps({"document": {"$in": documents}})
        with self._lock:
            engine, collection = self._at(generation)
            found = engine.query(
                collection, None, vector[None], limit, where, None, ["distances"], TENANT, DATABASE
            )
        return [(i, 1 - distance) for i, distance in zip(found.ids[0], found.distances[0], strict=True)]

    def _at(self, generation: int):
        if self._engine is None or generation != self._generation:
            import chromadb_rust_bindings as rust

            self._engine = None  # let go of the old one first
            database = rust.SqliteDBConfig(
                hash_type=rust.MigrationHash.MD5,
                migration_mode=rust.MigrationMode.Validate,
                url=str(self._folder / "chroma.sqlite3"),
            )
            engine = rust.Bindings(
                allow_reset=False,
                sqlite_db_config=database,
                persist_path=str(self._folder),
                hnsw_cache_size=16,
            )
            self._engine = engine, str(engine.get_collection(COLLECTION, TENANT, DATABASE).id)
            self._generation = generation
        return self._engine

    def close(self) -> None:
        """Let go of the engine; the next search opens another."""
        with self._lock:
            self._engine = None


def _parts(items: list, length: int = 2000):
    return [items[i : i + length] for i in range(0, len(items), length)]
