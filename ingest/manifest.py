"""The manifest: what is in the index, in one SQLite file. It is the truth that Tantivy and Chroma follow.

A change is written here first, with its documents marked stale; the two stores are then brought into
line and the marks taken off. So after kill -9 at any moment the marks tell what is still to be done.
Vectors are kept here too, in half precision: a torn Chroma is filled again without embedding anything.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from ingest.chunker import Chunk
from ingest.readers import Document

LAYOUT = 2  # of the tables; other than VERSION in ingest/index.py, which is of what they hold
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE documents (
    id TEXT PRIMARY KEY, source TEXT NOT NULL, page TEXT NOT NULL, title TEXT NOT NULL, lang TEXT NOT NULL,
    sha256 TEXT NOT NULL, removed INTEGER NOT NULL DEFAULT 0, stale INTEGER NOT NULL DEFAULT 1);
CREATE INDEX documents_stale ON documents (id) WHERE stale;
CREATE INDEX documents_source ON documents (source);
CREATE TABLE chunks (
    id TEXT PRIMARY KEY, document TEXT NOT NULL, heading TEXT NOT NULL, anchor TEXT NOT NULL,
    text TEXT NOT NULL, ord INTEGER NOT NULL, sources TEXT NOT NULL);
CREATE INDEX chunks_document ON chunks (document, ord);
CREATE TABLE vectors (chunk TEXT PRIMARY KEY, document TEXT NOT NULL);
"""
SECOND_LAYOUT = """
DROP TABLE vectors;
CREATE TABLE vectors (chunk TEXT PRIMARY KEY, document TEXT NOT NULL, key TEXT NOT NULL, vector BLOB NOT NULL);
CREATE INDEX vectors_document ON vectors (document);
ALTER TABLE documents ADD COLUMN modified TEXT NOT NULL DEFAULT '';
ALTER TABLE documents ADD COLUMN ingested TEXT NOT NULL DEFAULT '';
CREATE INDEX documents_modified ON documents (modified);
CREATE INDEX documents_unread ON documents (id) WHERE sha256 = '';
CREATE TABLE places (path TEXT PRIMARY KEY, wanted INTEGER NOT NULL);
"""
SAME = "id, source, page, title, lang, sha256, modified"


@dataclass(frozen=True)
class DocumentRow:
    """A document in the index, as `tunesmith library` lists it. An empty sha256 asks for a fresh reading.

    `modified` is the day its file was last changed when it was read, `ingested` the day it was read.
    """

    id: str
    source: str
    page: str
    title: str
    lang: str
    sha256: str
    modified: str
    ingested: str
    chunks: int


