"""The manifest: what is in the index, in one SQLite file. It is the truth that Tantivy and Chroma follow.

A change is written here first, with its documents marked stale; the two stores are then brought into
line and the marks taken off. So after kill -9 at any moment the marks tell what is still to be done.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from ingest.chunker import Chunk
from ingest.readers import Document

TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS documents (
    id TEXT PRIMARY KEY, source TEXT NOT NULL, page TEXT NOT NULL, title TEXT NOT NULL, lang TEXT NOT NULL,
    sha256 TEXT NOT NULL, removed INTEGER NOT NULL DEFAULT 0, stale INTEGER NOT NULL DEFAULT 1);
CREATE INDEX IF NOT EXISTS documents_stale ON documents (id) WHERE stale;
CREATE INDEX IF NOT EXISTS documents_source ON documents (source);
CREATE TABLE IF NOT EXISTS chunks (
    id TEXT PRIMARY KEY, document TEXT NOT NULL, heading TEXT NOT NULL, anchor TEXT NOT NULL,
    text TEXT NOT NULL, ord INTEGER NOT NULL, sources TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS chunks_document ON chunks (document, ord);
CREATE TABLE IF NOT EXISTS vectors (chunk TEXT PRIMARY KEY, document TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS vectors_document ON vectors (document);
"""


@dataclass(frozen=True)
class DocumentRow:
    """A document in the index, as `tunesmith library` lists it. An empty sha256 asks for a fresh reading."""

    id: str
    source: str
    page: str
    title: str
    lang: str
    sha256: str
    chunks: int


class Manifest:
    """Tables over one connection. Statements of one method are one transaction."""

    def __init__(self, file: Path):
        self._db = sqlite3.connect(file, timeout=60, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'vectors'").fetchone():
            self._db.executescript(TABLES)

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
            "SELECT d.id, d.source, d.page, d.title, d.lang, d.sha256, count(c.id) FROM documents d"
            " LEFT JOIN chunks c ON c.document = d.id WHERE NOT d.removed GROUP BY d.id ORDER BY d.id"
        )
        return [DocumentRow(*row) for row in rows]

    def hashes(self) -> dict[str, str]:
        """sha256 by document id."""
        return dict(self._db.execute("SELECT id, sha256 FROM documents WHERE NOT removed"))

    def document_ids(self, source: str) -> list[str]:
        """Documents whose source is this one or lies in this folder."""
        folder = source.rstrip("/") + "/"
        rows = self._db.execute(
            "SELECT id FROM documents WHERE NOT removed AND (source = ? OR substr(source, 1, ?) = ?)",
            (source, len(folder), folder),
        )
        return [row[0] for row in rows]

    def chunks(self, ids: list[str]) -> dict[str, Chunk]:
        """Chunks by id; an unknown id is left out."""
        return {chunk.id: chunk for chunk in self._chunks("c.id", ids)}

    def chunks_of(self, documents: list[str]) -> list[Chunk]:
        return self._chunks("c.document", documents)

    def _chunks(self, column: str, values: list[str]) -> list[Chunk]:
        rows = self._db.execute(
            "SELECT c.id, c.document, d.page, c.heading, c.anchor, d.lang, c.text, d.source, c.ord, c.sources"
            f" FROM chunks c JOIN documents d ON d.id = c.document WHERE {column} IN (SELECT value FROM json_each(?))"
            " AND NOT d.removed ORDER BY c.document, c.ord",
            (json.dumps(values),),
        )
        return [Chunk(*row[:9], sources=json.loads(row[9])) for row in rows]

    def put(self, items: list[tuple[Document, list[Chunk]]], gone: list[str]) -> None:
        """Replace these documents and their chunks, take out those in `gone`; all of them are stale now."""
        ids = [document.id for document, _ in items] + gone
        with self._db:
            self._db.executemany("DELETE FROM chunks WHERE document = ?", [(i,) for i in ids])
            self._db.executemany(
                "UPDATE documents SET removed = 1, stale = 1 WHERE id = ?", [(i,) for i in gone]
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO documents (id, source, page, title, lang, sha256) VALUES (?, ?, ?, ?, ?, ?)",
                [(d.id, d.source, d.page, d.title, d.lang, d.sha256) for d, _ in items],
            )
            self._db.executemany(
                "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        c.id,
                        c.document,
                        c.heading,
                        c.anchor,
                        c.text,
                        c.order,
                        json.dumps(c.sources, ensure_ascii=False),
                    )
                    for _, chunks in items
                    for c in chunks
                ],
            )

    def stale(self, limit: int = -1) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT id FROM documents WHERE stale LIMIT ?", (limit,))]

    def vector_ids(self, documents: list[str]) -> list[str]:
        """Chunks of these documents that Chroma may hold a vector of, those of earlier versions too."""
        rows = self._db.execute(
            "SELECT chunk FROM vectors WHERE document IN (SELECT value FROM json_each(?))",
            (json.dumps(documents),),
        )
        return [row[0] for row in rows]

    def expect_vectors(self, chunks: list[Chunk]) -> None:
        """Note the chunks that are about to get a vector, so that a later change can take it away again."""
        with self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?)", [(c.id, c.document) for c in chunks]
            )

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

    def vector_count(self) -> int:
        return self._db.execute("SELECT count(*) FROM vectors").fetchone()[0]

    def start_over(self, recipe: str) -> None:
        """Forget every chunk but not which documents there were; they are to be read again (sha256 is empty)."""
        with self._db:
            self._db.execute("DELETE FROM chunks")
            self._db.execute("DELETE FROM vectors")
            self._db.execute("UPDATE documents SET sha256 = '', stale = 0")
            self._db.execute("DELETE FROM documents WHERE removed")
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('recipe', ?)", (recipe,))
            self._db.execute("DELETE FROM meta WHERE key = 'kb'")
            self._next_generation()
