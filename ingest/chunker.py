"""Document → chunks: cut at headings, then at sentences; tables and code stay whole. Between readers and index.

A chunk's `text` is the passage as a reader sees it; `indexed()` puts its heading before it, which is
what both indexes see (contextual chunk headers).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil

from ingest.readers import Document
from ingest.text import IS_CJK

# A passage of 800 Chinese characters or about 330 English words: a paragraph stays in one piece, an answer
# can show it, and an embedder that reads 256 tokens sees most of it.
MAX_SIZE = 800.0
LATIN_SIZE = 0.4  # what a character that is not CJK counts
SEPARATORS = ["\n\n", "\n", "。", "！", "？", "；", ". ", "! ", "? ", "; ", "，", "、", ", ", " ", ""]

_HEADING = re.compile(r"^(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_ANCHOR = re.compile(r"[ \t]*\{#([\w-]+)\}$")
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)")
_FOOTNOTE = re.compile(r"\[\^([^\]\s]+)\]")
_TABLE_RULE = re.compile(r"^[ \t]*\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-*:?[ \t]*)*$")


@dataclass(frozen=True)
class Chunk:
    """A passage. `document` and `id` as in "kb:methods/lora:en" and "kb:methods/lora:en#rank/2"; `order` from 0."""

    id: str
    document: str
    page: str
    heading: str
    anchor: str
    lang: str
    text: str
    source: str
    order: int
    sources: list[dict[str, str]] = field(default_factory=list)
    modified: str = ""

    def indexed(self) -> str:
        """What is embedded and what the words are taken from: heading, then text."""
        return f"{self.heading}\n{self.text}"


@dataclass
class _Section:
    heading: str
    anchor: str
    lines: list[str] = field(default_factory=list)


def split(document: Document) -> list[Chunk]:
    """Chunks of one document in reading order. Ids depend on the page's headings only, not on its neighbours."""
    known = {source["key"]: source for source in document.sources if "key" in source}
    chunks: list[Chunk] = []
    seen: Counter[str] = Counter()
    for section in _sections(document):
        cited, lines = _without_footnotes(section.lines, known)
        if not any(line.strip() for line in lines):
            continue
        sources = [{k: v for k, v in known[key].items() if k != "key"} for key in (cited or known)]
        for text in _pack(_blocks(lines)):
            seen[section.anchor] += 1
            number = seen[section.anchor]
            chunks.append(
                Chunk(
                    id=f"{document.id}#{section.anchor}" + (f"/{number}" if number > 1 else ""),
                    document=document.id,
                    page=document.page,
                    heading=section.heading,
                    anchor=section.anchor,
                    lang=document.lang,
                    text=text,
                    source=document.source,
                    order=len(chunks),
                    sources=sources,
                    modified=document.modified,
                )
            )
    return chunks


