"""Question → hits: words and meaning, fused. Between ingest/index.py and assistant/answer.py."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from datetime import date
from functools import lru_cache

import numpy as np

from assistant.terms import Slot, held, weighted
from assistant.types import Hit
from ingest.chunker import Chunk
from ingest.embedder import Embedder
from ingest.index import Index
from ingest.readers import ASKED
from ingest.text import clean, detect_lang, fold, glossary_matches, tokens

CANDIDATES = 50
LONGEST = 2000  # characters of a question that are looked at
# Fitted on XQuAD and DRCD (tests/bench/retrieval.py). In English this convex combination beats rank fusion (RRF, k = 60)
# and words alone by .010, in Chinese all three are within .002. The optimum is flat: a third more or less costs < .002.
DENSE_WEIGHT = 0.5  # of a question that the embedder reads in full
WORDING = (2, 5)  # lengths of character n-grams: short ones forgive inflection, long ones see equal phrases
WORDING_WEIGHT = 0.45  # against BM25
RARITY = 1.25  # a term counts idf ** 1.25; BM25 itself has idf ** 1
GLOSSARY_WEIGHT = 0.3
SATURATED = 1.5  # a full BM25 score, in sums of the terms' weights: a passage that says each about twice

# A passage of the library against one of a person's own files: of two that fit alike the person's comes first. At .75
# XQuAD-zh gains .004 of nDCG@10 and golden questions asked beside those files lose nothing; at .7 they do.
LIBRARY_WEIGHT = 0.75
# The next three are fitted on tests/assistant/golden.yaml.
HEADING_WEIGHT = 0.25  # what a heading holds of the question, against the passage
ASKED_WEIGHT = 1.0  # a question that a section answers, against the section's own words
PAGE_WEIGHT = 0.35  # the best passage of the page, against the passage itself
LONGEST_SECTION = 9  # passages of a section that are looked at

_NO_WORD = re.compile(r"[\W_]+")


def search(
    index: Index,
    question: str,
    k: int = 5,
    lang: str | None = None,
    source: str | None = None,
    since: date | None = None,
) -> list[Hit]:
    """The k passages that fit a question best, best first.

    `lang` is the reader's language ("zh-TW", "zh-CN", "en"; default: the question's): of a knowledge-base
    section that is there in several languages only one counts, the reader's if it can be had.
    `source` restricts to "kb", a file or a folder, `since` to documents changed on that day or later.
    Scores are in 0..1 and can be compared between questions.
    """
    index = index.within(source, since)
    found = candidates(index, question, max(CANDIDATES, k))
    ranked = answering(index, found, fuse(found), lang or detect_lang(question))
    return _one_language(index, ranked, lang or detect_lang(question), k)


@dataclass(frozen=True)
class Candidates:
    """What words and vectors found: scores by chunk id, of words for every candidate, of vectors for the nearest.

    `headings`: share of the question's weight that the chunk's heading holds; `wanted`: that weight, word by word.
    """

    wanted: list[tuple[Slot, float, bool]]
    words: dict[str, float]
    headings: dict[str, float]
    vectors: dict[str, float]
    dense_weight: float
    chunks: dict[str, Chunk]


def candidates(index: Index, question: str, limit: int = CANDIDATES) -> Candidates:
    """Both searches of one question, the best `limit` of each, before they are fused."""
    question = clean(question[:LONGEST])
    bm25 = {i: score for part in index.collections() for i, score in _bm25(part, question, limit).items()}
    weight = dense_weight(index, question)
    cosines = dict(index.dense(_embedded(index.embedder, question), limit)) if weight else {}
    chunks = {chunk.id: chunk for chunk in index.get([*bm25, *(i for i in cosines if i not in bm25)])}
    texts = [chunk.indexed() for chunk in chunks.values()]
    alike = sum(wording(question, texts, length) for length in WORDING) / len(WORDING)
    words = {
        i: (1 - WORDING_WEIGHT) * bm25.get(i, 0.0) + WORDING_WEIGHT * float(share)
        for i, share in zip(chunks, alike, strict=True)
    }
    wanted = weighted(question, index.idf)
    headings = {i: held(wanted, _tokens(chunk.heading)) for i, chunk in chunks.items()}
    vectors = {i: max(0.0, c) for i, c in cosines.items() if i in chunks}
    return Candidates(wanted, words, headings, vectors, weight, chunks)


def _bm25(index: Index, question: str, limit: int) -> dict[str, float]:
    """Chunk id → BM25 by the statistics of one collection, 1 for a passage that says all of the question about twice."""
    terms = term_weights(index, question)
    ideal = sum(full for _, full in terms.values()) * SATURATED or 1.0
    found = index.lexical({term: weight for term, (weight, _) in terms.items() if weight}, limit)
    return {i: score / ideal for i, score in found}


def fuse(found: Candidates) -> dict[str, float]:
    """Convex combination. A candidate beyond the nearest vectors is taken to be as near as the last of them.

    A heading lifts its passage and never lowers it: a person's plain text has none, and must not lose by that.
    """
    furthest = min(found.vectors.values(), default=0.0)
    weight = found.dense_weight
    scores = {}
    for i, words in found.words.items():
        score = (1 - weight) * words + weight * found.vectors.get(i, furthest)
        score += HEADING_WEIGHT * max(0.0, found.headings[i] - score)
        scores[i] = score * (LIBRARY_WEIGHT if found.chunks[i].source == "kb" else 1.0)
    return scores


@dataclass(frozen=True)
class Ranked:
    """A passage with its score, and the questions that it answers where these were what was found."""

    chunk: Chunk
    score: float
    asked: str = ""


def answering(index: Index, found: Candidates, scores: dict[str, float], lang: str) -> list[Ranked]:
    """The passages, best first, each found question (ingest.readers.ASKED) replaced by the section that answers it.

    Of a section the best passage takes the question's score where that is higher.
    """
    ranked = {i: Ranked(found.chunks[i], score) for i, score in scores.items() if not i.startswith(ASKED)}
    sections: dict[tuple[str, str], str] = {}
    for i in sorted(ranked, key=lambda i: (-ranked[i].score, i)):
        sections.setdefault((ranked[i].chunk.page, ranked[i].chunk.anchor), i)
    questions = [i for i in scores if i.startswith(ASKED)]
    for i in sorted(questions, key=lambda i: (-scores[i], i)):
        asked = found.chunks[i]
        section = (asked.page, asked.anchor)
        if section not in sections:
            best = _best_of_section(index, found, asked, lang)
            if best is None:
                continue
            sections[section] = best.id
            ranked[best.id] = Ranked(best, 0.0)
        one = ranked[sections[section]]
        if not one.asked:
            score = max(one.score, ASKED_WEIGHT * scores[i])
            ranked[sections[section]] = Ranked(one.chunk, score, asked.text)
    return _by_page(list(ranked.values()))


def _by_page(ranked: list[Ranked]) -> list[Ranked]:
    """Best first, a passage counting for more on the page (or in the file) that holds a better one."""
    best: dict[str, float] = {}
    for one in ranked:
        best[one.chunk.page] = max(one.score, best.get(one.chunk.page, 0.0))
    together = [
        replace(one, score=(1 - PAGE_WEIGHT) * one.score + PAGE_WEIGHT * best[one.chunk.page])
        for one in ranked
    ]
    return sorted(together, key=lambda one: (-one.score, -len(one.asked), one.chunk.id))


def _best_of_section(index: Index, found: Candidates, asked: Chunk, lang: str) -> Chunk | None:
    """The passage of a section that holds most of the question, in the reader's language."""
    wanted = "zh-TW" if lang.startswith("zh") else "en"
    first = f"kb:{asked.page}:{wanted}#{asked.anchor}"
    chunks = index.get([first, *(f"{first}/{number}" for number in range(2, LONGEST_SECTION))])
    return max(chunks, key=lambda chunk: held(found.wanted, _tokens(chunk.text)), default=None)


