"""The index: manifest, words and vectors under one roof. Written by ingest/sync.py, read by assistant/retrieve.py.

One writer at a time (a lock file); readers go on meanwhile and see a change when its generation is settled.
"""

from __future__ import annotations

import copy
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from math import log
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from ingest.chunker import Chunk
from ingest.embedder import Embedder, MiniLM, content_key, from_name, readable, shipped_vectors
from ingest.manifest import DocumentRow, Manifest
from ingest.readers import Document
from ingest.server import Server, ServerVectors
from ingest.stores import Words
from ingest.vectors import PART, Vectors, VectorStore

# Raise it when tokens, chunks or the stores' fields change: every index is then built anew at the next sync.
VERSION = "3"
# Words are kept apart: what is rare among the library's pages may be common in a person's files, and the reverse.
COLLECTIONS = ("kb", "files")
# Vectors within a filter up to which all are compared, which takes 30 ms. Of more, those among the nearest of
# the whole index count: a filtered search in Chroma first collects all ids that pass, in time that grows with them.
COMPARED = 5000

Progress = Callable[[int, int, str], None]


class Index:
    """An open index. Safe to share between threads for reading; writing needs `writing()`."""

    def __init__(self, folder: Path, embedder: Embedder | None = None, server: Server | None = None):
        self.folder = Path(folder)
        self._embedder = embedder
        self._collections: tuple[str, ...] = COLLECTIONS
        self._source: str | None = None
        self._since: date | None = None
        self.folder.mkdir(parents=True, exist_ok=True)
        # Two processes that create the same files at once would trip over each other.
        with FileLock(self.folder / "opening.lock"):
            self.manifest = Manifest(self.folder / "manifest.sqlite")
            self._words = self._open_words()
            if not self.manifest.meta("id"):
                self.manifest.set_meta("id", uuid.uuid4().hex)
        self._vectors: VectorStore = (
            ServerVectors(server, f"tunesmith-{self.manifest.meta('id')}")
            if server
            else Vectors(self.folder / "vectors")
        )
        self._seen = self.manifest.generation

    @classmethod
    def open(cls, folder: Path, embedder: Embedder | None = None, server: Server | None = None) -> Index:
        """Open or create. What a killed writer left undone is done now, unless another writer is at it.

        `server`: keep the vectors on this Chroma server instead of in files. Raises UserError when it is not there.
        """
        index = cls(folder, embedder, server)
        if index.unsettled:
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

    def _open_words(self) -> dict[str, Words]:
        return {name: Words(self._words_folder / name) for name in COLLECTIONS}

    @property
    def recipe(self) -> str:
        """What the stored tokens, chunks and vectors were made with, and would be made with now: see `outdated`."""
        return f"{VERSION} {self.embedder.name}"

    @property
    def outdated(self) -> bool:
        return self.manifest.meta("recipe") != self.recipe

    @property
    def unsettled(self) -> bool:
        """`settle` has something to do: a writer was killed, or the vectors are to be at another place."""
        return bool(self._torn or self.manifest.stale(1))

    @property
    def _torn(self) -> bool:
        return self._vectors.torn or self.manifest.meta("vectors") != self._vectors.place

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

    def neighbours(self, id: str, reach: int) -> list[Chunk]:
        """The chunk and at most `reach` on either side of it in its document, in reading order."""
        return self.manifest.neighbours(id, reach)

    def within(self, source: str | None = None, since: date | None = None) -> Index:
        """The same index through a filter, which every search in it keeps to.

        `source`: "kb", a file, or a folder. `since`: documents that were changed on that day or later.
        """
        view = copy.copy(self)
        if source is not None:
            view._source, view._collections = source, ("kb" if source == "kb" else "files",)
        view._since = self._since if since is None else since
        return view

    def collections(self) -> list[Index]:
        """A view for each collection that passes the filter: the library and a person's files."""
        views = []
        for name in self._collections:
            view = copy.copy(self)
            view._collections = (name,)
            views.append(view)
        return views

    def lexical(self, weights: dict[str, float], limit: int = 50) -> list[tuple[str, float]]:
        """(chunk id, BM25 score) by words. `weights` maps terms of ingest.text.tokens to their weight.

        Scores of two collections are not on one scale: see `collections`.
        """
        self._follow()
        found = [
            hit
            for name in self._collections
            for hit in self._words[name].search(weights, limit, self._source, self._since)
        ]
        return sorted(found, key=lambda hit: -hit[1])[:limit]

    def idf(self, terms: list[str]) -> dict[str, float]:
        """How telling each term is in this index, as BM25 has it: ln(1 + (N - n + .5) / (n + .5)).

        0 for a term that it does not hold.
        """
        self._follow()
        stores = [self._words[name] for name in self._collections]
        total = sum(store.count() for store in stores)
        held = {term: sum(store.holding(term) for store in stores) for term in terms}
        return {t: log(1 + (total - n + 0.5) / (n + 0.5)) if 0 < n <= total else 0.0 for t, n in held.items()}

    @property
    def rarest(self) -> float:
        """The idf of a term that no chunk holds."""
        return log(2 * sum(self._words[name].count() for name in self._collections) + 2)

    def dense(self, vector: np.ndarray, limit: int = 50) -> list[tuple[str, float]]:
        """(chunk id, cosine) by meaning."""
        if not self.manifest.has_vectors():
            return []
        if self._source is None and self._since is None:
            return self._nearest(vector, limit)
        within = self.manifest.vectors_within(self._source, self._since, COMPARED)
        if within is None:
            nearest = self._nearest(vector, self._vectors.widest)
            passing = self.manifest.within([i for i, _ in nearest], self._source, self._since)
            return [(i, cosine) for i, cosine in nearest if i in passing][:limit]
        ids, vectors = within
        cosines = vectors @ vector if ids else np.zeros(0)
        return [(ids[row], float(cosines[row])) for row in np.argsort(-cosines, kind="stable")[:limit]]

    def _nearest(self, vector: np.ndarray, limit: int) -> list[tuple[str, float]]:
        # Between a change of place and the writer that fills the new one, words alone answer.
        moving = self.manifest.meta("vectors") != self._vectors.place
        return [] if moving else self._vectors.search(self.generation, vector, limit)

    def _follow(self) -> None:
        generation = self.generation
        if generation != self._seen:
            for store in self._words.values():
                store.reload()
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
            self._vectors.finish()
        except BaseException:
            self._vectors.close()  # what it has open is out of date once another process has written
            raise
        finally:
            lock.release()

    def put(self, items: list[tuple[Document, list[Chunk]]], gone: list[str] | None = None) -> None:
        """Replace documents and take out those in `gone`. Call inside `writing()`."""
        self.manifest.put(items, gone or [])
        self.settle()

    def settle(self, progress: Progress | None = None) -> None:
        """Bring words and vectors into line with the manifest. Call inside `writing()`."""
        stale = self.manifest.stale()
        if stale:
            self._settle(stale)
        if self._torn:
            self.refill(progress)

    def _settle(self, stale: list[str]) -> None:
        chunks = self.manifest.chunks_of(stale)
        for name, store in self._words.items():
            documents = [document for document in stale if _collection(document) == name]
            if documents:
                store.replace(documents, [c for c in chunks if _collection(c.document) == name])
        before = self.manifest.vector_ids(stale)
        with_vector, keys, vectors = self._embed(chunks)
        ids = [chunk.id for chunk in with_vector]
        forgotten = sorted(set(before) - set(ids))
        if ids or forgotten:
            self.manifest.expect_vectors(with_vector, keys, vectors)
            if not self._torn:
                self._vectors.replace(forgotten, ids, vectors)
        self._seen = self.manifest.settle(stale, forgotten)

    def refill(self, progress: Progress | None = None) -> None:
        """Fill the vector store anew from the manifest; nothing is embedded. Call inside `writing()`."""
        total, done = self.manifest.vector_count(), 0

        def parts():
            nonlocal done
            for ids, vectors in self.manifest.all_vectors(PART):
                yield ids, vectors
                done += len(ids)
                if progress:
                    progress(done, total, "vectors")

        self._vectors.refill(parts())
        self.manifest.set_meta("vectors", self._vectors.place)

    def check(self, progress: Progress | None = None) -> None:
        """Fill the vector store anew where it has lost or kept something. Call inside `writing()`."""
        if self._vectors.count() != self.manifest.vector_count():
            self.refill(progress)

    def _embed(self, chunks: list[Chunk]) -> tuple[list[Chunk], list[str], np.ndarray]:
        """The chunks that the embedder can read, the keys of their texts and their vectors.

        Vectors that are known already are taken: from before, or the knowledge base's from the package.
        """
        shipped = shipped_vectors() if self.embedder.name.startswith(MiniLM.name) else {}
        before = self.manifest.known_vectors([chunk.id for chunk in chunks])
        readables: list[Chunk] = []
        keys, rows, fresh = [], [], []
        for chunk in chunks:
            text = chunk.indexed()
            key = content_key(text)
            known, vector = before.get(chunk.id, ("", None))
            vector = vector if known == key else shipped.get(key)
            if vector is None:
                if not readable(self.embedder, text):
                    continue
                fresh.append(text)
            readables.append(chunk)
            keys.append(key)
            rows.append(vector)
        vectors = np.zeros((len(rows), self.embedder.dim), np.float32)
        for row, vector in enumerate(rows):
            if vector is not None:
                vectors[row] = vector
        if fresh:
            vectors[[row for row, vector in enumerate(rows) if vector is None]] = self.embedder.embed(fresh)
        # as the manifest keeps them, so that a store filled anew gives the same scores
        return readables, keys, vectors.astype(np.float16).astype(np.float32)

    def start_over(self) -> None:
        """Empty the stores; the documents stay listed, to be read again. Call inside `writing()`."""
        with FileLock(self.folder / "opening.lock"):
            for store in self.folder.glob("words-*"):
                shutil.rmtree(store, ignore_errors=True)
            self._words = self._open_words()
        self._vectors.refill([])
        self.manifest.start_over(self.recipe)  # last: until then the index stays outdated
        self.manifest.set_meta("vectors", self._vectors.place)


def _collection(document: str) -> str:
    return "files" if document.startswith("file:") else "kb"
