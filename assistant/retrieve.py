"""Question → hits: words and meaning, fused. Between ingest/index.py and assistant/answer.py."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from assistant.types import Hit
from ingest.chunker import Chunk
from ingest.index import Index
from ingest.text import detect_lang, glossary_terms, tokens

CANDIDATES = 50
DENSE_WEIGHT = 0.5  # of a question that the embedder reads in full
GLOSSARY_WEIGHT = 0.3


def search(
    index: Index, question: str, k: int = 5, lang: str | None = None, source: str | None = None
) -> list[Hit]:
    """The k passages that fit a question best, best first.

    `lang` is the reader's language ("zh-TW", "zh-CN", "en"; default: the question's): of a knowledge-base
    section that is there in several languages only one counts, the reader's if it can be had.
    `source` restricts to "kb", a file or a folder. Scores are in 0..1.
    """
    lang = lang or detect_lang(question)
    words = index.lexical(term_weights(question), CANDIDATES, source)
    weight = dense_weight(index, question)
    meaning = index.dense(_embedded(index, question), CANDIDATES, source) if weight else []
    scores = fuse(words, meaning, weight)
    best = sorted(scores, key=lambda i: (-scores[i], i))
    chunks = index.get(best)
    return _one_language(index, chunks, scores, lang)[:k]


def term_weights(question: str) -> dict[str, float]:
    """Index terms of a question with their weights; the glossary's other spellings at a low one."""
    weights: dict[str, float] = {}
    for token in tokens(question):
        weights[token] = weights.get(token, 0.0) + 1.0
    for token in glossary_terms(question):
        weights.setdefault(token, GLOSSARY_WEIGHT)
    return weights


def dense_weight(index: Index, question: str) -> float:
    """Weight of meaning against words: none when most of the question is unknown to the embedder."""
    unknown = index.embedder.unknown_share(question)
    return DENSE_WEIGHT * max(0.0, 1 - 2 * unknown)


def fuse(words: list[tuple[str, float]], meaning: list[tuple[str, float]], weight: float) -> dict[str, float]:
    """Convex combination of scores, each divided by the best of its list."""
    best = max((score for _, score in words), default=0.0) or 1.0
    scores = {i: (1 - weight) * score / best for i, score in words}
    for i, cosine in meaning:
        scores[i] = scores.get(i, 0.0) + weight * max(0.0, cosine)
    return scores


def hit(chunk: Chunk, score: float) -> Hit:
    return Hit(
        id=chunk.id, page=chunk.page, heading=chunk.heading, lang=chunk.lang, text=chunk.text,
        score=round(min(1.0, max(0.0, score)), 6), sources=chunk.sources, anchor=chunk.anchor, source=chunk.source,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _embedded(index: Index, question: str) -> np.ndarray:
    return index.embedder.embed([question])[0]


def _one_language(index: Index, chunks: list[Chunk], scores: dict[str, float], lang: str) -> list[Hit]:
    """Hits, best first, each section of the knowledge base in one language: the reader's where it is there.

    A section found in another language only is exchanged for its translation, at the score of what was found.
    """
    kept: dict[str, Hit] = {}
    languages: dict[tuple[str, str], str] = {}
    for chunk in chunks:
        score = scores[chunk.id]
        if chunk.source == "kb":
            section = (chunk.page, chunk.anchor)
            if section not in languages:
                chunk = _in_language(index, chunk, lang)
                languages[section] = chunk.lang
            elif languages[section] != chunk.lang:
                continue
        kept.setdefault(chunk.id, hit(chunk, score))
    return list(kept.values())


def _in_language(index: Index, chunk: Chunk, lang: str) -> Chunk:
    wanted = "zh-TW" if lang.startswith("zh") else "en"  # the languages of the pages
    if chunk.lang == wanted:
        return chunk
    translation = index.get([f"kb:{chunk.page}:{wanted}#{chunk.anchor}"])
    return translation[0] if translation else chunk