def slug(heading: str) -> str:
    """Anchor of a heading that names none: letters and digits of any script, joined by hyphens."""
    return "-".join(re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", heading).lower()))[:80] or "section"


def _sections(document: Document) -> list[_Section]:
    """The text under each heading. A heading without an anchor of its own inside an anchored one keeps that anchor."""
    current = _Section(document.title, "top")
    sections, path = [current], []  # path: (level, heading, explicit anchor or "")
    fence = ""
    for line in document.text.split("\n"):
        fence = _fence_after(line, fence)
        heading = None if fence else _HEADING.match(line)
        if not heading or not heading.group(2):
            current.lines.append(line)
            continue
        level, title = len(heading.group(1)), heading.group(2)
        named = _ANCHOR.search(title)
        title = _FOOTNOTE.sub("", title[: named.start()] if named else title).strip()
        path = [entry for entry in path if entry[0] < level]
        inherited = next((anchor for _, _, anchor in reversed(path) if anchor), "")
        path.append((level, title, named.group(1) if named else inherited))
        names = [name for _, name, _ in path if name != document.title]
        anchor = path[-1][2] or ("top" if title == document.title else slug(title))
        current = _Section(" › ".join([document.title, *names]), anchor)
        sections.append(current)
    return sections


def _fence_after(line: str, fence: str) -> str:
    """The open code fence after this line, "" outside of code."""
    found = _FENCE.match(line)
    if not found:
        return fence
    if not fence:
        return found.group(1)
    return "" if found.group(1).startswith(fence) else fence


def _without_footnotes(lines: list[str], known: dict[str, dict]) -> tuple[list[str], list[str]]:
    """Keys of the cited sources in order, and the lines without their marks. Unknown marks are the author's text."""
    cited: dict[str, None] = {}

    def drop(match: re.Match[str]) -> str:
        if match.group(1) not in known:
            return match.group()
        cited[match.group(1)] = None
        return ""

    if known:
        lines = [_FOOTNOTE.sub(drop, line) for line in lines]
    return list(cited), lines


def _blocks(lines: list[str]) -> list[tuple[str, str]]:
    """(kind, text) with kind "table", "code" or "text"; blank lines part the texts."""
    blocks: list[tuple[str, list[str]]] = []
    fence = ""
    for i, line in enumerate(lines):
        was_open, fence = fence, _fence_after(line, fence)
        if was_open or fence:
            kind = "code"
        elif "|" in line and (
            _in_table(blocks)
            or (i + 1 < len(lines) and _TABLE_RULE.match(lines[i + 1]) and "|" in lines[i + 1])
        ):
            kind = "table"
        else:
            kind = "text"
        fresh = not blocks or blocks[-1][0] != kind or (kind == "code" and not was_open)
        if kind == "text" and not line.strip():
            blocks.append(("text", []))
        elif fresh:
            blocks.append((kind, [line]))
        else:
            blocks[-1][1].append(line)
    return [
        (kind, "\n".join(body).strip("\n")) for kind, body in blocks if any(line.strip() for line in body)
    ]


def _in_table(blocks: list[tuple[str, list[str]]]) -> bool:
    return bool(blocks) and blocks[-1][0] == "table"


def size(text: str) -> float:
    """Length in Han characters; another character counts LATIN_SIZE."""
    cjk = len(IS_CJK.findall(text))
    return cjk + (len(text) - cjk) * LATIN_SIZE


def _pack(blocks: list[tuple[str, str]]) -> list[str]:
    """Blocks joined up to MAX_SIZE; a block that is longer by itself is cut by its kind."""
    packed: list[str] = []
    for kind, text in blocks:
        if packed and size(packed[-1]) + size(text) <= MAX_SIZE:
            packed[-1] += "\n\n" + text
        else:
            packed.extend(_cut(kind, text))
    return packed


def _cut(kind: str, text: str) -> list[str]:
    if size(text) <= MAX_SIZE:
        return [text]
    if kind == "table":
        head, rows = text.split("\n")[:2], text.split("\n")[2:]
        return ["\n".join([*head, *group]) for group in _groups(rows, MAX_SIZE - size("\n".join(head)))]
    if kind == "code":
        lines = text.split("\n")
        closed = len(lines) > 1 and bool(_FENCE.match(lines[-1]))
        body = lines[1:-1] if closed else lines[1:]
        mark = _FENCE.match(lines[0]).group(1)
        return ["\n".join([lines[0], *group, mark]) for group in _groups(body, MAX_SIZE)]
    return [part.strip() for part in _splitter().split_text(text) if part.strip()]


def _groups(lines: list[str], limit: float) -> list[list[str]]:
    """Lines in order, in groups of at most `limit`; a single longer line is a group of its own."""
    groups: list[list[str]] = [[]]
    room = limit
    for line in lines:
        if groups[-1] and size(line) > room:
            groups.append([])
            room = limit
        groups[-1].append(line)
        room -= size(line)
    return groups


@lru_cache(maxsize=1)
def _splitter():
    # Half a second to import, so only where a paragraph is too long.
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    return RecursiveCharacterTextSplitter(
        chunk_size=int(MAX_SIZE), chunk_overlap=0, length_function=lambda text: ceil(size(text)),
        separators=SEPARATORS, keep_separator="end",
    )  # fmt: skip
