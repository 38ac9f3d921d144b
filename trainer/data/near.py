"""Near repeats among many texts by MinHash, in numpy: sketch() in any process, groups() where all sketches are.

Broder 1997; b-bit signatures after Li and König 2010 (arXiv:0910.3349); banding as in Leskovec et al., ch. 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHINGLE = 4  # characters of folded text
HASHES, BANDS = 64, 16
SIMILAR = 0.75  # estimated Jaccard; with 64 hashes its standard error is 0.05, so that pairs of 0.8 are seldom missed
LONGEST = 20_000  # characters of a text that are looked at
TOGETHER = 1 << 16  # characters at a time, so that they stay in the cache
LIMIT = 4_000_000  # texts compared: 128 bytes each, half a gigabyte
BUCKET = 4  # texts of a bucket that a text is compared with

_random = np.random.default_rng(20261124)
_MULTIPLY = _random.integers(0, 2**31, HASHES, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
_ADD = _random.integers(0, 2**32, HASHES, dtype=np.uint32)
_POWERS = _random.integers(0, 2**63, SHINGLE, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_MIX = _random.integers(0, 2**32, (HASHES // BANDS,), dtype=np.uint32) | np.uint32(1)


@dataclass
class Sketches:
    """Of n texts: `signatures` uint8 [n, 64], the low bytes of the minima; `bands` uint32 [n, 16]."""

    signatures: np.ndarray
    bands: np.ndarray

    @staticmethod
    def joined(parts: list[Sketches]) -> Sketches:
        if not parts:
            return sketch([])
        return Sketches(
            np.concatenate([part.signatures for part in parts]),
            np.concatenate([part.bands for part in parts]),
        )


def sketch(texts: list[str]) -> Sketches:
    """Sketches of folded texts (splits.fold)."""
    minima = np.empty((len(texts), HASHES), np.uint32)
    start = 0
    while start < len(texts):
        end, size = start, 0
        while end < len(texts) and size < TOGETHER:
            size += min(len(texts[end]), LONGEST) + SHINGLE
            end += 1
        minima[start:end] = _minima([text[:LONGEST] or "\0" for text in texts[start:end]])
        start = end
    mixed = (minima.reshape(-1, BANDS, HASHES // BANDS) * _MIX).sum(axis=2, dtype=np.uint64)
    return Sketches(
        (minima & 255).astype(np.uint8), ((mixed ^ (mixed >> np.uint64(29))) & 0xFFFFFFFF).astype(np.uint32)
    )


def _minima(texts: list[str]) -> np.ndarray:
    gap = "\0" * (SHINGLE - 1)
    codes = np.frombuffer((gap.join(texts) + gap).encode("utf-32-le", "replace"), "<u4").astype(np.uint64)
    lengths = np.array([len(text) for text in texts])
    starts = np.concatenate([[0], np.cumsum(lengths + len(gap))[:-1]])
    hashes = codes[: len(codes) - len(gap)] * _POWERS[0]
    for at in range(1, SHINGLE):
        hashes = hashes + codes[at : len(codes) - len(gap) + at] * _POWERS[at]
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(0x9E3779B97F4A7C15)
    short = (hashes >> np.uint64(32)).astype(np.uint32)
    # Only whole shingles count, or one of a shorter text: those that run into the gap after a text would make two
    # short texts of different ends unlike (one more "!" at 27 characters: a Jaccard of .77 instead of .96).
    inside = np.zeros(len(short) + 1, np.int8)
    np.add.at(inside, starts, 1)
    np.add.at(inside, starts + np.maximum(1, lengths - SHINGLE + 1), -1)
    outside = np.cumsum(inside[:-1]) == 0
    result = np.empty((len(texts), HASHES), np.uint32)
    for k in range(HASHES):
        values = short * _MULTIPLY[k] + _ADD[k]
        values[outside] = 0xFFFFFFFF
        result[:, k] = np.minimum.reduceat(values, starts)
    return result


def groups(sketches: Sketches, similar: float = SIMILAR, among: np.ndarray | None = None) -> np.ndarray:
    """For each text the index of the first text of its group: itself where nothing is like it.

    `among` are the texts looked at (bool [texts]); the others stand alone.
    """
    parent = np.arange(len(sketches.bands), dtype=np.int32)
    chosen = parent.copy() if among is None else np.flatnonzero(among).astype(np.int32)
    for band in range(BANDS):
        # Key and index sorted as one number: numpy sorts those fastest, and equal keys keep the texts' order.
        keys = (sketches.bands[chosen, band].astype(np.uint64) << np.uint64(32)) | chosen.astype(np.uint64)
        keys.sort()
        order = (keys & np.uint64(0xFFFFFFFF)).astype(np.int32)
        keys >>= np.uint64(32)
        same = keys[1:] == keys[:-1]
        if not same.any():
            continue
        # Each text is compared with the one before it in its bucket and with the bucket's first.
        begins = np.concatenate([[True], ~same])
        firsts = np.maximum.accumulate(np.where(begins, np.arange(len(order), dtype=np.int32), 0))
        later = np.flatnonzero(same) + 1
        for other in (order[later - 1], order[firsts[later]]):
            parent = _joined(parent, order[later], other, sketches.signatures, similar)
    return parent


def like(sketches: Sketches, others: Sketches, similar: float = SIMILAR) -> np.ndarray:
    """Which texts are like one of `others`; bool [texts]. Nothing is kept of them, so that they may be any number."""
    found = np.zeros(len(sketches.bands), bool)
    for band in range(BANDS):
        order = np.argsort(others.bands[:, band])
        keys = others.bands[order, band]
        at = np.searchsorted(keys, sketches.bands[:, band])
        for step in range(BUCKET):
            place = np.minimum(at + step, len(keys) - 1)
            rows = np.flatnonzero((keys[place] == sketches.bands[:, band]) & ~found)
            alike = sketches.signatures[rows] == others.signatures[order[place[rows]]]
            found[rows[alike.mean(axis=1) >= similar]] = True
    return found


def _joined(parent: np.ndarray, ones: np.ndarray, others: np.ndarray, signatures: np.ndarray, similar: float) -> np.ndarray:  # fmt: skip
    """The groups once the pairs that are alike are in one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    new = np.flatnonzero(parent[ones] != parent[others])
    alike = [
        rows[(signatures[ones[rows]] == signatures[others[rows]]).mean(axis=1) >= similar]
        for rows in (new[at : at + 100_000] for at in range(0, len(new), 100_000))
    ]
    pairs = np.concatenate([new[:0], *alike])
    if not len(pairs):
        return parent
    # Only the groups that are joined make the graph, which is small however many texts there are.
    names, places = np.unique(
        np.concatenate([parent[ones[pairs]], parent[others[pairs]]]), return_inverse=True
    )
    half = len(pairs)
    edges = coo_array(
        (np.ones(half, np.int8), (places[:half], places[half:])), shape=(len(names), len(names))
    )
    count, label = connected_components(edges, directed=False)
    first = np.full(count, len(parent), parent.dtype)
    np.minimum.at(first, label, names)
    renamed = np.arange(len(parent), dtype=parent.dtype)
    renamed[names] = first[label]
    return renamed[parent]
