"""What the words of a text weigh: content words much, function words little. Used by support, extract, refusal.

On the folded tokens of ingest.text, so that scripts, widths and word forms are already equal.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from ingest.text import CJK, fold, stem, tokens

FUNCTION_WORDS = """
a about after again all also am an and any are as at be because been before being both but by can could did do does
doing done down each either else etc even ever every few for from get gets getting give given go goes going got had has
have having he her here him his how however i if in into is it its just kind let lets like make makes many may me might
more most much must my need needs no nor not now of off often on once one only or other our out over own per please
really same say see shall she should since so some someone something still such take tell than that the their them then
there these they thing things this those through to too under until up us use used using very want wants was way we well
were what when where whether which while who whom whose why will with within without would yes yet you your
"""
# Folded to Simplified. A bigram that holds one of these characters says little.
FUNCTION_CHARACTERS = set(
    "的了是在和与或也就都而及有吗呢吧啊么什哪这那它他她我你您们该要会能可以被把让给对从到为于因所如若但只还又再很更最不没无之其此些个种样请想吃"
)
QUESTION_BIGRAMS = {
    "怎么",
    "什么",
    "如何",
    "为何",
    "哪个",
    "哪些",
    "多少",
    "几个",
    "应该",
    "可以",
    "需要",
    "请问",
    "是否",
    "要用",
    "使用",
}

# not \w: Chinese characters are letters to it, and 3 in 訓練3個epoch is a number
_NUMBER = re.compile(r"(?<![a-z0-9_.])(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e[+-]?\d+)?(?![a-z0-9_]*[a-z_])", re.I)
_NAME = re.compile(rf"(?:(?![{CJK}])[^\W_])(?:(?![{CJK}])[\w.+-])*", re.U)


@lru_cache(maxsize=1)
def _stop_stems() -> frozenset[str]:
    words = FUNCTION_WORDS.split()
    return frozenset(stem(words)) | frozenset(words)


@lru_cache(maxsize=65536)
def weight(token: str) -> float:
    """0 to 1: how much a folded token tells of what a text is about."""
    if not re.match(f"[{CJK}]", token):
        return 0.0 if token in _stop_stems() or (len(token) == 1 and token.isalpha()) else 1.0
    if len(token) == 1:
        return 0.0 if token in FUNCTION_CHARACTERS else 0.2
    return 0.05 if token in QUESTION_BIGRAMS or set(token) & FUNCTION_CHARACTERS else 1.0


@lru_cache(maxsize=4096)
def content(text: str) -> dict[str, float]:
    """Distinct tokens of a text that carry content, with their weight. Do not change the dict: it is shared."""
    return {token: weight(token) for token in tokens(text) if weight(token) > 0}


def coverage(wanted: dict[str, float], present: set[str] | dict[str, float]) -> float:
    """Share of the wanted weight that is present, 0 to 1."""
    total = sum(wanted.values())
    return sum(value for token, value in wanted.items() if token in present) / total if total else 0.0


def numbers(text: str) -> set[float]:
    """Free-standing numbers by value: 9,000 = 9000, .5 = 0.50, 1e-4 = 0.0001. Those inside names are not numbers."""
    found = set()
    for match in _NUMBER.finditer(unicodedata.normalize("NFKC", text)):
        try:
            found.add(float(match.group().rstrip(",").replace(",", "")))
        except ValueError:
            continue
    return found


def identifiers(text: str) -> set[str]:
    """Names that must not be mistaken: with a digit, an underscore or an inner capital, or all capitals. Folded."""
    found = set()
    for match in _NAME.finditer(unicodedata.normalize("NFKC", text)):
        name = match.group().rstrip(".+-")
        inner = name[1:].removesuffix("s")
        marked = any(c.isupper() for c in inner) or any(c.isdigit() or c == "_" for c in name)
        if len(name) > 1 and marked and any(c.isalpha() for c in name) and not _is_number(name):
            found.add(squeezed(name))
    return found


def squeezed(text: str) -> str:
    """Folded, without the separators that spellings of one name differ in: Qwen3 4B, Qwen3-4B, qwen3_4b."""
    return re.sub(r"[\s_-]+", "", fold(text))


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
