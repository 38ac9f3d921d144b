"""Conversations with their citations and thumbs in one SQLite file, so that a refresh or a restart loses nothing."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from assistant.types import Answer, Citation, Hit

SCHEMA = """
CREATE TABLE IF NOT EXISTS conversations (id TEXT PRIMARY KEY, title TEXT NOT NULL, created REAL NOT NULL, updated REAL NOT NULL);
CREATE TABLE IF NOT EXISTS turns (
    conversation TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
    number INTEGER NOT NULL, question TEXT NOT NULL, answer TEXT NOT NULL, asked REAL NOT NULL,
    PRIMARY KEY (conversation, number));
CREATE TABLE IF NOT EXISTS votes (
    conversation TEXT NOT NULL, number INTEGER NOT NULL, liked INTEGER NOT NULL, reason TEXT NOT NULL, voted REAL NOT NULL,
    PRIMARY KEY (conversation, number),
    FOREIGN KEY (conversation, number) REFERENCES turns(conversation, number) ON DELETE CASCADE);
"""
TITLE_LENGTH = 60
Turns = list[tuple[str, Answer]]


@dataclass(frozen=True)
class Conversation:
    """A row of the list: `title` is the first question, cut; times in seconds since 1970."""

    id: str
    title: str
    created: float
    updated: float


@dataclass(frozen=True)
class Vote:
    """What a person thought of an answer; `reason` in their own words, or empty."""

    liked: bool
    reason: str = ""


def create(path: Path) -> str:
    """A new, empty conversation in the store at `path` (made when missing). Returns its id."""
    key, now = uuid.uuid4().hex, time.time()
    with _store(path) as store:
        store.execute("INSERT INTO conversations VALUES (?, '', ?, ?)", (key, now, now))
    return key


def append(path: Path, conversation: str, question: str, answer: Answer) -> None:
    """Add a question and its answer. A conversation that is not there is made: an old page still has its id."""
    now = time.time()
    title = " ".join(question.split())[:TITLE_LENGTH]
    with _store(path) as store:
        store.execute("INSERT OR IGNORE INTO conversations VALUES (?, '', ?, ?)", (conversation, now, now))
        store.execute(
            "INSERT INTO turns SELECT ?, COALESCE(MAX(number), 0) + 1, ?, ?, ? FROM turns WHERE conversation = ?",
            (conversation, question, json.dumps(asdict(answer), ensure_ascii=False), now, conversation),
        )
        store.execute(
            "UPDATE conversations SET updated = ?, title = CASE title WHEN '' THEN ? ELSE title END WHERE id = ?",
            (now, title, conversation),
        )


def amend(path: Path, conversation: str, answer: Answer) -> None:
    """Put another answer in the place of the last one."""
    with _store(path) as store:
        store.execute(
            "UPDATE turns SET answer = ? WHERE conversation = ? AND number = (SELECT MAX(number) FROM turns WHERE conversation = ?)",
            (json.dumps(asdict(answer), ensure_ascii=False), conversation, conversation),
        )


def load(path: Path, conversation: str) -> Turns:
    """(question, answer) pairs, oldest first; none for an id that is not there."""
    with _store(path) as store:
        rows = store.execute(
            "SELECT question, answer FROM turns WHERE conversation = ? ORDER BY number", (conversation,)
        ).fetchall()
    return [(question, _answer(json.loads(answer))) for question, answer in rows]


def recent(path: Path, limit: int = 50) -> list[Conversation]:
    """Conversations with at least one question, the last used first."""
    with _store(path) as store:
        rows = store.execute(
            "SELECT id, title, created, updated FROM conversations WHERE title != '' ORDER BY updated DESC LIMIT ?",
            (limit,),
        ).fetchall()
    return [Conversation(*row) for row in rows]


def delete(path: Path, conversation: str) -> None:
    """Remove a conversation with its answers and their votes."""
    with _store(path) as store:
        store.execute("DELETE FROM conversations WHERE id = ?", (conversation,))


def before(turns: Turns, question: str) -> Turns:
    """The turns that `question` follows: earlier answers to the same question, asked again, are not among them."""
    kept = list(turns)
    while kept and kept[-1][0].strip() == question.strip():
        kept.pop()
    return kept


def vote(path: Path, conversation: str, number: int, liked: bool | None, reason: str = "") -> bool:
    """Thumb up or down for the answer of turn `number` (from 1), in place of an earlier one; None takes it back.

    Returns whether that turn is in the store.
    """
    with _store(path) as store:
        if liked is None:
            sql, values = "DELETE FROM votes WHERE conversation = ? AND number = ?", ()
        else:
            sql = "INSERT OR REPLACE INTO votes SELECT conversation, number, ?, ?, ? FROM turns WHERE conversation = ? AND number = ?"
            values = (liked, reason.strip(), time.time())
        store.execute(sql, (*values, conversation, number))
        found = store.execute(
            "SELECT 1 FROM turns WHERE conversation = ? AND number = ?", (conversation, number)
        ).fetchone()
    return found is not None


def votes(path: Path, conversation: str) -> dict[int, Vote]:
    """Turn number → vote, of one conversation."""
    with _store(path) as store:
        rows = store.execute(
            "SELECT number, liked, reason FROM votes WHERE conversation = ? ORDER BY number", (conversation,)
        ).fetchall()
    return {number: Vote(bool(liked), reason) for number, liked, reason in rows}


def voted(path: Path) -> list[str]:
    """Ids of the conversations in which an answer has a vote, the oldest first."""
    with _store(path) as store:
        rows = store.execute(
            "SELECT id FROM conversations WHERE id IN (SELECT conversation FROM votes) ORDER BY created"
        ).fetchall()
    return [key for (key,) in rows]


@contextmanager
def _store(path: Path) -> Iterator[sqlite3.Connection]:
    """One transaction. A connection for each: the screen calls from many threads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=10, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.executescript(SCHEMA)
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")
    finally:
        connection.close()  # without COMMIT: rolled back


def _answer(stored: dict) -> Answer:
    stored["citations"] = [_known(Citation, item) for item in stored.get("citations", [])]
    stored["nearest"] = [_known(Hit, item) for item in stored.get("nearest", [])]
    return _known(Answer, stored)


def _known(kind: type, values: dict):
    """Fields of another version are passed over, so that old conversations stay readable."""
    names = {field.name for field in fields(kind)}
    return kind(**{key: value for key, value in values.items() if key in names})
