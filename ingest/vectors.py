"""Vectors in Chroma's files on this machine: cosine search beside the words of ingest/stores.py.

They only follow the manifest, which has every vector too. Two things that Chroma does not do are done here:
processes take turns at its files, and a kill while it rewrites them is noticed and made good (`torn`).
A Chroma server instead of files, by setting: ingest/server.py.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from filelock import FileLock

COLLECTION = "chunks"
TENANT, DATABASE = "default_tenant", "default_database"  # Chroma's own names where none is given
PART = 2000  # records in one call
# Candidates that a search keeps. Chroma's own 100 misses whole groups of near-alike passages: of the ten nearest
# among 500,000, 200 finds 86 % and 800 finds 95 %, for half a millisecond more (tests/bench/scale.py).
HNSW = {"space": "cosine", "ef_search": 800}
# Records after which Chroma rewrites its index on disk (its own default: 1,000). That costs seconds at a
# million vectors; until then a reader has to insert them anew, at half a millisecond each.
SYNC_THRESHOLD = 5000
REPLAYED = 50  # records that a reader may be left to insert; more are written out when a writer is done
LOCKED_ATTEMPTS = 120  # half a minute
PATIENCE = 20  # a reader lets this many times the cost of opening go by before it opens again

Parts = Iterable[tuple[list[str], np.ndarray]]  # chunk ids, float32 [n, dim]


class VectorStore(Protocol):
    """What the index asks of the place where vectors are. `place` says which one it is, "" for this machine."""

    place: str
    widest: int  # the most neighbours that one search can ask for

    @property
    def torn(self) -> bool:
        """A writer died in a moment after which only `refill` helps."""

    def replace(self, gone: list[str], ids: list[str], vectors: np.ndarray) -> None: ...

    def refill(self, parts: Parts) -> None:
        """Throw everything away and put these in."""

    def finish(self) -> None:
        """The end of a writer's work."""

    def count(self) -> int: ...

    def search(self, generation: int, vector: np.ndarray, limit: int) -> list[tuple[str, float]]:
        """(chunk id, cosine) of the nearest `limit` chunks, best first."""

    def close(self) -> None: ...


