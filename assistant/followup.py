"""A follow-up question made to stand alone, without a model: only what it lacks is carried over. Before retrieve.py.

"那 70B 呢？" after 「QLoRA 微調 8B 要多少記憶體？」 becomes 「QLoRA 微調 70B 要多少記憶體？」: a name takes the place of
the last name of its kind. "and the rank?" after "Which learning rate for LoRA?" becomes "and the rank? LoRA": a new
subject keeps the names that it does not replace.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from assistant.extract import ASKS_MEANING
from assistant.prompts import is_greeting
from assistant.situation import MODEL
from assistant.terms import content, gist, identifiers, squeezed
from ingest.text import CJK, fold
from kb.facts import table

TURNS = 4  # how many questions back a chain of follow-ups may reach
SHORT = 3.0  # content tokens: a question with fewer, and without a name, leans on the one before
NAMES_OF_ANSWER = 2

LEADS = re.compile(
    r"^(?:and|but|so|then|also|ok(?:ay)?|what about|how about|what if|same)\b"
    r"|^(?:那|还有|然后|所以|但|另外|换成|改成|改用|换)|(?:呢|的话)[?？\s]*$",
    re.I,
)
PRONOUN = re.compile(
    r"\b(?:it|its|they|them|their|these|those|this|one)\b|\bthat(?= (?:one|case|model|method|value|run|setting)\b|\s*[?.,!]|$)"
    r"|它|这个|那个|这样|那样|这种|那种|上面|刚才|前面|前者|后者"
)
ASIDE = re.compile(r"^(?:why|how come|how so|for example|为什么|为何|怎么说|例如|比如)[?？\s]*$")
# what a question may have beside a name and still ask nothing of its own: "那如果換成 70B 的話呢"
FILLER = re.compile(
    r"那么|如果|要是|换成|改成|改用|换|若|用|是|的话|呢|吗|那|和|跟|与|只有|有|在|对|要|卡|模型|显卡|还有|然后|所以|但|另外"
    r"|\b(?:instead|model|card|only|same|change|changes|different)\b"
)
# How names are told from subjects: the glossary's groups whose spellings in capitals name a method, a format or a tool.
NAME_GROUPS = {"adapters": "peft", "alignment": "method", "quantization": "format", "tools": "tool"}
FULL = "full fine-tuning"  # stands beside LoRA and QLoRA, though no name
REFERRED = ("peft", "method", "model")  # what "it" mostly stands for
PATTERNS = {
    "model": re.compile(MODEL, re.I),
    "gpu": re.compile(
        r"(?:\b(?:RTX|GTX)\s?(?:PRO\s)?A?\d{4}|\b[345]0[5-9]0|\b(?:A|H|B|GB|GH|L|T|V|MI)\d{1,3}0?[SX]?\b(?!\s?[Bb]))"
        r"(?:\s?Ti)?(?:\s?Super)?(?:\s?-?\d{2}\s?GB)?",
        re.I,
    ),
    "size": re.compile(r"(?<![\w.])\d+(?:\.\d+)?\s?[Bb](?![A-Za-z])"),
    "memory": re.compile(r"(?<![\w.])\d+(?:\.\d+)?\s?(?:GiB|GB|G)(?![A-Za-z])", re.I),
}

Message = dict[str, str]


@dataclass(frozen=True)
class Name:
    """A name in a question: what kind of thing it names, as written, and where."""

    kind: str
    text: str
    begin: int
    end: int


def carried_over(question: str, history: Sequence[Message]) -> str:
    """The question as it stands alone: with the names or the subject of the turns before that it lacks.

    `history` as in answer.ask. A question that does not lean on another one comes back as it is.
    """
    asked = [i for i, turn in enumerate(history) if turn.get("role") == "user" and _asks(turn["content"])]
    alone = ""
    for i in asked[-TURNS:]:
        said = history[i]["content"].strip()
        alone = _joined(said, alone, _answer_before(history, i)) if alone and leans(said) else said
    if not alone or not leans(question):
        return question
    return _joined(question, alone, _answer_before(history, len(history)))


def _asks(said: str) -> bool:
    return bool(content(said)) and not is_greeting(said)


def leans(question: str) -> bool:
    """Whether a question needs the one before it to be understood."""
    folded = fold(question).strip()
    named = bool(names(question))
    weight = sum(content(question).values())
    if LEADS.search(folded) or ASIDE.match(folded):
        return True
    if PRONOUN.search(folded):
        return not named or weight < 2 * SHORT
    if ASKS_MEANING.search(folded):
        return False
    return weight < SHORT and (not named or not _subject(question))


def names(question: str) -> list[Name]:
    """The names of a question in order: models, sizes, cards, amounts of memory, methods, formats, tools, tasks, others.

    A size inside a model's name (Qwen3-8B) is there twice.
    """
    text = unicodedata.normalize("NFKC", question)
    found = [
        Name(kind, match.group().strip(), match.start(), match.start() + len(match.group().strip()))
        for kind, pattern in PATTERNS.items()
        for match in pattern.finditer(text)
    ]
    inside = re.compile(r"(?<=[-_ ])\d+(?:\.\d+)?[Bb](?![A-Za-z])")
    for model in [name for name in found if name.kind == "model"]:
        found += [
            Name("size", m.group(), model.begin + m.start(), model.begin + m.end())
            for m in inside.finditer(model.text)
        ]
    taken = [(name.begin, name.end) for name in found]
    for name in [*_from_glossary(text), *_others(text)]:
        if not any(begin < name.end and name.begin < end for begin, end in taken):
            taken.append((name.begin, name.end))
            found.append(name)
    unique = {(name.kind, name.begin): name for name in found}
    return sorted(unique.values(), key=lambda name: (name.begin, -name.end))


def _joined(question: str, previous: str, answer: str) -> str:
    """A follow-up with what it lacks of the question before it, which stands alone already."""
    new, old = names(question), names(previous)
    if not _subject(question):
        return _replaced(question, new, previous, old)
    kinds = {name.kind for name in new}
    if "model" in kinds:
        kinds.add("size")
    missing = [name.text for name in old if name.kind not in kinds and not _within(name, old)]
    if PRONOUN.search(fold(question)) and not any(name.kind in REFERRED for name in [*old, *new]):
        told = [name.text for name in names(_first_sentence(answer)) if name.kind in REFERRED]
        missing += told[:NAMES_OF_ANSWER]
    missing = missing or [gist(previous).strip("?？ ")] if not old else missing
    have = squeezed(question)
    return " ".join([question, *dict.fromkeys(m for m in missing if squeezed(m) not in have)])


def _replaced(question: str, new: list[Name], previous: str, old: list[Name]) -> str:
    """The previous question, each new name in the place of the last old one of its kind; the others at the end."""
    text = unicodedata.normalize("NFKC", previous)
    edits: list[tuple[int, int, str]] = []
    rest: list[str] = []
    for kind in dict.fromkeys(name.kind for name in new if not _within(name, new)):
        texts = [name.text for name in new if name.kind == kind and not _within(name, new)]
        places = [name for name in old if name.kind == kind]
        if not places:
            rest += [t for t in texts if squeezed(t) not in squeezed(text)]
        elif not any(squeezed(place.text) == squeezed(t) for place in places for t in texts):
            edits.append(
                (
                    places[-1].begin,
                    places[-1].end,
                    "、".join(texts) if re.search(f"[{CJK}]", text) else ", ".join(texts),
                )
            )
    for begin, end, put in sorted(edits, reverse=True):
        text = text[:begin] + put + text[end:]
    return " ".join([text, *rest] if new else [text, question])


def _subject(question: str) -> bool:
    """Whether a question has content beside names and filler: something that it asks about."""
    text = unicodedata.normalize("NFKC", question)
    for name in reversed(names(question)):
        text = text[: name.begin] + " " + text[name.end :]
    rest = FILLER.sub(" ", LEADS.sub(" ", fold(text)))
    return sum(content(rest).values()) >= 0.5


def _within(name: Name, names_: list[Name]) -> bool:
    return any(
        other is not name and other.begin <= name.begin and name.end <= other.end and other.text != name.text
        for other in names_
    )


def _from_glossary(text: str) -> list[Name]:
    folded = fold(text)
    if len(folded) != len(text):  # places in one are not places in the other
        return []
    found = []
    for spelling, kind in _spellings():
        begin = folded.find(spelling)
        while begin >= 0:
            end = begin + len(spelling)
            if _bounded(folded, begin, end):
                found.append(Name(kind, text[begin:end], begin, end))
            begin = folded.find(spelling, end)
    return sorted(found, key=lambda name: name.begin - name.end)  # the longest first


def _bounded(text: str, begin: int, end: int) -> bool:
    """Whether no Latin word goes on at either end."""
    latin = lambda pair: len(pair) == 2 and all(c.isalnum() and not re.match(f"[{CJK}]", c) for c in pair)
    return not latin(text[max(begin - 1, 0) : begin + 1] if begin else "") and not latin(
        text[end - 1 : end + 1]
    )


@lru_cache(maxsize=1)
def _spellings() -> list[tuple[str, str]]:
    """(folded spelling, kind) of the glossary's names."""
    methods = {method.id for method in table("methods")}
    found = []
    for row in table("glossary"):
        for spelling in (row.en, row.zh_TW, row.zh_CN, *row.also):
            folded = fold(spelling)
            if row.group == "tasks" or row.en == FULL:
                found.append((folded, "task" if row.group == "tasks" else "peft"))
            elif folded in methods:
                found.append((folded, "method"))
            elif row.group in NAME_GROUPS and (identifiers(spelling) or row.group == "tools"):
                found.append((folded, NAME_GROUPS[row.group]))
    return list(dict.fromkeys(found))


def _others(text: str) -> list[Name]:
    """Words written as names: with a digit or capitals inside, or with a capital in mid-sentence."""
    found = []
    for match in re.finditer(rf"(?:(?![{CJK}])[^\W_])(?:(?![{CJK}])[\w.+-])*", text):
        word = match.group().rstrip(".+-")
        middle = match.start() > 0 and re.search(r"[a-z,] $", text[: match.start()]) is not None
        if identifiers(word) or (middle and word[0].isupper() and len(word) > 1):
            found.append(Name("other", word, match.start(), match.start() + len(word)))
    return found


def _answer_before(history: Sequence[Message], i: int) -> str:
    """What the assistant said right before turn i, "" if it did not."""
    return history[i - 1]["content"] if i > 0 and history[i - 1].get("role") == "assistant" else ""


def _first_sentence(answer: str) -> str:
    return re.split(r"(?<=[。！？!?])|(?<=\.)\s|\n", answer.strip(), maxsplit=1)[0]
