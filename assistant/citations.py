"""Does a passage say what a sentence claims? Sentence splitting and the support check, pure functions.

Every sentence of every answer, quoted or written by a model, goes through `support`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from assistant.terms import content, coverage, identifiers, numbers, squeezed
from assistant.types import Hit
from ingest.text import fold, glossary_terms

# At and above it a sentence counts as supported. tests/bench/answers.py: of claims made from XQuAD and DRCD questions with
# their answers 91 to 96 % pass on their own paragraph, 3 % on its neighbour, 1 to 7 % with another number put in.
SUPPORTED = 0.5

ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:(?i:e\.g|i\.e|vs|etc|cf|fig|eq|sec|no|approx|resp|al|dr|mr|mrs|ms|prof|st)|[A-Z])\.$"
)
END = re.compile(r"(?:[。！？!?]+|\.+(?=\s|$|[」』”’\"')\]\[【］])|…+)[」』”’\"'）)\]]*")
MARKERS = re.compile(
    r"(?:\s*[\[【［]\^?\s*[1-9]\d{0,2}(?:\s*[,，、;]\s*[1-9]\d{0,2})*\s*(?:†[^\]】］]*)?[\]】］])+"
)
CODE_OR_TAG = re.compile(r"`[^`\n]+`|</?[A-Za-z][^>]*>")  # `<think>` in code is said, not markup
FOOTNOTE = re.compile(r"\[\^[^\]\s]+\]")
NOT = re.compile(
    r"\b(?:not|no|never|cannot|without|nor)\b|n't\b|不(?!平衡|足|同|过|只|断|仅|管|论|少|错|良)|没有|没|无法|无需|未(?!来)|勿"
)
OPPOSITES = [
    (
        r"\b(?:increas|rais|higher|larger|more|grow)\w*",
        r"\b(?:decreas|lower|reduc|smaller|less|fewer|shrink)\w*",
    ),
    (r"提高|调高|加大|增加|升高|上升|更大|更高|变大", r"降低|调低|减少|减小|缩小|下降|更小|更低|变小"),
    (r"\b(?:always|must|required?)\b", r"\b(?:never|optional|unnecessary)\b"),
    (r"\bfaster\b|更快|较快", r"\bslower\b|更慢|较慢"),
]


@dataclass(frozen=True)
class Support:
    """`score` in 0..1, the passage's `quote` that carries most, and what the passage lacks of names and numbers."""

    score: float
    quote: str
    missing: tuple[str, ...] = ()


def sentence_end(text: str, start: int = 0, final: bool = False) -> int | None:
    """Where the sentence that begins at `start` ends, its markers included; None while that is not sure.

    `final` says that no more text comes. A line break ends a sentence too.
    """
    line = text.find("\n", start)
    stop = len(text) if line < 0 else line
    for match in END.finditer(text, start, stop):
        end = match.end()
        if match.group().startswith(".") and ABBREVIATION.search(text[start : match.start() + 1]):
            continue
        if markers := MARKERS.match(text, end, stop):
            end = markers.end()
        rest = text[end:stop]
        if not rest.strip() and line < 0 and not final:
            return None  # a marker may still follow
        if (
            rest.lstrip().startswith(("[", "【", "［"))
            and line < 0
            and not final
            and "]" not in rest
            and "】" not in rest
        ):
            return None
        if match.group().startswith(".") and rest[:1] and not rest[:1].isspace():
            continue
        return end
    if line >= 0:
        return line
    return len(text) if final and start < len(text) else None


def sentences(text: str) -> list[str]:
    """The sentences of a prose text or a model's answer, markers kept with the sentence they follow."""
    found, start = [], 0
    while (end := sentence_end(text, start, final=True)) is not None:
        if text[start:end].strip():
            found.append(text[start:end].strip())
        start = end + 1 if text[end : end + 1] == "\n" else max(end, start + 1)
    return found


