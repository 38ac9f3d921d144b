"""Answering without a model: the sentences and table rows that bear on the question, quoted and cited.

Hits in, a `Cited` out. One leading sentence that answers, then short points under their headings.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from assistant.citations import Unit, is_claim, units
from assistant.markers import Cited
from assistant.terms import content, coverage
from assistant.types import Hit
from ingest.text import fold, glossary_terms

MAX_POINTS = 7  # after the leading sentence
MAX_A_HIT = 3
MAX_STEPS = 8  # a list of steps is only of use whole
MAX_LENGTH = 900  # Han characters, or two and a half times as many others
HITS = 4
SHARE = 0.5  # a point must score this share of the best

ASKS_NUMBER = re.compile(
    r"how (?:many|much|big|large|long|high)|what (?:value|number|size|rate|rank)|which (?:value|rate|rank)|多少|几个|几次|几轮|多大|多久|多高|设多|几层|几行|几笔|几条|范围"
)
ASKS_STEPS = re.compile(r"\bhow (?:do|to|can|should)\b|怎么|如何|该怎|步骤|流程|steps?\b")
DEPENDENT = re.compile(
    r"(?:it|this|that|these|those|they|such|so|but|and|however|therefore|also|here|both|otherwise|then)\b|(?:它|这|这些|那|此|因此|所以|但|不过|而且|另外|其|以上|否则|接着|然后)",
    re.I,
)
OTHER_LANGUAGE = {
    "en": "The passages are in another language, quoted as they are:",
    "zh-TW": "以下內容照原文引用：",
    "zh-CN": "以下内容照原文引用：",
}


@dataclass(frozen=True)
class Scored:
    """A unit of hit `hit` (index from 0) and how much it bears on the question."""

    unit: Unit
    hit: int
    score: float


def compose(question: str, hits: list[Hit], idf: Callable[[list[str]], dict[str, float]], lang: str) -> Cited:
    """The answer in quotes. `idf` tells how telling a token is in this library (0: not in it).

    The result has no text when no unit bears on the question at all.
    """
    cited = Cited(hits)
    ranked = rank(question, hits[:HITS], idf)
    if not ranked or ranked[0].score <= 0:
        return cited
    lead = _lead(ranked)
    points = _points(question, lead, ranked, hits)
    foreign = not lang.startswith(hits[lead.hit].lang[:2])
    if foreign:
        cited.say(OTHER_LANGUAGE[lang] + "\n\n")
    _write(cited, lead)
    _write_points(cited, lead, points, hits)
    cited.finish()
    return cited


def rank(question: str, hits: list[Hit], idf: Callable[[list[str]], dict[str, float]]) -> list[Scored]:
    """All units of the hits, best first: the idf-weighted share of the question's content that a unit has,
    its place in a good hit, and whether it has the kind of thing asked for."""
    wanted = content(question)
    extra = {term: 0.5 for term in glossary_terms(question) if term not in wanted}
    rarity = idf(sorted({*wanted, *extra}))
    weights = {term: value * rarity.get(term, 0.0) for term, value in {**extra, **wanted}.items()}
    folded = fold(question)
    number, steps = bool(ASKS_NUMBER.search(folded)), bool(ASKS_STEPS.search(folded))
    scored = []
    for index, hit in enumerate(hits):
        heading = content(f"{hit.heading.split(' › ')[-1]}")
        near = coverage(weights, heading)
        for unit in units(hit.text):
            if not is_claim(unit.text) and unit.kind != "row":
                continue
            own = coverage(weights, content(f"{unit.header if unit.kind == 'row' else ''} {unit.raw}"))
            score = own + 0.35 * near + 0.3 * hit.score / (index + 1)
            score += 0.12 * (unit.order == 0)
            score += 0.12 * (number and bool(re.search(r"\d", unit.raw)))
            score += 0.05 * (steps and unit.kind == "item")
            score -= 0.25 * bool(DEPENDENT.match(fold(unit.raw))) + 0.1 * (_length(unit.text) > 160)
            scored.append(Scored(unit, index, score))
    return sorted(scored, key=lambda s: (-s.score, s.hit, s.unit.order))


def _lead(ranked: list[Scored]) -> Scored:
    """The best unit that can stand first: a sentence before a list item of nearly the same score."""
    best = ranked[0]
    for other in ranked:
        if other.score < 0.85 * best.score:
            break
        if other.unit.kind != "item" and not DEPENDENT.match(fold(other.unit.raw)):
            return other
    return best


def _points(question: str, lead: Scored, ranked: list[Scored], hits: list[Hit]) -> list[Scored]:
    """What follows the lead: other units that bear on the question and say something new."""
    chosen = [lead]
    if ASKS_STEPS.search(fold(question)):
        chosen += _steps(lead, ranked)
    room = MAX_LENGTH - sum(_length(s.unit.text) for s in chosen)
    for other in ranked:
        if len(chosen) > MAX_POINTS or other.score < SHARE * lead.score:
            break
        same = sum(s.hit == other.hit for s in chosen)
        if same >= MAX_A_HIT + (other.hit == lead.hit) or _length(other.unit.text) > room:
            continue
        if any(_repeats(other.unit, s.unit) for s in chosen):
            continue
        chosen.append(other)
        room -= _length(other.unit.text)
    return chosen[1:]


def _steps(lead: Scored, ranked: list[Scored]) -> list[Scored]:
    """The list that a leading sentence introduces, whole."""
    items = [
        s for s in ranked if s.hit == lead.hit and s.unit.kind == "item" and s.unit.order > lead.unit.order
    ]
    items.sort(key=lambda s: s.unit.order)
    return items[:MAX_STEPS] if len(items) >= 3 else []


def _repeats(a: Unit, b: Unit) -> bool:
    """Whether one unit says little beyond the other."""
    one, two = content(a.text), content(b.text)
    return bool(one and two) and max(coverage(one, two), coverage(two, one)) > 0.8


def _write(cited: Cited, scored: Scored) -> None:
    cited.say(cited.claim(scored.unit.text, [scored.hit], scored.unit.raw))


def _write_points(cited: Cited, lead: Scored, points: list[Scored], hits: list[Hit]) -> None:
    """Points by hit, the lead's first, in the passage's order; a heading where another passage begins."""
    order = sorted({s.hit for s in points}, key=lambda hit: (hit != lead.hit, hit))
    for hit in order:
        group = sorted((s for s in points if s.hit == hit), key=lambda s: s.unit.order)
        cited.say("\n\n" if hit == lead.hit else f"\n\n**{_title(hits[hit])}**\n\n")
        for i, scored in enumerate(group):
            cited.say(("\n" if i else "") + "- ")
            _write(cited, scored)


def _title(hit: Hit) -> str:
    """Page and section, or the one that there is."""
    parts = hit.heading.split(" › ")
    return re.sub(r"[*_`\[\]<>]", "", " › ".join(dict.fromkeys([parts[0], parts[-1]])))


def _length(text: str) -> float:
    """Length as the eye sees it: Han characters, others at two fifths."""
    han = len(re.findall(r"[\u2e80-\u9fff]", text))
    return han + (len(text) - han) * 0.4
