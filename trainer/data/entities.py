"""Named entities in text, from BIO tags or from spans, as the answer that a model writes: a JSON list.

For convert.py: [{"text": "中共中央", "type": "ORG"}], in the order of the text.
"""

from __future__ import annotations

import json
from typing import Any

START, END, KIND = (
    ("start", "start_offset", "begin"),
    ("end", "end_offset"),
    ("label", "type", "entity", "tag"),
)
TOKENS = ("tokens", "words", "chars")
TAGS = ("ner_tags", "tags", "labels", "bio_tags", "ner")
SPANS = ("entities", "spans", "ner", "labels", "label", "annotations")


def answer(entities: list[tuple[str, str]]) -> str:
    """The list as JSON text."""
    return json.dumps([{"text": text, "type": label} for text, label in entities], ensure_ascii=False)


def joined(tokens: list[str]) -> str:
    """Tokens as running text: a space between them, none beside Chinese characters."""
    text = ""
    for token in tokens:
        wide = not text or _wide(text[-1]) or _wide(token[:1])
        text += token if wide else f" {token}"
    return text


def _wide(char: str) -> bool:
    return char >= "\u2e80"


def from_tags(tokens: list[str], tags: list[str]) -> tuple[list[tuple[str, str]], bool]:
    """(entities, whether the tags follow each other). Reads BIO, BIOES and BMEO; a stray I- begins an entity."""
    entities: list[tuple[list[str], str]] = []
    open_kind, sound = "", True
    for token, tag in zip(tokens, tags, strict=False):
        mark, _, kind = tag.partition("-")
        if not kind:
            sound = sound and mark in ("O", "")
            open_kind = ""
            continue
        inside = mark in ("I", "E", "M", "L") and open_kind == kind
        if not inside:
            sound = sound and mark in ("B", "S", "U")
            entities.append(([], kind))
        entities[-1][0].append(token)
        open_kind = kind if mark in ("B", "I", "M") else ""
    return [(joined(parts), kind) for parts, kind in entities], sound


def from_spans(text: str, spans: Any) -> list[tuple[str, str]] | None:
    """Entities of spans as [start, end, label] or {"start", "end", "label"}; None where one is not in the text.

    CLUENER's {label: {entity: [[first, last]]}} counts the last character in, the others do not.
    """
    if isinstance(spans, dict):
        spans = _by_label(text, spans)
    found = []
    for span in spans if isinstance(spans, list) else [None]:
        if isinstance(span, dict):
            values = [
                next((span[name] for name in names if name in span), None) for names in (START, END, KIND)
            ]
        else:
            values = list(span[:3]) if isinstance(span, list) else []
        whole = len(values) == 3 and all(type(value) is int for value in values[:2])
        if not whole or not isinstance(values[2], str) or not 0 <= values[0] < values[1] <= len(text):
            return None
        found.append((values[0], text[values[0] : values[1]], values[2]))
    return [(part, label) for _, part, label in sorted(found, key=lambda item: item[0])]


def _by_label(text: str, spans: dict[str, Any]) -> list[Any] | None:
    """[start, end, label] of CLUENER's form; None where an entity does not stand where it is said to."""
    found = []
    for label, named in spans.items():
        for entity, places in named.items() if isinstance(named, dict) else [("", None)]:
            for place in places if isinstance(places, list) else [None]:
                whole = isinstance(place, list) and len(place) == 2 and all(type(at) is int for at in place)
                if not whole or text[place[0] : place[1] + 1] != entity:
                    return None
                found.append([place[0], place[1] + 1, label])
    return found


def is_spans(value: Any) -> bool:
    """Whether a cell is a list of spans, or CLUENER's {label: {entity: places}} (an empty one says nothing)."""
    if isinstance(value, dict):
        named = next(iter(value.values()), None)
        return isinstance(named, dict) and all(isinstance(places, list) for places in named.values())
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, dict):
        return any(name in first for name in START) and any(name in first for name in END)
    return isinstance(first, list) and len(first) >= 3 and type(first[0]) is int and type(first[1]) is int