@dataclass(frozen=True)
class Unit:
    """A quotable piece of a passage. `raw` stands in the passage word for word, `text` reads well alone."""

    text: str
    raw: str
    kind: str  # "sentence", "item" (of a list), "row" (of a table)
    order: int
    block: int  # paragraph, list or table of the passage that it stands in
    header: str = ""


@lru_cache(maxsize=512)
def units(passage: str) -> tuple[Unit, ...]:
    """Sentences, list items and table rows of a passage in order; headings, code and rulers left out."""
    return tuple(
        Unit(text, raw, kind, i, block, header)
        for i, (text, raw, kind, block, header) in enumerate(_pieces(passage))
    )


def _pieces(passage: str) -> Iterator[tuple[str, str, str, int, str]]:
    header: list[str] = []
    fenced, block, last = False, 0, ""
    for line in passage.splitlines():
        stripped = line.strip()
        if stripped.startswith(("```", "~~~")):
            fenced = not fenced
        if fenced or not stripped or stripped.startswith(("#", "<!--", ":::", "```", "~~~")):
            header, last = [], ""
            continue
        item = re.match(r"(?:[-*+]|\d{1,2}[.)、])\s+", stripped)
        kind = "row" if stripped.startswith("|") else "item" if item else "sentence"
        block += kind != last
        last = kind
        if kind == "row":
            cells = cells_of(stripped)
            if all(re.fullmatch(r":?-*:?", cell) for cell in cells):
                continue
            if not header:
                header = cells
                continue
            yield row_text(header, cells), stripped.strip("| "), kind, block, " | ".join(header)
            continue
        body = stripped[item.end() :] if item else stripped.lstrip("> ")
        for raw in [body] if item and len(body) < 240 else sentences(body):
            if re.search(r"\w", raw):
                yield plain(raw), raw, kind, block, ""


def cells_of(line: str) -> list[str]:
    return [
        plain(cell.replace("\\|", "|").strip()) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))
    ]


def row_text(header: list[str], cells: list[str]) -> str:
    """A table row as a line of text: **first cell**: second header: second cell; …"""
    chinese = bool(re.search(r"[\u4e00-\u9fff]", "".join(header + cells)))
    colon, semicolon = ("：", "；") if chinese else (": ", "; ")
    rest = [
        (name, cell.rstrip("。.；;"))
        for name, cell in zip(header[1:], cells[1:], strict=False)
        if re.search(r"\w", cell)
    ]
    if len(header) == 2 or not all(name for name, _ in rest):
        shown = semicolon.join(cell for _, cell in rest)
    else:
        shown = semicolon.join(f"{name}{colon}{cell}" for name, cell in rest)
    first = cells[0].strip().rstrip("。.；;")
    if not first or not shown:
        return first or shown
    return f"{first if re.search('[`*]', first) else f'**{first}**'}{colon}{shown}"


def plain(text: str) -> str:
    """Markdown text without footnote references, images, tags and link targets; emphasis and code stay as they are."""
    text = FOOTNOTE.sub("", text)
    text = re.sub(r"!\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\[([^\]]+)\]\((?:[^()]|\([^)]*\))*\)", r"\1", text)
    return CODE_OR_TAG.sub(lambda found: found.group() if found.group()[0] == "`" else "", text).strip()


def is_claim(sentence: str) -> bool:
    """Whether a sentence says something that needs support: no heading, question, label or bare connective."""
    bare = MARKERS.sub("", sentence).strip()
    label = bare.startswith(("#", "**")) and bare.endswith("**")
    bare = bare.strip("*_ ")
    if label or not bare or bare.startswith("#") or bare.endswith(("?", "？", ":", "：")):
        return False
    return sum(content(bare).values()) >= 1


