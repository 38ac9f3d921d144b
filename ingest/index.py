"""The index: manifest, words and vectors under one roof. Written by ingest/sync.py, read by assistant/retrieve.py.

One writer at a time (a lock file); readers go on meanwhile and see a change when its generation is settled.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from ingest.chunker import Chunk
from ingest.embedder import Embedder, MiniLM, content_key, from_name, readable, shipped_vectors
from ingest.manifest import DocumentRow, Manifest
from ingest.readers import Document
from ingest.stores import Vectors, Words

# Raise it when tokens, chunks or the stores' fields change: every index is then built anew at the next sync.
VERSION = "1"


class Index:
    """An open index. Safe to share between threads for reading; writing needs `writing()`."""

    def __init__(self, folder: Path, embedder: Embedder | None = None):
        self.folder = folder
        self._embedder = embedder
        folder.mkdir(parents=True, exist_ok=True)
        # Two processes that create the same files at once would trip over each other.
        with FileLock(folder / "opening.lock"):
            self.manifest = Manifest(folder / "manifest.sqlite")
            self._words = Words(self._words_folder)
        self._vectors = Vectors(folder / "vectors")
        self._seen = self.manifest.generation

    @classmethod
    def open(cls, folder: Path, embedder: Embedder | None = None) -> Index:
        """Open or create. What a killed writer left undone is done now, unless another writer is at it."""
        index = cls(Path(folder), embedder)
        if index.manifest.stale(1):
            with index.writing(wait=False) as free:
                if free:
                    index.settle()
        return index

    def close(self) -> None:
        self._vectors.close()
        self.manifest.close()

    @property
    def _words_folder(self) -> Path:
        return self.folder / f"words-{VERSION}"  # Tantivy refuses to open other fields than it was made with

    @property
    def recipe(self) -> str:
        """What the stored tokens, chunks and vectors were made with, and would be made with now: see `outdated`."""
        return f"{VERSION} {self.embedder.name}"

    @property
    def outdated(self) -> bool:
        return self.manifest.meta("recipe") != self.recipe

    @property
    def embedder(self) -> Embedder:
        """The one it was opened with, else the one its vectors were made with, else the default."""
        if self._embedder is None:
            made_with = self.manifest.meta("recipe").partition(" ")[2] or MiniLM.name
            self._embedder = from_name(made_with, self.folder / "embedder")
        return self._embedder

    @property
    def generation(self) -> int:
        return self.manifest.generation

    def documents(self) -> list[DocumentRow]:
        return self.manifest.documents()

    def get(self, ids: list[str]) -> list[Chunk]:
        """Chunks in the order of the ids; an id that is not (or no longer) there is left out."""
        found = self.manifest.chunks(ids)
        return [found[i] for i in ids if i in found]

    def lexical(
        self, weights: dict[str, float], limit: int = 50, source: str | None = None
    ) -> list[tuple[str, float]]:
        """(chunk id, BM25 score) by words. `weights` maps terms of ingest.text.tokens to their weight."""
        self._follow()
        return self._words.search(weights, limit, source)

    def idf(self, terms: list[str]) -> dict[str, float]:
        """How telling each term is in this index; 0 for one that it does not hold."""
        self._follow()
        return self._words.idf(terms)

    def dense(
        self, vector: np.ndarray, limit: int = 50, source: str | None = None
    ) -> list[tuple[str, float]]:
        """(chunk id, cosine) by meaning. `source`: "kb", a file, or a folder."""
        if not self.manifest.vector_count():
            return []
        documents = None if source is None else self.manifest.document_ids(source)
        return [] if documents == [] else self._vectors.search(self.generation, vector, limit, documents)

    def _follow(self) -> None:
        generation = self.generation
        if generation != self._seen:
            self._words.reload()
            self._seen = generation

    @contextmanager
    def writing(self, wait: bool = True) -> Iterator[bool]:
        """Hold the writer's lock. Yields False at once where another holds it and `wait` is off."""
        lock = FileLock(self.folder / "writing.lock", timeout=-1 if wait else 0)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def put(self, items: list[tuple[Document, list[Chunk]]], gone: list[str] | None = None) -> None:
        """Replace documents and take out those in `gone`. Call inside `writing()`."""
        self.manifest.put(items, gone or [])
        self.settle()

    def settle(self) -> None:
        """Bring words and vectors into line with every stale document. Call inside `writing()`."""
        stale = self.manifest.stale()
        if not stale:
            return
        chunks = self.manifest.chunks_of(stale)
        self._words.replace(stale, chunks)
        before = self.manifest.vector_ids(stale)
        with_vector, vectors = self._embed(chunks)
        if before or with_vector:
            self.manifest.expect_vectors(with_vector)
            self._vectors.replace(before, with_vector, vectors)
        forgotten = set(before) - {chunk.id for chunk in with_vector}
        self._seen = self.manifest.settle(stale, sorted(forgotten))

    def _embed(self, chunks: list[Chunk]) -> tuple[list[Chunk], np.ndarray]:
        """The chunks that the embedder can read, and their vectors; the knowledge base's come with the package."""
        shipped = shipped_vectors() if self.embedder.name == MiniLM.name else {}
        texts = {chunk.id: chunk.indexed() for chunk in chunks}
        chunks = [
            c for c in chunks if content_key(texts[c.id]) in shipped or readable(self.embedder, texts[c.id])
        ]
        vectors = np.zeros((len(chunks), self.embedder.dim), np.float32)
        fresh = []
        for row, chunk in enumerate(chunks):
            known = shipped.get(content_key(texts[chunk.id]))
            if known is None:
                fresh.append(row)
            else:
                vectors[row] = known
        if fresh:
            vectors[fresh] = self.embedder.embed([texts[chunks[row].id] for row in fresh])
        return chunks, vectors

    def start_over(self) -> None:
        """Empty the stores; the documents stay listed, to be read again. Call inside `writing()`."""
        with FileLock(self.folder / "opening.lock"):
            for store in [self.folder / "vectors", *self.folder.glob("words-*")]:
                shutil.rmtree(store, ignore_errors=True)
            self._words = Words(self._words_folder)
        self.manifest.start_over(self.recipe)  # last: until then the index stays outdated
