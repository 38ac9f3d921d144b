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
LIMIT = 2_000_000  # texts compared: 128 bytes each

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
    # Shingles that begin in the gap after a text hold the next text's beginning: they never win.
    inside = np.zeros(len(short) + 1, np.int8)
    np.add.at(inside, starts, 1)
    np.add.at(inside, starts + lengths, -1)
    outside = np.cumsum(inside[:-1]) == 0
    result = np.empty((len(texts), HASHES), np.uint32)
    for k in range(HASHES):
        values = short * _MULTIPLY[k] + _ADD[k]
        values[outside] = 0xFFFFFFFF
        result[:, k] = np.minimum.reduceat(values, starts)
    return result


def groups(sketches: Sketches, similar: float = SIMILAR) -> np.ndarray:
    """For each text the index of the first text of its group: itself where nothing is like it."""
    count = len(sketches.bands)
    parent = np.arange(count)
    for band in range(BANDS):
        keys = sketches.bands[:, band]
        order = np.argsort(keys, kind="stable")
        same = keys[order][1:] == keys[order][:-1]
        if not same.any():
            continue
        # Each text is compared with the one before it in its bucket and with the bucket's first.
        firsts = np.maximum.accumulate(np.where(np.concatenate([[True], ~same]), np.arange(count), 0))
        later = np.flatnonzero(same) + 1
        neighbours = np.stack([order[later], order[later - 1]], axis=1)
        leaders = np.stack([order[later], order[firsts[later]]], axis=1)
        _join(parent, np.concatenate([neighbours, leaders]), sketches.signatures, similar)
    while (parent != parent[parent]).any():
        parent = parent[parent]
    return parent


def _join(parent: np.ndarray, pairs: np.ndarray, signatures: np.ndarray, similar: float) -> None:
    for start in range(0, len(pairs), 100_000):
        part = pairs[start : start + 100_000]
        alike = (signatures[part[:, 0]] == signatures[part[:, 1]]).mean(axis=1) >= similar
        for one, other in part[alike]:
            low, high = sorted((_root(parent, one), _root(parent, other)))
            parent[high] = low


def _root(parent: np.ndarray, index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return int(index)
