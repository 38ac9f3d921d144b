"""Question → hits: words and meaning, fused. Between ingest/index.py and assistant/answer.py."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from assistant.types import Hit
from ingest.chunker import Chunk
from ingest.embedder import Embedder
from ingest.index import Index
from ingest.text import detect_lang, fold, glossary_terms, tokens

CANDIDATES = 50
# Fitted on XQuAD and DRCD by tests/bench/retrieval.py, where this convex combination beats rank fusion
# (RRF, k = 60), words alone and vectors alone; flat around these values.
DENSE_WEIGHT = 0.5  # for a question that the embedder reads in full
TRIGRAM_WEIGHT = 0.4  # of the words' side; the rest is BM25
RARITY = 1.5  # a term counts idf ** 1.5; BM25 itself has idf ** 1
GLOSSARY_WEIGHT = 0.3
SATURATED = 1.5  # BM25 of a passage that says every term about twice, over the sum of the terms' idf

_NO_WORD = re.compile(r"[\W_]+")


def search(
    index: Index, question: str, k: int = 5, lang: str | None = None, source: str | None = None
) -> list[Hit]:
    """The k passages that fit a question best, best first.

    `lang` is the reader's language ("zh-TW", "zh-CN", "en"; default: the question's): of a knowledge-base
    section that is there in several languages only one counts, the reader's if it can be had.
    `source` restricts to "kb", a file or a folder. Scores are in 0..1 and can be compared between questions.
    """
    found = candidates(index, question, source)
    scores = fuse(found)
    best = sorted(scores, key=lambda i: (-scores[i], i))
    chunks = [found.chunks[i] for i in best]
    return _one_language(index, chunks, scores, lang or detect_lang(question))[:k]


@dataclass(frozen=True)
class Candidates:
    """What words and vectors each found, scores in 0..1 by chunk id, and the weight of the vectors."""

    words: dict[str, float]
    vectors: dict[str, float]
    dense_weight: float
    chunks: dict[str, Chunk]


def candidates(index: Index, question: str, source: str | None = None) -> Candidates:
    """Both searches of one question, before they are fused."""
    terms = term_weights(index, question)
    bm25 = dict(index.lexical({t: w for t, (w, _) in terms.items() if w}, CANDIDATES, source))
    ideal = sum(full for _, full in terms.values()) * SATURATED or 1.0
    weight = dense_weight(index, question)
    cosines = dict(index.dense(_embedded(index.embedder, question), CANDIDATES, source)) if weight else {}
    chunks = {chunk.id: chunk for chunk in index.get([*bm25, *(i for i in cosines if i not in bm25)])}
    shared = dict(zip(chunks, trigram_overlap(question, [c.indexed() for c in chunks.values()]), strict=True))
    words = {
        i: (1 - TRIGRAM_WEIGHT) * min(1.0, bm25.get(i, 0.0) / ideal) + TRIGRAM_WEIGHT * shared[i]
        for i in chunks
    }
    return Candidates(words, {i: max(0.0, c) for i, c in cosines.items() if i in chunks}, weight, chunks)


def fuse(found: Candidates) -> dict[str, float]:
    """Convex combination. A candidate beyond the nearest vectors is taken to be as near as the last of them."""
    furthest = min(found.vectors.values(), default=0.0) if len(found.vectors) >= CANDIDATES else 0.0
    weight = found.dense_weight
    return {
        i: (1 - weight) * words + weight * found.vectors.get(i, furthest) for i, words in found.words.items()
    }


def term_weights(index: Index, question: str) -> dict[str, tuple[float, float]]:
    """Index term → (its weight in the query, its part of a full score).

    A term that no passage holds has weight 0 and still its part: the question asked for it.
    The glossary's other spellings come at a low weight and without a part.
    """
    own, others = Counter(tokens(question)), glossary_terms(question)
    idf = index.idf([*own, *others])
    nowhere = max(idf.values(), default=0.0) or 1.0
    weights = {}
    for term, count in own.items():
        rarity = idf[term] or nowhere
        weights[term] = (count * rarity ** (RARITY - 1) if idf[term] else 0.0, count * rarity**RARITY)
    for term in others:
        weights[term] = (GLOSSARY_WEIGHT * idf[term] ** (RARITY - 1), 0.0)
    return weights


def dense_weight(index: Index, question: str) -> float:
    """Weight of vectors against words: falls to none when half of the question is unknown to the embedder."""
    return DENSE_WEIGHT * max(0.0, 1 - 2 * index.embedder.unknown_share(question))


def trigram_overlap(question: str, texts: list[str]) -> list[float]:
    """Share of the question's character trigrams that each text holds, rare ones among the texts counting more.

    BM25 over bigrams does not see longer runs of equal wording; this adds .004 (zh) to .005 (en) of nDCG@10.
    """
    plain = _plain(question)
    grams = list(dict.fromkeys(plain[i : i + 3] for i in range(len(plain) - 2)))
    holds = np.array([[gram in text for gram in grams] for text in map(_plain, texts)], bool).reshape(
        -1, len(grams)
    )
    count = holds.sum(axis=0)
    rarity = np.log1p((len(texts) - count + 0.5) / (count + 0.5))
    return (holds @ rarity / max(rarity.sum(), 1e-9)).tolist()


@lru_cache(maxsize=4096)
def _plain(text: str) -> str:
    return _NO_WORD.sub(" ", fold(text)).strip()


def hit(chunk: Chunk, score: float) -> Hit:
    """A chunk as the assistant and the screen know it."""
    return Hit(
        id=chunk.id, page=chunk.page, heading=chunk.heading, lang=chunk.lang, text=chunk.text,
        score=round(score, 6), sources=chunk.sources, anchor=chunk.anchor, source=chunk.source,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _embedded(embedder: Embedder, question: str) -> np.ndarray:
    return embedder.embed([question])[0]


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
