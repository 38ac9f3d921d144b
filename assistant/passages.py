"""Found sections → passages: each hit with what stands around it. Between retrieve.py (or rerank.py) and a reader or model.

Small sections are found best, larger passages answer best: the section that answers is often the neighbour of
the one whose words match. In the golden set the needed fact is in five sections for .88 of the questions, in the
same five with their surroundings for .94 (tests/bench/peers.py golden --alone).
"""

from __future__ import annotations

from dataclasses import replace

from assistant.types import Hit
from ingest.chunker import MAX_SIZE, Chunk, size
from ingest.index import Index

REACH = 12  # sections on either side that are looked at; more would not fit


def widened(index: Index, hits: list[Hit], k: int) -> list[Hit]:
    """The k best passages of at most MAX_SIZE (as ingest.chunker.size counts), best first.

    A hit takes in the sections after and before it in its document while they fit; its id, heading and anchor stay
    those of the section that was found. A hit that stands in an earlier passage already is left out. `parts` are
    the sections of a passage in reading order.
    """
    passages: list[Hit] = []
    taken: set[str] = set()
    for hit in hits:
        if len(passages) == k:
            break
        if hit.id in taken:
            continue
        sections = _around(index.neighbours(hit.id, REACH), hit.id, taken)
        taken.update(chunk.id for chunk in sections)
        passages.append(_joined(hit, sections) if len(sections) > 1 else hit)
    return passages


def _around(chunks: list[Chunk], found: str, taken: set[str]) -> list[Chunk]:
    """The chunk that was found and its neighbours, those after it first, in reading order."""
    first = last = next((i for i, chunk in enumerate(chunks) if chunk.id == found), None)
    if first is None:
        return []
    room = MAX_SIZE - size(chunks[first].text)
    grown = True
    while grown:
        grown = False
        for at in (last + 1, first - 1):
            if not 0 <= at < len(chunks) or chunks[at].id in taken:
                continue
            needed = size(chunks[at].text)
            if needed <= room:
                first, last, room, grown = min(first, at), max(last, at), room - needed, True
    return chunks[first : last + 1]


def _joined(hit: Hit, sections: list[Chunk]) -> Hit:
    """One passage of several sections, a heading line where another one begins; the sources of all, the found one's first."""
    lines, heading = [], hit.heading if sections[0].id == hit.id else ""
    for chunk in sections:
        if chunk.heading != heading:
            heading = chunk.heading
            lines.append(f"### {heading.rpartition(' › ')[2]}")
        lines.append(chunk.text)
    sources = {source["url"]: source for s in [hit, *sections] for source in s.sources}
    parts = [
        replace(hit, id=c.id, heading=c.heading, anchor=c.anchor, text=c.text, sources=c.sources, asked="")
        for c in sections
    ]
    return replace(hit, text="\n\n".join(lines), sources=list(sources.values()), parts=parts)
