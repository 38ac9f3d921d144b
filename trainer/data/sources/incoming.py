"""What every source gives: parts with their records, and what becomes known of them. For the registry in __init__."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict

Item = tuple[str, dict[str, Any]]  # where the record stands, as a person finds it again; the record
Note = dict[str, str]  # {"en", "zh-TW"}
Environ = Mapping[str, str]  # variables, given by the room that reads the environment


class Options(BaseModel):
    """What a source is asked for beside its name; recorded, so never a secret."""

    model_config = ConfigDict(extra="forbid")


@dataclass
class Part:
    """A file, a table, an endpoint. `open` begins at its first record each time; of a remote part only once."""

    name: str
    open: Callable[[], Iterator[Item]]


@dataclass
class Incoming:
    """`name` is the source as it is recorded (a Hub id with its commit).

    While records are read `facts` fills with what pins them (commit, addresses, hashes), `counts` with what was
    left out or mended by kind, `notes` with lines for the reader. `content_sha256` is that of a file or folder, None
    where records are hashed as they come.
    """

    name: str
    parts: list[Part]
    total: int | None = None
    content_sha256: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[Note] = field(default_factory=list)


NOTES: dict[str, dict[str, str]] = {
    "about": {"en": "{name}: left out: it tells about the data; import it by its own name if it is meant", "zh-TW": "{name}：略過，這是說明檔；若要匯入請直接指定它"},
    "kind": {"en": "{name}: left out: unknown kind of file", "zh-TW": "{name}：略過，不認得這種檔案"},
    "link": {"en": "{name}: left out: a link that leads out of the folder", "zh-TW": "{name}：略過，這個連結指向資料夾之外"},
    "pair": {"en": "{name}: read with its .ann file", "zh-TW": "{name}：和它的 .ann 檔一起讀取"},
    "empty": {"en": "{name}: left out: no rows", "zh-TW": "{name}：略過，沒有任何資料"},
    "failed": {"en": "left out: {error}", "zh-TW": "略過：{error}"},
    "order": {"en": "the query has no ORDER BY: the rows may come in another order the next time", "zh-TW": "查詢沒有 ORDER BY：下次資料的順序可能不同"},
    "media": {"en": "columns {columns} hold images or sound and are left out", "zh-TW": "欄位 {columns} 是影像或聲音，已略過"},
}  # fmt: skip


def note(kind: str, **values: str) -> Note:
    """A line for the reader in both languages."""
    return {lang: text.format(**values) for lang, text in NOTES[kind].items()}
