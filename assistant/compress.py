"""Of a passage only what bears on the question: its lead sentence, sentences and rows that share the question's words,
and what these need to be understood. Pure. Between retrieve.py and prompts.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from assistant.citations import Unit, units
from assistant.extract import DEPENDENT
from assistant.terms import Slot, slots
from assistant.types import Hit
from ingest.text import fold, tokens

WHOLE = 120  # tokens: a passage of no more goes in whole, less would save little
# Share of the question's content that a piece must hold. Measured on the paragraphs of XQuAD (en, zh) and DRCD with their
# own questions, none taken whole: at 0.2 the answer is still there in 98, 96 and 98 % of them, at 68, 65 and 48 % of the
# tokens; at 0.3 in 95, 94 and 95 %.
SHARE = 0.2
MOST_ITEMS = 8  # of a list that a kept sentence introduces

FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t]*\1[ \t]*$|\Z)", re.M | re.S)


@dataclass(frozen=True)
class Piece:
    """A sentence, list item, table row or code block of a passage, in the passage's own words."""

    text: str
    kind: str
    block: int
    header: str
    tokens: frozenset[str]


def compressed(hit: Hit, question: str, count: Callable[[str], int], room: int) -> str:
    """The part of a hit's passage that goes to a model: at most `room` tokens by `count`, "" if nothing fits.

    A short passage is whole. Of a longer one what bears on the question; where that is too long for `room`,
    the pieces that bear least go first and the lead sentence last.
    """
    if count(hit.text) <= min(WHOLE, room):
        return hit.text
    pieces = _pieces(hit.text)
    if not pieces:  # nothing that can be taken apart
        return hit.text if count(hit.text) <= room else ""
    scores = _scores(pieces, question, hit.heading)
    kept = _kept(pieces, scores)
    text = _joined(pieces, kept)
    while kept and count(text) > room:
        kept.remove(min(kept, key=lambda i: (i == 0, scores[i], -i)))
        text = _joined(pieces, kept)
    return text


def _pieces(text: str) -> list[Piece]:
    """In the passage's order. Code counts as a block of its own after what stands before it."""
    found: list[tuple[int, Piece]] = []
    place = 0
    for unit in units(text):
        place = max(place, text.find(unit.raw, place))
        found.append((place, _piece(unit)))
        place += len(unit.raw)
    for match in FENCE.finditer(text):
        code = match.group().strip()
        found.append((match.start(), Piece(code, "code", -1 - match.start(), "", frozenset(tokens(code)))))
    return [piece for _, piece in sorted(found, key=lambda pair: pair[0])]


def _piece(unit: Unit) -> Piece:
    said = frozenset(tokens(f"{unit.header} {unit.raw}"))
    return Piece(unit.raw, unit.kind, unit.block, unit.header, said)


def _scores(pieces: list[Piece], question: str, heading: str) -> list[float]:
    """The share of the question that each piece holds, what the heading says already left out."""
    wanted = slots(question)
    about = set(tokens(heading))
    rest = tuple(slot for slot in wanted if not slot.held(about))
    return [max(_share(rest, piece.tokens), _share(wanted, piece.tokens)) for piece in pieces]


def _share(wanted: tuple[Slot, ...], present: frozenset[str]) -> float:
    total = sum(slot.weight for slot in wanted)
    return sum(slot.weight for slot in wanted if slot.held(present)) / total if total else 0.0


def _kept(pieces: list[Piece], scores: list[float]) -> list[int]:
    bearing = {i for i, score in enumerate(scores) if score >= SHARE}
    kept = {0, *bearing}
    for i, piece in enumerate(pieces[1:], 1):
        before = pieces[i - 1]
        dependent = piece.kind == "sentence" and DEPENDENT.match(fold(piece.text))
        if dependent and piece.block == before.block and (i in bearing or i - 1 in bearing):
            kept |= {i - 1, i}
        if piece.kind == "code" and i - 1 in bearing:
            kept.add(i)
    for i in sorted(kept):
        if pieces[i].text.rstrip("*_ ").endswith((":", "：")):
            kept |= _list_after(pieces, i)
    return sorted(kept)


def _list_after(pieces: list[Piece], i: int) -> set[int]:
    """What a sentence that ends with a colon introduces: the list or the code right after it."""
    found: set[int] = set()
    for j, piece in enumerate(pieces[i + 1 :], i + 1):
        if (
            piece.kind not in ("item", "code")
            or piece.block != pieces[i + 1].block
            or len(found) == MOST_ITEMS
        ):
            break
        found.add(j)
    return found


def _joined(pieces: list[Piece], kept: list[int]) -> str:
    """The pieces in order, neighbours of a paragraph on one line, the first row of a table under its header."""
    text, last = "", None
    for i in kept:
        piece = pieces[i]
        same = last is not None and last.block == piece.block
        if same and piece.kind == "sentence":
            text += " " + piece.text
        else:
            header = (
                f"| {piece.header} |\n" if piece.header and not (same and last.header == piece.header) else ""
            )
            shown = {"row": f"| {piece.text} |", "item": f"- {piece.text}"}.get(piece.kind, piece.text)
            text += ("\n" if text else "") + header + shown
        last = piece
    return text