@lru_cache(maxsize=8192)
def _tokens(text: str) -> frozenset[str]:
    return frozenset(tokens(text))


def term_weights(index: Index, question: str) -> dict[str, tuple[float, float]]:
    """Index term → (its weight in the query, its part of a full score).

    A term that no passage holds has weight 0 and still its part: the question asked for it.
    The glossary's other spellings have no part; each is worth GLOSSARY_WEIGHT of the one in the question.
    """
    own = Counter(tokens(question))
    others = [
        (tokens(found), [tokens(other) for other in spellings])
        for found, spellings in glossary_matches(question)
    ]
    idf = index.idf(
        [*own, *{t for found, spellings in others for terms in (found, *spellings) for t in terms}]
    )
    nowhere = index.rarest
    part = {term: (rarity or nowhere) ** RARITY for term, rarity in idf.items()}
    weights = {t: (n * idf[t] ** (RARITY - 1) if idf[t] else 0.0, n * part[t]) for t, n in own.items()}
    for found, spellings in others:
        worth = GLOSSARY_WEIGHT * sum(part[term] for term in found)
        for terms in spellings:
            scale = worth / sum(part[term] for term in terms)
            for term in set(terms) - own.keys():
                weight = scale * idf[term] ** (RARITY - 1) if idf[term] else 0.0
                weights[term] = (max(weight, weights.get(term, (0.0, 0.0))[0]), 0.0)
    return weights


