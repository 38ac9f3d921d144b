"""Language, Chinese script and number of tokens of texts, measured without a model or a tokenizer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from trainer.data import characters

HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
KANA = re.compile(r"[\u3040-\u30ff]")
HANGUL = re.compile(r"[\uac00-\ud7af]")
WORD = re.compile(r"[A-Za-z]+")
LETTER = re.compile(r"[^\W\d_]")
ENGLISH = frozenset(
    [
        "the",
        "a",
        "an",
        "of",
        "to",
        "in",
        "is",
        "it",
        "and",
        "for",
        "on",
        "that",
        "this",
        "with",
        "you",
        "i",
        "my",
        "was",
        "are",
        "be",
        "not",
        "have",
        "what",
        "how",
        "can",
    ]
)

# Tokens of Qwen's tokenizer (151,643 entries; Qwen2, Qwen2.5 and Qwen3 share it) by least squares over 6,000
# texts of ten public sets: reviews, banking questions, instructions, encyclopedia, web pages, in English and in
# both Chinese scripts. Set by set the sum is within 9 % of the tokenizer's. Spaces go with the word that follows.
PER_HAN = {"simplified": 0.53, "mixed": 0.6, "traditional": 0.75}
PER_WORD, PER_LETTER, PER_DIGIT, PER_ASCII_MARK, PER_CJK_MARK, PER_OTHER = 0.89, 0.046, 1.28, 0.68, 1.46, 1.19


def token_estimate(text: str, script: str = "simplified") -> int:
    """Tokens that a current multilingual tokenizer makes of a text, to about 10 % over a data set."""
    return int(token_estimates(characters.counted([text]), script)[0])


def token_estimates(counts: np.ndarray, script: str = "simplified") -> np.ndarray:
    """The same of many texts by their characters (characters.counted); int64 [texts]."""
    weights = np.zeros(characters.KINDS)
    weights[[characters.HAN, characters.TRADITIONAL, characters.SIMPLIFIED]] = PER_HAN.get(
        script, PER_HAN["simplified"]
    )
    weights[[characters.WORD, characters.LETTER, characters.DIGIT]] = PER_WORD, PER_LETTER, PER_DIGIT
    weights[[characters.ASCII_MARK, characters.CJK_MARK]] = PER_ASCII_MARK, PER_CJK_MARK
    weights[[characters.WIDE_DIGIT, characters.OTHER]] = PER_DIGIT + PER_CJK_MARK - PER_OTHER, PER_OTHER
    return np.rint(counts @ weights).astype(np.int64)


def language_of(texts: list[str], sample: int = 100_000) -> tuple[str, str]:
    """(language, script) of a data set by its first `sample` characters.

    Language: zh-TW, zh-CN, zh, en, ja, ko, mixed, other. Script: traditional, simplified, mixed, latin, other.
    """
    text = "\n".join(_until(texts, sample))
    han, kana, hangul = (len(pattern.findall(text)) for pattern in (HAN, KANA, HANGUL))
    words = WORD.findall(text)
    letters = len(LETTER.findall(text))
    if not letters:
        return "other", "other"
    if hangul > letters * 0.3:
        return "ko", "other"
    if kana > (han + kana) * 0.1 and kana + han > letters * 0.3:
        return "ja", "other"
    # A word of several letters says about as much as one and a half Han characters.
    share = han / (han + 1.5 * len(words)) if han or words else 0.0
    if share > 0.75:
        script = chinese_script(text)
        return {"traditional": "zh-TW", "simplified": "zh-CN"}.get(script, "zh"), script
    if share > 0.25:
        return "mixed", "mixed"
    if sum(map(len, words)) < letters * 0.6:
        return "other", "other"
    common = sum(word.lower() in ENGLISH for word in words)
    return ("en" if common > 0.1 * len(words) else "other"), "latin"


def chinese_script(text: str) -> str:
    """ "traditional", "simplified" or "mixed", by the characters that only one script writes."""
    counts = Counter(HAN.findall(text))
    only_traditional, only_simplified = _one_script_only(set(counts))
    traditional = sum(counts[char] for char in only_traditional)
    simplified = sum(counts[char] for char in only_simplified)
    total = traditional + simplified
    if total and traditional / total > 0.95:
        return "traditional"
    return "simplified" if not total or simplified / total > 0.95 else "mixed"


@lru_cache(maxsize=2)
def _converter(name: str) -> Callable[[str], str]:
    import opencc

    return opencc.OpenCC(name).convert


def _one_script_only(chars: set[str]) -> tuple[frozenset[str], frozenset[str]]:
    lines = "\n".join(sorted(chars))
    found = []
    for there, back in (("t2s", "s2t"), ("s2t", "t2s")):
        made = _converter(there)(lines).split("\n")
        # What the other direction would change too is written in both scripts (后, 里, 台).
        other = _converter(back)(lines).split("\n")
        found.append(
            frozenset(
                old
                for old, new, kept in zip(lines.split("\n"), made, other, strict=True)
                if new != old == kept
            )
        )
    return found[0], found[1]


def _until(texts: list[str], limit: int) -> list[str]:
    """Texts spread over the whole list, up to `limit` characters: a file is often sorted."""
    step = max(1, len(texts) // 2000)
    taken, size = [], 0
    for text in texts[::step]:
        taken.append(text[:2000])
        size += len(taken[-1])
        if size > limit:
            break
    return taken


def one_script_only() -> tuple[frozenset[str], frozenset[str]]:
    """Characters that only Traditional Chinese writes, and those that only Simplified does, of the common 20,992."""
    return _one_script_only({chr(code) for code in range(0x4E00, 0xA000)})