def support(sentence: str, hit: Hit) -> Support:
    """How far the passage of a hit holds the sentence.

    Content tokens of the sentence found in the best one or two neighbouring units (.65) and in the whole
    passage with its heading (.35). A number or a name that the passage lacks, or the opposite direction
    (raise for lower, or a negation on one side only), makes it unsupported.
    """
    body = plain(MARKERS.sub("", sentence)).strip()
    wanted = content(body)
    passage = _passage(hit.page, hit.heading, hit.text)
    if not wanted or not passage.pieces:
        return Support(0.0, "")
    held = [coverage(wanted, present) for present in passage.contents]
    best = max(range(len(held)), key=held.__getitem__)
    window = max(
        [
            held[best],
            *(coverage(wanted, a | b) for a, b in zip(passage.contents, passage.contents[1:], strict=False)),
        ]
    )
    score = 0.65 * window + 0.35 * coverage(wanted, passage.present)
    quote = passage.pieces[best]
    missing = passage.missing(body)
    if missing:
        score *= 0.4
    elif opposed(body, f"{quote.header} {quote.raw}"):
        score *= 0.45
    return Support(round(min(score, 1.0), 3), plain(quote.raw), missing)


@dataclass(frozen=True)
class _Passage:
    """A passage taken apart once for all sentences that are held against it."""

    pieces: tuple[Unit, ...]
    contents: tuple[set[str], ...]  # tokens of each piece with its table header and the passage's heading
    present: set[str]
    numbers: set[float]
    squeezed: str

    def missing(self, sentence: str) -> tuple[str, ...]:
        """Numbers and names of the sentence that the passage does not have."""
        lacking = [
            f"{n:g}"
            for n in sorted(numbers(sentence))
            if n not in self.numbers and not self._inside(f"{n:g}")
        ]
        names = sorted(identifiers(sentence))
        return tuple(
            lacking
            + [n for n in names if n not in self.squeezed and n.removesuffix("s") not in self.squeezed]
        )

    def _inside(self, number: str) -> bool:
        """10 of "10 GB" in a passage that writes 10GB; not the 10 of 2100."""
        return re.search(rf"(?<![\d.]){re.escape(number)}(?!\d|\.\d)", self.squeezed) is not None


@lru_cache(maxsize=256)
def _passage(page: str, heading: str, text: str) -> _Passage:
    # page and heading tell what a passage is about: under "LoRA › Rank", "Use 16." holds "The rank of LoRA is 16."
    frame = f"{page} {heading}"
    about = set(content(frame))
    pieces = units(text)
    body = f"{heading}\n{plain(text)}"
    present = about | set(content(body)) | set(glossary_terms(body))
    contents = tuple(about | set(content(f"{piece.header} {plain(piece.raw)}")) for piece in pieces)
    known = f"{frame}\n{text}"
    return _Passage(pieces, contents, present, numbers(known), squeezed(known))


def opposed(sentence: str, quote: str) -> bool:
    """Whether the two say opposite things: one up and the other down, or one negates what the other says."""
    a, b = fold(sentence), fold(quote)
    for up, down in OPPOSITES:
        for one, other in ((up, down), (down, up)):
            if (
                re.search(one, a)
                and not re.search(other, a)
                and re.search(other, b)
                and not re.search(one, b)
            ):
                return True
    ours, theirs = _negated(a), _negated(b)
    return _contradicts(ours, theirs, content(b)) or _contradicts(theirs, ours, content(a))


def _negated(folded: str) -> list[dict[str, float]]:
    """What stands right after each negation, up to the end of its clause."""
    ends = [match.end() for match in NOT.finditer(folded)]
    clauses = [re.split(r"[,，。;；:：.!！?？|]", folded[end:])[0] for end in ends]
    return [
        content(" ".join(re.findall(r"[\u4e00-\u9fff]{1,8}|[^\s\u4e00-\u9fff]+", clause)[:5]))
        for clause in clauses
    ]


def _contradicts(
    negated: list[dict[str, float]], others: list[dict[str, float]], said: dict[str, float]
) -> bool:
    """Whether one side negates what the other says without negating it."""
    return any(
        sum(words.values()) >= 1
        and coverage(words, said) >= 0.6
        and not any(coverage(words, other) >= 0.4 or coverage(other, words) >= 0.6 for other in others)
        for words in negated
    )
