"""Characters of many texts counted by kind in one pass of numpy: what token estimates and script checks stand on.

A regular expression a kind and a text was the slowest part of checking a large file.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

OTHER, HAN, TRADITIONAL, SIMPLIFIED, LETTER, DIGIT, ASCII_MARK, CJK_MARK, WIDE_DIGIT, SPACE = range(10)
WORD = 10  # a run of LETTER, counted once
KINDS = 11
HIGHEST = 0x40000  # code points from here on are OTHER
TOGETHER = 1 << 17  # characters at a time, so that they stay in the cache


def counted(texts: Sequence[str]) -> np.ndarray:
    """int64 [texts, KINDS]: how many characters of each kind a text holds; HAN are those of either script."""
    result = np.zeros((len(texts), KINDS), np.int64)
    for at in [at for at, text in enumerate(texts) if len(text) > TOGETHER]:
        # A word that is cut counts twice, one in many thousands.
        pieces = [texts[at][start : start + TOGETHER] for start in range(0, len(texts[at]), TOGETHER)]
        result[at] = sum(_counted([piece])[0] for piece in pieces)
    short = [at for at, text in enumerate(texts) if len(text) <= TOGETHER]
    result[short] = _in_parts([texts[at] for at in short])
    return result


def _in_parts(texts: Sequence[str]) -> np.ndarray:
    result = np.zeros((len(texts), KINDS), np.int64)
    start = 0
    while start < len(texts):
        end, size = start, 0
        while end < len(texts) and size < TOGETHER:
            size += len(texts[end]) + 1
            end += 1
        result[start:end] = _counted(texts[start:end])
        start = end
    return result


def _counted(texts: Sequence[str]) -> np.ndarray:
    raw = ("\0".join(texts) + "\0").encode("utf-32-le", "surrogatepass")
    kinds = _table()[np.minimum(np.frombuffer(raw, "<u4"), HIGHEST)]
    of_text = np.repeat(np.arange(len(texts)), [len(text) + 1 for text in texts])
    found = np.bincount(of_text * KINDS + kinds, minlength=len(texts) * KINDS).reshape(-1, KINDS)
    letters = kinds == LETTER
    begun = letters & ~np.concatenate([[False], letters[:-1]])
    found[:, WORD] = np.bincount(of_text[begun], minlength=len(texts))
    found[:, OTHER] -= 1  # the separator
    return found


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    from trainer.data.language import one_script_only

    table = np.zeros(HIGHEST + 1, np.uint8)
    for first, last in ((0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)):
        table[first : last + 1] = HAN
    for kind, chars in zip((TRADITIONAL, SIMPLIFIED), one_script_only(), strict=True):
        table[[ord(char) for char in chars]] = kind
    for first, last in ((0x3001, 0x303F), (0xFF00, 0xFFEF)):
        table[first : last + 1] = CJK_MARK
    for first, last in ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)):
        table[first : last + 1] = ASCII_MARK
    for code in range(0x20000):
        if chr(code).isspace():
            table[code] = SPACE
        elif chr(code).isdecimal():
            table[code] = WIDE_DIGIT if table[code] == CJK_MARK else DIGIT
    for first, last in ((0x41, 0x5A), (0x61, 0x7A)):
        table[first : last + 1] = LETTER
    return table
