"""What the words of a text weigh: content words much, function words little. Used by support, extract, refusal.

On the folded tokens of ingest.text, so that scripts, widths and word forms are already equal.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from ingest.text import CJK, fold, stem, tokens
from kb.facts import table

Idf = Callable[[list[str]], dict[str, float]]
UNSEEN = 1.15  # what the library does not have weighs this times the question's most telling term

FUNCTION_WORDS = """
a about after again all also am an and any are as at be because been before being both but by can could did do does
doing done down each either else etc even ever every few for from get gets getting give given go goes going got had has
have having he her here him his how however i if in into is it its just kind let lets like make makes many may me might
more most much must my need needs no nor not now of off often on once one only or other our out over own per please
really same say see shall she should since so some someone something still such take tell than that the their them then
there these they thing things this those through to too under until up us use used using very want wants was way we well
were what when where whether which while who whom whose why will with within without would yes yet you your
"""
# Folded to Simplified. A bigram that holds one of these characters says little; nor does one of the second list.
FUNCTION_CHARACTERS = frozenset(
    "的了是在和与或也就都而及有吗呢吧啊么什哪这那它他她我你您们被把让给从于若但只又很之其此些个请怎谁"
)
_BIGRAMS = """
可以 需要 应该 因为 所以 如果 如何 为何 为什 怎样 多少 几个 是否 要用 使用 不能 不会 不要 不用 要不 会不 能不 没有 还是 还会 对于
关于 由于 为了 可能 能够 应当 想要 一个 时候 该怎 要怎 会怎 能否 可否 要设
"""
FUNCTION_BIGRAMS = frozenset(_BIGRAMS.split())

# Chinese words that ask and say nothing of what about, in both scripts; they outweigh a short question's one term
_ASKING = re.compile(
    r"[什甚][麼么]是|是[什甚][麼么]|[請请][問问]|怎[麼么樣样]|如何|[為为][什甚][麼么]|[什甚][麼么]意思|[什甚][麼么]|[嗎吗呢吧]"
    r"|[要該该][設设][為为]?|[應应]?[該该]|多少|哪[個个些]|可以"
)
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
    return 0.05 if token in FUNCTION_BIGRAMS or set(token) & FUNCTION_CHARACTERS else 1.0


@lru_cache(maxsize=4096)
def content(text: str) -> dict[str, float]:
    """Distinct tokens of a text that carry content, with their weight. Do not change the dict: it is shared."""
    return {token: weight(token) for token in tokens(text) if weight(token) > 0}


def gist(question: str) -> str:
    """A question without its question words, for searching: 「DPO 是什麼」 finds pages on DPO, not pages with 什麼."""
    rest = _ASKING.sub(" ", question)
    return rest if content(rest) else question


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


@dataclass(frozen=True)
class Slot:
    """A word of a question, or a Chinese character of one, and the ways in which a text can hold it.

    Each alternative is a set of tokens that must all be there. For a character these are the bigrams on
    either side: one of them is a word, the other runs across two and is found in no text. `name`: see identifiers.
    """

    alternatives: tuple[frozenset[str], ...]
    weight: float
    name: bool = False

    def held(self, present: set[str]) -> bool:
        return any(alternative <= present for alternative in self.alternatives)


@lru_cache(maxsize=256)
def slots(question: str) -> tuple[Slot, ...]:
    """The content of a question, word by word; glossary terms count as held in any of their spellings."""
    folded = fold(question)
    synonyms, names = _synonyms(folded), identifiers(question)
    found = []
    for match in re.finditer(rf"[{CJK}]+|(?:(?![{CJK}])[^\W_])(?:(?![{CJK}])[\w.+-])*", folded):
        run, start = match.group(), match.start()
        places = _characters(run, start) if re.match(f"[{CJK}]", run) else _words(run, start)
        for at, alternatives, value in places:
            other = [tokens_ for begin, end, tokens_ in synonyms if begin <= at < end]
            ways = tuple(frozenset(way) for way in [*alternatives, *other])
            found.append(Slot(ways, value, squeezed(run) in names))
    return tuple(found)


def _words(run: str, start: int) -> list[tuple[int, list[set[str]], float]]:
    """A word, or the pieces of one (qwen3-4b), each held as it stands or in its letters and digits (12gb, 12 gb)."""
    pieces = [run] if _is_number(run) else [piece for piece in re.split(r"[._+-]", run) if piece]
    places = []
    for piece in pieces:
        whole, *parts = tokens(piece) or [""]
        grouped = (
            set(f"{int(piece):,}".split(",")) if piece.isascii() and piece.isdigit() else {whole}
        )  # 2048, 2,048
        ways = [way for way in ({whole}, set(parts), grouped) if way]
        if weight(whole) > 0:
            places.append((start, ways))
    return [(at, alternatives, 1.0 / len(places)) for at, alternatives in places]


def _characters(run: str, start: int) -> list[tuple[int, list[set[str]], float]]:
    """Characters of half a word's weight each; those that only stand in function words are left out."""
    found = []
    for i, character in enumerate(run):
        around = [run[j : j + 2] for j in (i - 1, i) if 0 <= j < len(run) - 1]
        telling = [{bigram} for bigram in around if weight(bigram) > 0.5]
        if telling and character not in FUNCTION_CHARACTERS:
            found.append((start + i, telling, 0.5))
    return found