class Manifest:
    """Tables over one connection. Statements of one method are one transaction."""

    def __init__(self, file: Path):
        self._db = sqlite3.connect(file, timeout=60, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        if self._db.execute("PRAGMA user_version").fetchone()[0] < LAYOUT:
            fresh = not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'vectors'").fetchone()
            steps = (TABLES if fresh else "") + SECOND_LAYOUT
            self._db.executescript(f"BEGIN; {steps} PRAGMA user_version = {LAYOUT}; COMMIT;")

    def close(self) -> None:
        self._db.close()

    def meta(self, key: str, default: str = "") -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else default

    def set_meta(self, key: str, value: str) -> None:
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @property
    def generation(self) -> int:
        """Rises by one whenever the stores have been brought into line with a change."""
        return int(self.meta("generation", "0"))

    def documents(self) -> list[DocumentRow]:
        rows = self._db.execute(
            f"SELECT {SAME}, ingested, (SELECT count(*) FROM chunks WHERE document = documents.id)"
            " FROM documents WHERE NOT removed ORDER BY id"
        )
        return [DocumentRow(*row) for row in rows]

    def sha256(self, document: str) -> str | None:
        """Of a document as it was read; "" when it is to be read again, None when it is not there."""
        row = self._db.execute(
            "SELECT sha256 FROM documents WHERE id = ? AND NOT removed", (document,)
        ).fetchone()
        return row and row[0]

    def document_ids(self, source: str | None, since: date | None = None) -> list[str]:
        """Documents whose source is this one or lies in this folder, changed on that day or later."""
        where, values = _within(source, since)
        return [row[0] for row in self._db.execute(f"SELECT d.id FROM documents d WHERE {where}", values)]

    def holds(self, source: str) -> bool:
        """Whether a file is in the index, or anything below a folder."""
        where, values = _within(source, None)
        found = self._db.execute(f"SELECT 1 FROM documents d WHERE {where} LIMIT 1", values)
        return found.fetchone() is not None

    def unread(self) -> list[str]:
        """Sources of the documents that are listed and have to be read again."""
        rows = self._db.execute("SELECT source FROM documents WHERE sha256 = '' AND NOT removed ORDER BY id")
        return [row[0] for row in rows]

    def chunks(self, ids: list[str]) -> dict[str, Chunk]:
        """Chunks by id; an unknown id is left out."""
        return {chunk.id: chunk for chunk in self._chunks("c.id", ids)}

    def chunks_of(self, documents: list[str]) -> list[Chunk]:
        return self._chunks("c.document", documents)

    def neighbours(self, id: str, reach: int) -> list[Chunk]:
        """A chunk and at most `reach` on either side of it in its document, in reading order."""
        rows = self._db.execute(
            "SELECT n.id FROM chunks c JOIN chunks n ON n.document = c.document"
            " AND n.ord BETWEEN c.ord - :reach AND c.ord + :reach WHERE c.id = :id",
            {"id": id, "reach": reach},
        )
        return self._chunks("c.id", [row[0] for row in rows])

    def _chunks(self, column: str, values: list[str]) -> list[Chunk]:
        rows = self._db.execute(
            "SELECT c.id, c.document, d.page, c.heading, c.anchor, d.lang, c.text, d.source, c.ord, c.sources,"
            f" d.modified FROM chunks c JOIN documents d ON d.id = c.document WHERE {column} IN"
            " (SELECT value FROM json_each(?)) AND NOT d.removed ORDER BY c.document, c.ord",
            (json.dumps(values),),
        )
        return [Chunk(*row[:9], sources=json.loads(row[9]), modified=row[10]) for row in rows]

    def put(self, items: list[tuple[Document, list[Chunk]]], gone: list[str]) -> None:
        """Replace these documents and their chunks, take out those in `gone`; all of them are stale now."""
        ids = [document.id for document, _ in items] + gone
        today = date.today().isoformat()
        with self._db:
            self._db.executemany("DELETE FROM chunks WHERE document = ?", [(i,) for i in ids])
            self._db.executemany(
                "UPDATE documents SET removed = 1, stale = 1 WHERE id = ?", [(i,) for i in gone]
            )
            self._db.executemany(
                f"INSERT OR REPLACE INTO documents ({SAME}, ingested) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (d.id, d.source, d.page, d.title, d.lang, d.sha256, d.modified, today)
                    for d, _ in items
                ],
            )  # fmt: skip
            self._db.executemany(
                "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (c.id, c.document, c.heading, c.anchor, c.text, c.order, _json(c.sources))
                    for _, chunks in items
                    for c in chunks
                ],
            )

    def stale(self, limit: int = -1) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT id FROM documents WHERE stale LIMIT ?", (limit,))]

    def settle(self, documents: list[str], forgotten: list[str]) -> int:
        """The stores are in line with these documents; `forgotten` vectors are gone. The new generation."""
        with self._db:
            ids = [(i,) for i in documents]
            self._db.executemany("DELETE FROM documents WHERE id = ? AND removed", ids)
            self._db.executemany("UPDATE documents SET stale = 0 WHERE id = ?", ids)
            self._db.executemany("DELETE FROM vectors WHERE chunk = ?", [(i,) for i in forgotten])
            return self._next_generation()

    def _next_generation(self) -> int:
        generation = self.generation + 1
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('generation', ?)", (str(generation),))
        return generation

    # Vectors: of every chunk that has one, with the key of the text that it was made from.

    def has_vectors(self) -> bool:
        return self._db.execute("SELECT 1 FROM vectors LIMIT 1").fetchone() is not None

    def vector_count(self) -> int:
        return self._db.execute("SELECT count(*) FROM vectors").fetchone()[0]

    def vector_ids(self, documents: list[str]) -> list[str]:
        """Chunks of these documents that Chroma may hold a vector of, those of earlier versions too."""
        rows = self._db.execute(
            "SELECT chunk FROM vectors WHERE document IN (SELECT value FROM json_each(?))",
            (_json(documents),),
        )
        return [row[0] for row in rows]

    def known_vectors(self, chunks: list[str]) -> dict[str, tuple[str, np.ndarray]]:
        """(key of its text, vector) by chunk."""
        rows = self._db.execute(
            "SELECT chunk, key, vector FROM vectors WHERE chunk IN (SELECT value FROM json_each(?))",
            (_json(chunks),),
        )
        return {chunk: (key, _vectors([blob])[0]) for chunk, key, blob in rows}

    def expect_vectors(self, chunks: list[Chunk], keys: list[str], vectors: np.ndarray) -> None:
        """Keep the vectors that Chroma is about to get, so that a later change can take them away again."""
        rows = zip(chunks, keys, vectors.astype(np.float16), strict=True)
        with self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)",
                [(c.id, c.document, key, vector.tobytes()) for c, key, vector in rows],
            )

    def all_vectors(self, length: int) -> Iterator[tuple[list[str], np.ndarray]]:
        """(chunk ids, float32 [n, dim]) of every vector, at most `length` at a time."""
        rows = self._db.execute("SELECT chunk, vector FROM vectors ORDER BY chunk")
        while part := rows.fetchmany(length):
            yield [chunk for chunk, _ in part], _vectors([blob for _, blob in part])

    def vectors_within(
        self, source: str | None, since: date | None, most: int
    ) -> tuple[list[str], np.ndarray] | None:
        """(chunk ids, float32 [n, dim]) of the documents within a filter; None when they are more than `most`."""
        where, values = _within(source, since)
        # CROSS: the filter first; the planner does not know how narrow it is
        joined = f"FROM documents d CROSS JOIN vectors v ON v.document = d.id WHERE {where}"
        count = self._db.execute(
            f"SELECT count(*) FROM (SELECT 1 {joined} LIMIT :most)", values | {"most": most + 1}
        )
        if count.fetchone()[0] > most:
            return None
        rows = self._db.execute(f"SELECT v.chunk, v.vector {joined}", values).fetchall()
        return [chunk for chunk, _ in rows], _vectors([blob for _, blob in rows])

    def within(self, chunks: list[str], source: str | None, since: date | None) -> set[str]:
        """Those of the chunks whose document passes a filter."""
        where, values = _within(source, since)
        rows = self._db.execute(
            "SELECT c.id FROM json_each(:chunks) j CROSS JOIN chunks c ON c.id = j.value"
            f" CROSS JOIN documents d ON d.id = c.document WHERE {where}",
            values | {"chunks": _json(chunks)},
        )
        return {row[0] for row in rows}

    # Places: the files and folders that a person wants in the library, or has taken out of a wanted folder.

    def places(self) -> dict[str, bool]:
        return {path: bool(wanted) for path, wanted in self._db.execute("SELECT * FROM places ORDER BY path")}

    def set_place(self, path: str, wanted: bool) -> None:
        """What was said of places below this one no longer counts; nor this, where the folder above says the same."""
        inside = _below(path)
        with self._db:
            self._db.execute(
                "DELETE FROM places WHERE path = :path OR (path >= :low AND path < :high)", inside
            )
            above = self._db.execute(
                "SELECT wanted FROM places WHERE substr(:path, 1, length(rtrim(path, '/')) + 1) ="
                " rtrim(path, '/') || '/' ORDER BY length(path) DESC LIMIT 1",
                inside,
            ).fetchone()
            if wanted != bool(above and above[0]):
                self._db.execute("INSERT INTO places VALUES (?, ?)", (path, wanted))

    def start_over(self, recipe: str) -> None:
        """Forget every chunk but not which documents there were; they are to be read again (sha256 is empty)."""
        with self._db:
            self._db.execute("DELETE FROM chunks")
            self._db.execute("DELETE FROM vectors")
            self._db.execute("DELETE FROM documents WHERE removed OR source = 'kb'")
            self._db.execute("UPDATE documents SET sha256 = '', stale = 0")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('recipe', ?)", (recipe,))
            self._db.execute("DELETE FROM meta WHERE key = 'kb'")
            self._next_generation()


def _within(source: str | None, since: date | None) -> tuple[str, dict[str, Any]]:
    """SQL condition on `documents d`, and its values."""
    where, values = "NOT d.removed", {}
    if source is not None:
        where += " AND (d.source = :path OR (d.source >= :low AND d.source < :high))"
        values |= _below(source)
    if since is not None:
        where += " AND d.modified >= :since"
        values["since"] = since.isoformat()
    return where, values


def _below(path: str) -> dict[str, str]:
    """The path, and the bounds between which everything in that folder is sorted ("0" comes after "/")."""
    folder = path.rstrip("/")
    return {"path": path, "low": folder + "/", "high": folder + "0"}


def _vectors(blobs: list[bytes]) -> np.ndarray:
    flat = np.frombuffer(b"".join(blobs), np.float16).astype(np.float32)
    return flat.reshape(len(blobs), -1) if blobs else flat.reshape(0, 0)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
