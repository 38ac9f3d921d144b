"""Answering without a model: the sentences and table rows that bear on the question, quoted and cited.

Hits in, a `Cited` out. One leading sentence that answers, then short points under their headings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from assistant.citations import Unit, cells_of, is_claim, plain, row_text, units
from assistant.markers import Cited, strip_markers
from assistant.terms import Idf, Slot, content, coverage, held, identifiers, slots, weighted
from assistant.types import Hit
from ingest.text import fold, glossary_terms, tokens

MAX_POINTS = 6  # after the leading sentence
MAX_A_HIT = 3
MAX_CELLS = 4  # of a table row, beside its name
MAX_STEPS = 8  # a list of steps is only of use whole
MAX_LENGTH = 900  # Han characters, or two and a half times as many others
HITS = 6
SHARE = 0.6  # a point must score this share of the best,
ELSEWHERE = 0.7  # and one of another page than the leading sentence this

ASKS_NUMBER = re.compile(
    r"how (?:many|much|big|large|long|high)|what (?:value|number|size|rate|rank)|which (?:value|rate|rank)|多少|几个|几次|几轮|多大|多久|多高|设多|几层|几行|几笔|几条|范围"
)
ASKS_STEPS = re.compile(r"\bhow (?:do|to|can|should)\b|怎么|如何|该怎|步骤|流程|steps?\b")
ASKS_MEANING = re.compile(
    r"^what(?: is|'s| are| does)(?! the\b)|\bmeans?\b|\bdefine\b|什么是|是什么|是啥|什么意思"
)
MEANING = re.compile(r"^\W*.{0,40}?(?:\bis\b|\bare\b|\bmeans\b|\bstands for\b|是|指)")
FIRST_WORD = re.compile(r"\W*(?:(?:the|an?) )?([\u4e00-\u9fff]{2}|[a-z][\w-]*)")
DEPENDENT = re.compile(
    r"(?:it|this|that|these|those|they|such|so|but|and|however|therefore|also|here|both|otherwise|then)\b|(?:它|这|这些|那|此|因此|所以|但|不过|而且|另外|其|以上|否则|接着|然后)",
    re.I,
)
CONDITION = re.compile(r"`[^`]+` *[=<>]")
OTHER_LANGUAGE = {
    "en": "The passages are in another language, quoted as they are:",
    "zh-TW": "以下內容照原文引用：",
    "zh-CN": "以下内容照原文引用：",
}


@dataclass(frozen=True)
class Scored:
    """A unit of hit `hit` (index from 0), how much it bears on the question, and its share of what that names.

    `keyed`: it is a table's row of a name that the question has to the letter.
    """

    unit: Unit
    hit: int
    score: float
    named: float
    keyed: bool = False


def compose(question: str, hits: list[Hit], idf: Idf, lang: str) -> Cited:
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
    _write(cited, lead, question)
    _write_points(cited, lead, points, hits, question)
    cited.finish()
    return cited


def rank(question: str, hits: list[Hit], idf: Idf) -> list[Scored]:
    """All units of the hits, best first: the share of the question's content that a unit holds, whether its
    heading is about it, its place in a good hit, and whether it has the kind of thing that is asked for."""
    wanted = weighted(question, idf)
    folded = fold(question)
    asks_number, asks_steps = bool(ASKS_NUMBER.search(folded)), bool(ASKS_STEPS.search(folded))
    asks_meaning = bool(ASKS_MEANING.search(folded))
    named, asked = _named(question), set(tokens(question))
    known = asked | set(glossary_terms(question))
    best = max(hit.score for hit in hits) or 1.0
    scored = []
    for index, hit in enumerate(hits):
        head = set(tokens(hit.heading))
        near = held(wanted, head)
        standing = 0.3 * near + 1.0 * hit.score / best
        answers = held(wanted, set(tokens(hit.asked))) if hit.asked else 0.0
        for unit in units(hit.text):
            if not is_claim(unit.text) and unit.kind != "row":
                continue
            own = set(tokens(unit.raw))
            frame = own | head | set(tokens(unit.header))
            has = _share(named, frame)
            score = standing + 0.7 * held(wanted, own) + 0.3 * held(wanted, frame) + 0.25 * has
            # what is asked in other words is answered by how the section begins
            score += answers * (0.5 if unit.order == 0 else 0.2)
            score += 0.1 * (unit.order == 0) + 0.05 * (asks_steps and unit.kind == "item")
            score += 0.15 * (asks_number and bool(re.search(r"\d", unit.raw)))
            if asks_meaning and unit.kind == "sentence":
                score += _defines(fold(unit.raw), wanted, known) + 0.3 * (
                    hit.anchor == "top" and unit.order == 0
                )
            elif unit.order == 0 and unit.kind == "sentence":  # what it is was not the question
                score -= 0.2 * bool(_defines(fold(unit.raw), wanted, known) >= 0.5)
            if unit.kind == "row" and named:  # the row of another size or card than the one asked about
                score -= 0.3 * (1 - _share(_named(unit.raw.split("|")[0]), asked))
            score += 0.3 * keyed(unit, question)
            score -= 0.25 * bool(DEPENDENT.match(fold(unit.raw))) + 0.1 * (_length(unit.text) > 160)
            score -= 0.2 * bool(CONDITION.search(unit.raw))  # written for programs, reads badly
            scored.append(Scored(unit, index, score, has, keyed(unit, question)))
    return sorted(scored, key=lambda s: (-s.score, s.hit, s.unit.order))


@lru_cache(maxsize=4096)
def keyed(unit: Unit, question: str) -> bool:
    """Whether a table row is that of a name in the question, to the letter: Phi-4, not Phi-4-reasoning."""
    if unit.kind != "row":
        return False
    name = re.sub(r"[*_`]", "", cells_of(unit.raw)[0]).strip()
    if not identifiers(name):
        return False
    spelt = r"[\s_-]*".join(re.escape(part) for part in re.split(r"[\s_-]+", fold(name)))
    return re.search(rf"(?<![a-z0-9.-]){spelt}(?![a-z0-9]|[-.][a-z0-9]| ?\d)", fold(question)) is not None


def _defines(sentence: str, wanted: list[tuple[Slot, float, bool]], known: set[str]) -> float:
    """For "what is X?": how much a sentence looks like "X …" and "X is …", rather than "the signs of X are …"."""
    first = FIRST_WORD.match(sentence)
    score = 0.3 * bool(first and known & set(content(first.group(1))))
    score += 0.3 * bool(score and re.match(r"[^\s(（]+ ?[(（]", sentence))  # LoRA (Low-Rank Adaptation) …
    if subject := MEANING.match(sentence):
        score += 0.5 * held(wanted, set(tokens(subject.group()))) * coverage(content(subject.group()), known)
    return score


def _named(text: str) -> list[Slot]:
    """What has a digit in it: sizes, versions, counts."""
    return [
        slot for slot in slots(text) if any(re.search(r"\d", token) for a in slot.alternatives for token in a)
    ]


def _share(wanted: list[Slot], present: set[str]) -> float:
    return sum(slot.held(present) for slot in wanted) / len(wanted) if wanted else 1.0


def _lead(ranked: list[Scored]) -> Scored:
    """The best unit that can stand first: one that holds the sizes and versions asked about before one that does
    not, a sentence before a row or list item of nearly the same score."""
    top = ranked[0].score
    near = [s for s in ranked if s.score >= 0.75 * top]
    near = [s for s in near if s.named >= max(other.named for other in near)]
    best = near[0]
    for other in near:
        if best.keyed or other.score < (0.9 if best.unit.kind == "row" else 0.8) * best.score:
            break
        if other.unit.kind == "sentence" and not DEPENDENT.match(fold(other.unit.raw)):
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
        if hits[other.hit].page != hits[lead.hit].page and other.score < ELSEWHERE * lead.score:
            continue
        same = sum(s.hit == other.hit for s in chosen)
        if same >= MAX_A_HIT + (other.hit == lead.hit) or _length(other.unit.text) > room:
            continue
        if any(_repeats(other.unit, s.unit) for s in chosen):
            continue
        chosen.append(other)
        room -= _length(other.unit.text)
    return chosen[1:]


def _steps(lead: Scored, ranked: list[Scored]) -> list[Scored]:
    """The list that comes right after the leading sentence's paragraph, whole."""
    items = [
        s
        for s in ranked
        if s.hit == lead.hit and s.unit.kind == "item" and s.unit.block == lead.unit.block + 1
    ]
    items.sort(key=lambda s: s.unit.order)
    return items[:MAX_STEPS] if len(items) >= 3 else []


