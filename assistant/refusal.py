"""Is the question answered in this library at all? Decided from the hits alone, before any model is asked.

Nothing here knows what the knowledge base is about: a user's own documents pass the same gate.
"""

from __future__ import annotations

import math
import re

from assistant.citations import units
from assistant.retrieve import dense_weight
from assistant.terms import Idf, Slot, held, identifiers, squeezed, weighted
from assistant.types import Hit
from ingest.index import Index
from ingest.text import CJK, glossary_matches, tokens

LOOKED_AT = 5
# Logistic regression on half of the questions of tests/bench/refusal_fit.py as they were before the golden set, one row
# for questions that the embedder reads, one for those found by words alone; `absent` by hand, on the dev parts. On the
# test parts of golden.yaml and near.yaml 21 of 31 questions without an answer are refused (12 without it) and 1 of 145
# with one. Rare Chinese characters as one more sign brought 22, and 8 wrongly: left out.
WITH_MEANING = {"bias": -10.52, "unit": 4.46, "raw": 2.44, "unseen": -10.45, "cosine": 10.11, "absent": -6.0}
WORDS_ALONE = {"bias": -1.02, "passage": 4.99, "unit": 2.88, "unseen": -7.19, "heading": 6.50, "absent": -8.0}
THRESHOLD = 0.5


def answerable(question: str, hits: list[Hit], index: Index) -> float:
    """Probability, 0..1, that the hits hold the answer; below THRESHOLD the question is refused."""
    if not hits:
        return 0.0
    x = features(question, hits, index)
    weights = WITH_MEANING if x["readable"] > 0.5 else WORDS_ALONE
    z = weights["bias"] + sum(value * x[name] for name, value in weights.items() if name != "bias")
    return 1 / (1 + math.exp(-z))


def features(question: str, hits: list[Hit], index: Index) -> dict[str, float]:
    """How much of the question's content the hits hold: shares of its weight, 0..1, except `raw` and `cosine`.

    passage: in the best passage and the questions that it answers; unit: in its best sentence, row or question;
    heading: in the best heading; unseen: in no document; raw: words in the best passage, at most 6; readable: how
    well the embedder reads the question; cosine: between the question and the nearest passage, 0 where the embedder does
    not read it; absent: names that no hit has, at most 2.
    """
    wanted = weighted(question, index.idf)
    hits = _with_names([slot for slot, _, _ in wanted if slot.name], hits[:LOOKED_AT])
    heads = [set(tokens(hit.heading)) for hit in hits]
    passages = [head | set(tokens(f"{hit.text} {hit.asked}")) for head, hit in zip(heads, hits, strict=True)]
    pieces = [
        head | set(tokens(piece))
        for head, hit in zip(heads, hits, strict=True)
        for piece in [*(f"{unit.header} {unit.raw}" for unit in units(hit.text)), *hit.asked.splitlines()]
    ]
    best = max(passages, key=lambda present: held(wanted, present))
    total = sum(slot.weight for slot, _, _ in wanted) or 1.0
    readable = min(1.0, 2 * dense_weight(index, question))
    near = index.dense(index.embedder.embed([question])[0], 1) if readable else []
    return {
        "passage": held(wanted, best),
        "unit": max((held(wanted, piece) for piece in pieces), default=0.0),
        "heading": max(held(wanted, head) for head in heads),
        "unseen": sum(slot.weight for slot, _, known in wanted if not known) / total,
        "raw": min(6.0, sum(slot.weight for slot, _, _ in wanted if slot.held(best))),
        "readable": readable,
        "cosine": readable * (near[0][1] if near else 0.0),
        "absent": min(2.0, float(len(absent(question, hits, index.idf)))),
    }


def _with_names(names: list[Slot], hits: list[Hit]) -> list[Hit]:
    """The hits that have all the names of the question, if there are any: today's price of an H100 is not answered
    by one passage with prices and another with the H100."""
    having = [
        hit for hit in hits if all(name.held(set(tokens(f"{hit.heading} {hit.text}"))) for name in names)
    ]
    return having or hits


def absent(question: str, hits: list[Hit], idf: Idf) -> set[str]:
    """Names of the question (of models, tools, settings) that no hit has, in no spelling of the glossary.

    A name has a digit, an underscore or inner capitals; between Chinese words a capital makes one of a word that the
    library does not know. Sizes and counts (7B, 24GB) are none: they need not be there to be answered.
    """
    named = identifiers(question)
    if re.search(f"[{CJK}]", question):
        capitals = re.findall(r"(?<![A-Za-z0-9.+_-])[A-Z][a-z]{2,}(?![A-Za-z0-9])", question)
        named |= {squeezed(word) for word in capitals if not any(idf(tokens(word)).values())}
    named = {name for name in named if not name[0].isdigit()}
    said = [squeezed(f"{hit.page} {hit.heading} {hit.text} {hit.asked}") for hit in hits] if named else []
    spelt = {squeezed(found): [squeezed(s) for s in others] for found, others in glossary_matches(question)}
    return {
        name
        for name in named
        if not any(
            way in text for text in said for way in (name, name.removesuffix("s"), *spelt.get(name, []))
        )
    }