def dense_weight(index: Index, question: str) -> float:
    """Weight of vectors against words: falls to none when half of the question is unknown to the embedder."""
    return DENSE_WEIGHT * max(0.0, 1 - 2 * index.embedder.unknown_share(question))


def wording(question: str, texts: list[str], length: int) -> np.ndarray:
    """Share of the question's character n-grams that each text holds, those rare among the texts counting more."""
    wanted = np.unique(_grams(question, length))
    holds = np.zeros((len(texts), len(wanted)), bool)
    for row, text in enumerate(texts):
        grams = _grams(text, length)
        if len(grams):
            holds[row] = grams[grams.searchsorted(wanted).clip(max=len(grams) - 1)] == wanted
    count = holds.sum(axis=0)
    rarity = np.log1p((len(texts) - count + 0.5) / (count + 0.5))
    return holds @ rarity / max(rarity.sum(), 1e-9)


@lru_cache(maxsize=8192)
def _grams(text: str, length: int) -> np.ndarray:
    """Sorted codes of the character n-grams of a text, runs of other than letters and digits taken as a space."""
    letters = _letters(text)
    if len(letters) < length:
        return letters[:0]
    # Wraps around for n > 3; two grams of one text then share a code once in 10 ** 13 pairs.
    places = [np.uint64(0x1FFFFF3**place % 2**64) for place in range(length)]
    codes = letters[: len(letters) - length + 1] * places[0]
    for place in range(1, length):
        codes += letters[place : len(letters) - length + 1 + place] * places[place]
    codes.sort()
    return codes


@lru_cache(maxsize=8192)
def _letters(text: str) -> np.ndarray:
    plain = _NO_WORD.sub(" ", fold(text)).strip()
    return np.frombuffer(plain.encode("utf-32-le"), np.uint32).astype(np.uint64)


def hit(chunk: Chunk, score: float, asked: str = "") -> Hit:
    """A chunk as the assistant and the screen know it."""
    return Hit(
        id=chunk.id, page=chunk.page, heading=chunk.heading, lang=chunk.lang, text=chunk.text,
        score=round(min(1.0, score), 6), sources=chunk.sources, anchor=chunk.anchor, source=chunk.source, asked=asked,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _embedded(embedder: Embedder, question: str) -> np.ndarray:
    return embedder.embed([question])[0]


def _one_language(index: Index, ranked: list[Ranked], lang: str, k: int) -> list[Hit]:
    """The k best hits, each section of the knowledge base in one language: the reader's where it is there.

    A section found in another language only is exchanged for its translation, at the score of what was found.
    """
    kept: dict[str, Hit] = {}
    languages: dict[tuple[str, str], str] = {}
    for one in ranked:
        if len(kept) == k:
            break
        chunk = one.chunk
        if chunk.source == "kb":
            section = (chunk.page, chunk.anchor)
            if section not in languages:
                chunk = _in_language(index, chunk, lang)
                languages[section] = chunk.lang
            elif languages[section] != chunk.lang:
                continue
        kept.setdefault(chunk.id, hit(chunk, one.score, one.asked))
    return list(kept.values())


def _in_language(index: Index, chunk: Chunk, lang: str) -> Chunk:
    wanted = "zh-TW" if lang.startswith("zh") else "en"  # the languages of the pages
    if chunk.lang == wanted:
        return chunk
    translation = index.get([f"kb:{chunk.page}:{wanted}#{chunk.anchor}"])
    return translation[0] if translation else chunk