class Vectors:
    """Written through Chroma's PersistentClient, read through the Rust engine below that.

    Importing `chromadb` costs one CPU second, its engine .02, which a cold search feels. An open engine does
    not see what others write, so a reader says the manifest's generation and the engine is opened anew when
    that has changed. `tests/ingest/test_vectors.py` compares the two.
    """

    place = ""
    widest = 1000

    def __init__(self, folder: Path):
        self._folder, self._database = folder, folder / "chroma.sqlite3"
        self._mark = folder.with_name(f"{folder.name}.torn")
        self._client: Any = None
        self._known: Any = None
        self._engine: tuple[Any, str] | None = None
        self._generation, self._opened, self._cost = -1, 0.0, 0.0
        self._lock = threading.Lock()

    @property
    def torn(self) -> bool:
        return self._mark.exists()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process reads Chroma's files while this one writes them, nor the other way round."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder.with_name(f"{self._folder.name}.lock")):
            yield

    @contextmanager
    def _rewriting(self) -> Iterator[None]:
        """Chroma truncates its files and writes them again: killed in between, it cannot open them any more."""
        self._mark.touch()
        yield
        self._mark.unlink()

    def replace(self, gone: list[str], ids: list[str], vectors: np.ndarray) -> None:
        """Delete the vectors of `gone`; add or change those of `ids`. The client stays open until `finish`."""
        with self._alone():
            fresh = not self._database.exists()
            risky = fresh or self._unwritten() + len(gone) + len(ids) >= SYNC_THRESHOLD - 1
            with self._rewriting() if risky else nullcontext():
                write(self._collection(), gone, ids, vectors)

    def refill(self, parts: Parts) -> None:
        """Readers find nothing by meaning until this is done."""
        with self._alone():
            self._mark.touch()
            self.close()
            shutil.rmtree(self._folder, ignore_errors=True)
        for ids, vectors in parts:
            with self._alone():
                write(self._collection(), [], ids, vectors)
        self.finish(flush=True)

    def finish(self, flush: bool = False) -> None:
        """Write out what Chroma has only in its log, so that readers need not insert it, and let go of it."""
        with self._alone():
            if flush or (self._client and self._unwritten() > REPLAYED):
                with self._rewriting():
                    # Chroma writes when an opening finds more than the threshold in the log; there is no call.
                    self._set_threshold(2)
                    self._let_go()
                    self._collection().count()
                    self._set_threshold(SYNC_THRESHOLD)
            self._let_go()

    def _set_threshold(self, records: int) -> None:
        changed = {"hnsw": {"sync_threshold": records}}
        _unlocked(lambda: self._collection().modify(configuration=changed))

    def _unwritten(self) -> int:
        """Records that Chroma has in its log only, or one more."""
        with closing(sqlite3.connect(self._database, timeout=60)) as log:
            return log.execute("SELECT count(*) FROM embeddings_queue").fetchone()[0]

    def _collection(self) -> Any:
        """Of the writer's client, opened when there is none."""
        if self._client is None:
            client = self.client()
            self._known = _unlocked(
                lambda: client.get_or_create_collection(
                    COLLECTION,
                    embedding_function=None,  # the default one would try to download a model
                    configuration={"hnsw": HNSW | {"sync_threshold": SYNC_THRESHOLD}},
                )
            )
            self._client = client
        return self._known

    def client(self):
        """A client of its own, to be closed; the next one sees what other processes have written."""
        import chromadb
        from chromadb.config import Settings

        logging.getLogger("chromadb").setLevel(logging.ERROR)
        return chromadb.PersistentClient(str(self._folder), Settings(anonymized_telemetry=False))

    def _let_go(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = self._known = None

    def count(self) -> int:
        with self._alone():
            return self._collection().count() if self._database.exists() else 0

    def search(self, generation: int, vector: np.ndarray, limit: int) -> list[tuple[str, float]]:
        with self._lock:
            if not self._outdated(generation):
                return self._query(vector, limit)
            with self._alone():
                if self.torn or not self._database.exists():
                    return []
                start = time.monotonic()
                self._open()
                found = self._query(vector, limit)  # the first one reads the files
                self._opened = time.monotonic()
                self._generation, self._cost = generation, self._opened - start
                return found

    def _outdated(self, generation: int) -> bool:
        if self._engine is None:
            return True
        # At a million vectors an opening takes seconds, and somebody else may be adding all the time.
        rested = time.monotonic() - self._opened >= PATIENCE * self._cost
        return generation != self._generation and rested

    def _query(self, vector: np.ndarray, limit: int) -> list[tuple[str, float]]:
        if self._engine is None:
            return []
        engine, collection = self._engine
        found = engine.query(
            collection, None, vector[None], limit, None, None, ["distances"], TENANT, DATABASE
        )
        return [(i, 1 - distance) for i, distance in zip(found.ids[0], found.distances[0], strict=True)]

    def _open(self) -> None:
        import chromadb_rust_bindings as rust

        self._engine = None  # let go of the old one first
        database = rust.SqliteDBConfig(
            hash_type=rust.MigrationHash.MD5,
            migration_mode=rust.MigrationMode.Apply,
            url=str(self._database),
        )
        engine = rust.Bindings(
            allow_reset=False,
            sqlite_db_config=database,
            persist_path=str(self._folder),
            hnsw_cache_size=16,
        )
        self._engine = engine, str(engine.get_collection(COLLECTION, TENANT, DATABASE).id)

    def close(self) -> None:
        """Let go of engine and client; the next search or change opens another."""
        self._let_go()
        with self._lock:
            self._engine = None


def _unlocked(work: Callable[[], Any]) -> Any:
    """Chroma's own threads may hold its database for a moment (seen on a busy machine); it does not wait itself."""
    from chromadb.errors import InternalError

    for attempts_left in range(LOCKED_ATTEMPTS, -1, -1):
        try:
            return work()
        except InternalError as error:
            if "locked" not in str(error) or not attempts_left:
                raise
            time.sleep(0.25)


def write(collection: Any, gone: list[str], ids: list[str], vectors: np.ndarray, part: int = PART) -> None:
    """Delete and upsert in a Chroma collection, `part` records a call."""
    for start in range(0, len(gone), part):
        collection.delete(ids=gone[start : start + part])
    for start in range(0, len(ids), part):
        collection.upsert(ids=ids[start : start + part], embeddings=vectors[start : start + part])