def _synonyms(folded: str) -> list[tuple[int, int, set[str]]]:
    """(begin, end, tokens of another spelling) for each glossary term in a folded text."""
    found = []
    for spellings in _glossary():
        for spelling in spellings:
            for begin, end in _places(spelling, folded):
                others = [_telling(other) for other in spellings if other != spelling]
                found += [(begin, end, set(other)) for other in others if other]
    return found


def _places(spelling: str, folded: str) -> Iterator[tuple[int, int]]:
    """Where a spelling stands as a word. By hand: a pattern for each of a thousand would cost a second to compile."""
    begin = folded.find(spelling)
    while begin >= 0:
        end = begin + len(spelling)
        end += next((len(ending) for ending in ("es", "s") if folded.startswith(ending, end)), 0)
        if not (_is_latin(folded[begin - 1 : begin]) and _is_latin(spelling[0])) and not (
            _is_latin(folded[end : end + 1]) and _is_latin(spelling[-1])
        ):
            yield begin, end
        begin = folded.find(spelling, begin + 1)


def _is_latin(character: str) -> bool:
    return character.isalnum() and not re.match(f"[{CJK}]", character)


@lru_cache(maxsize=2048)
def _telling(spelling: str) -> frozenset[str]:
    return frozenset(token for token in tokens(spelling) if weight(token) > 0.5)


@lru_cache(maxsize=1)
def _glossary() -> list[list[str]]:
    rows = table("glossary")
    return [list(dict.fromkeys(fold(s) for s in (row.en, row.zh_TW, row.zh_CN, *row.also))) for row in rows]


def weighted(question: str, idf: Idf) -> list[tuple[Slot, float, bool]]:
    """(slot, weight, known) of a question: weight times how telling the slot is in this library.

    A slot that the library does not hold in any way weighs most.
    """
    found = slots(question)
    rarity = idf(sorted({token for slot in found for a in slot.alternatives for token in a}))
    values = [
        min(
            (max(rarity.get(t, 0) for t in a) for a in s.alternatives if all(rarity.get(t) for t in a)),
            default=0.0,
        )
        for s in found
    ]
    top = max([*values, 1.0])
    return [
        (s, s.weight * (value or UNSEEN * top) / top, value > 0)
        for s, value in zip(found, values, strict=True)
    ]


def held(wanted: list[tuple[Slot, float, bool]], present: set[str]) -> float:
    """Share of a question's weight that a text with these tokens holds, 0 to 1."""
    total = sum(value for _, value, _ in wanted)
    return sum(value for slot, value, _ in wanted if slot.held(present)) / total if total else 0.0
