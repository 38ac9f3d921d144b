"""Is the question answered in this library at all? Decided from the hits alone, before any model is asked.

Nothing here knows what the knowledge base is about: a user's own documents pass the same gate.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from assistant.citations import units
from assistant.terms import content, coverage
from assistant.types import Hit
from ingest.text import glossary_terms

LOOKED_AT = 5
UNSEEN = 1.25  # a term that the library does not have weighs this times its rarest term
THRESHOLD = 0.5
WEIGHTS = {"bias": -4.0, "passage": 6.0, "unit": 3.0, "union": 2.0, "mass": 0.2}

Idf = Callable[[list[str]], dict[str, float]]


def answerable(question: str, hits: list[Hit], idf: Idf) -> float:
    """Probability, 0..1, that the hits hold the answer (logistic regression on `features`)."""
    if not hits:
        return 0.0
    x = features(question, hits, idf)
    z = WEIGHTS["bias"] + sum(WEIGHTS[name] * value for name, value in x.items() if name in WEIGHTS)
    return 1 / (1 + math.exp(-z))


def features(question: str, hits: list[Hit], idf: Idf) -> dict[str, float]:
    """How much of the question's content the best passage, the best unit and all the hits together hold.

    Weights of terms are idf in this library; one that it lacks counts more than its rarest. A glossary
    term counts as held where another of its spellings is.
    """
    wanted = content(question)
    rarity = idf(sorted(wanted))
    top = UNSEEN * max([*rarity.values(), 1.0])
    weights = {term: value * (rarity.get(term) or top) for term, value in wanted.items()}
    other = set(glossary_terms(question))
    passages = [set(content(f"{hit.heading}\n{hit.text}")) for hit in hits[:LOOKED_AT]]
    pieces = [
        set(content(f"{hit.heading} {u.header} {u.raw}")) for hit in hits[:LOOKED_AT] for u in units(hit.text)
    ]
    present = set().union(*passages)
    return {
        "passage": max(coverage(weights, p) for p in passages),
        "unit": max([coverage(weights, p) for p in pieces], default=0.0),
        "union": coverage(weights, present),
        "mass": min(20.0, max(sum(w for t, w in weights.items() if t in p) for p in passages)),
        "glossary": float(bool(other & present)),
        "unseen": sum(value for term, value in wanted.items() if not rarity.get(term))
        / (sum(wanted.values()) or 1),
        "terms": min(20.0, sum(wanted.values())),
    }