def _repeats(a: Unit, b: Unit) -> bool:
    """Whether one unit says little beyond the other."""
    one, two = content(a.text), content(b.text)
    return bool(one and two) and max(coverage(one, two), coverage(two, one)) > 0.7


def _write(cited: Cited, scored: Scored, question: str) -> None:
    # a document's own [3] must not pass for one of our markers
    said = strip_markers(_short_row(scored.unit, question) or scored.unit.text)
    cited.say(cited.claim(said, [scored.hit], plain(scored.unit.raw)))


def _short_row(unit: Unit, question: str) -> str:
    """A row of a wide table with the cells whose header is in the question first, and no more than MAX_CELLS."""
    header, cells = cells_of(unit.header), cells_of(unit.raw)
    if unit.kind != "row" or len(cells) != len(header):
        return ""
    asked = content(question)
    places = sorted(range(1, len(cells)), key=lambda i: -coverage(content(header[i]), asked))
    shown = [0, *places[:MAX_CELLS]]
    return row_text([header[i] for i in shown], [cells[i] for i in shown])


def _write_points(cited: Cited, lead: Scored, points: list[Scored], hits: list[Hit], question: str) -> None:
    """Points by section, the lead's first, in the passage's order; a heading where another section begins."""
    sections: dict[str, list[Scored]] = {_title(hits[lead.hit]): []}
    for scored in sorted(points, key=lambda s: (s.hit, s.unit.order)):
        sections.setdefault(_title(hits[scored.hit]), []).append(scored)
    for number, (title, group) in enumerate(sections.items()):
        cited.say(f"\n\n**{title}**\n" if number else "\n" if group else "")
        for scored in group:
            cited.say("\n- ")
            _write(cited, scored, question)


def _title(hit: Hit) -> str:
    """Page and section, or the one that there is."""
    parts = hit.heading.split(" › ")
    return re.sub(r"[*_`\[\]<>]", "", " › ".join(dict.fromkeys([parts[0], parts[-1]])))


def _length(text: str) -> float:
    """Length as the eye sees it: Han characters, others at two fifths."""
    han = len(re.findall(r"[\u2e80-\u9fff]", text))
    return han + (len(text) - han) * 0.4
