"""The answer as it grows: pieces of a model's text in, sentences with checked [n] markers out.

A sentence is settled once it is complete: its markers are resolved against the passages of the prompt,
unknown ones dropped, its support measured, and [n] numbered by (passage, quote) in order of appearance.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from assistant.citations import MARKERS, SUPPORTED, Support, is_claim, plain, sentence_end, support
from assistant.sanitize import Safe
from assistant.types import Citation, Hit

CODE = re.compile(r"(`[^`\n]*`)")
ONE_GROUP = re.compile(
    r"[\[【［]\^?\s*([1-9]\d{0,2}(?:\s*[,，、;]\s*[1-9]\d{0,2})*)\s*(?:†[^\]】］]*)?[\]】］]"
)
ATTACHED = 0.7  # a passage that the model did not name must hold the sentence that well to be cited for it
LONGEST = 2000  # characters of a sentence
BULLET = re.compile(r"(?:[-*+]|\d{1,2}[.)、])\s+")
ENDING = re.compile(r"[\s。！？!?.…」』”’\"'）)*_]*$")


@dataclass(frozen=True)
class Claim:
    """A sentence that says something: as it is shown, the passage (index from 0) that holds most of it and how far,
    and the markers that it carries."""

    shown: str
    passage: int
    support: Support
    marks: tuple[int, ...]


@dataclass
class Cited:
    """Collects one answer over these passages, numbered from 1 in the prompt."""

    passages: list[Hit]
    citations: list[Citation] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    text: str = ""  # settled
    _safe: Safe = field(default_factory=Safe)
    _buffer: str = ""  # safe text of a sentence that is not complete
    _fenced: bool = False
    _in_table: bool = False
    _numbers: dict[tuple[str, str, bool], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._safe = Safe([hit.text for hit in self.passages])

    @property
    def started(self) -> bool:
        return bool(self.text or self._buffer or self._safe.held)

    def feed(self, piece: str) -> None:
        """More text of the model; sentences that it completes are settled."""
        self._buffer += self._safe.feed(piece)
        self._settle(final=False)

    def finish(self) -> None:
        """No more text comes: settle the rest, also an unfinished sentence."""
        self._buffer += self._safe.finish()
        self._settle(final=True)
        self.text = self.text.rstrip()

    def visible(self) -> str:
        """Text to show now: the settled part and the beginning of the next sentence, without its markers.

        It only ever grows, and never shows a broken marker, link or tag.
        """
        if self._fenced or self._is_line() or "\n" in self._buffer:
            return self.text
        return self.text + ENDING.sub("", tidy(strip_markers(self._buffer)))

    def say(self, text: str) -> None:
        """Text of our own (a heading, a line break) between sentences."""
        self.text += text

    def claim(self, sentence: str, wanted: list[int], raw: str = "") -> str:
        """A sentence with the markers of the passages (indices from 0) that hold it, checked.

        With `raw` (words that the passage has as they stand) that is the quote. Else a sentence that its
        passages do not hold goes to the one that does, if there is one; if not it is listed as unsupported.
        """
        found = {index: support(sentence, self.passages[index]) for index in wanted}
        good = {index: s for index, s in found.items() if s.score >= SUPPORTED}
        if not good and not raw:
            others = {i: support(sentence, hit) for i, hit in enumerate(self.passages) if i not in found}
            best = max(others, key=lambda i: others[i].score, default=None)
            if best is not None and others[best].score >= ATTACHED:
                good = {best: others[best]}
        marks = [
            self._number(index, Support(s.score, raw or s.quote)) for index, s in (good or found).items()
        ]
        shown = put_markers(sentence, sorted(set(marks)))
        if not good:
            self.unsupported.append(shown.strip())
        held = good or found
        closest = max(held, key=lambda i: held[i].score, default=0)
        self.claims.append(Claim(shown.strip(), closest, held.get(closest, Support(0.0, "")), tuple(marks)))
        return shown

    def overrule(self, claim: Claim, holds: bool) -> None:
        """Another judge's verdict on a claim. The support that its citations show moves across the line, no further."""
        if not holds and claim.shown not in self.unsupported:
            self.unsupported.append(claim.shown)
        elif holds:
            self.unsupported = [shown for shown in self.unsupported if shown != claim.shown]
        shared = {mark for other in self.claims if other.shown != claim.shown for mark in other.marks}
        for place, citation in enumerate(self.citations):
            if citation.marker in claim.marks and citation.marker not in shared:
                moved = max(citation.support, SUPPORTED) if holds else min(citation.support, SUPPORTED - 0.01)
                self.citations[place] = replace(citation, support=moved)

    def _settle(self, final: bool) -> None:
        while self._buffer:
            if self._buffer[0] == "\n":
                self.text, self._buffer = self.text + "\n", self._buffer[1:]
                continue
            if self._fenced or self._buffer.startswith("```"):
                if not self._fence(final):
                    return
                continue
            end = _line_end(self._buffer, final) if self._is_line() else sentence_end(self._buffer, 0, final)
            if end is None:
                if len(self._buffer) < LONGEST:
                    return
                end = len(self._buffer)
            raw, self._buffer = self._buffer[:end], self._buffer[end:]
            self.text += self._settled(raw)

    def _is_line(self) -> bool:
        return self._buffer.lstrip().startswith(("|", "#"))

    def _fence(self, final: bool) -> bool:
        """Code goes through as it is, line by line. Returns whether a line was taken."""
        end = _line_end(self._buffer, final)
        if end is None:
            return False
        end += self._buffer[end : end + 1] == "\n"
        line, self._buffer = self._buffer[:end], self._buffer[end:]
        if not self._fenced or line.rstrip() == "```":  # sanitize.py writes the end of code like that
            self._fenced = not self._fenced
        self.text += line
        return True

    def _settled(self, raw: str) -> str:
        indices = [n - 1 for n in marker_numbers(raw) if 1 <= n <= len(self.passages)]
        body = tidy(strip_markers(raw))
        heads_table = body.lstrip().startswith("|") and not self._in_table
        self._in_table = body.lstrip().startswith("|")
        if re.fullmatch(r"[|\s:-]*", body):
            return body if "|" in body else ""
        lead = body[: len(body) - len(body.lstrip())]
        label = BULLET.match(body.lstrip())
        lead, body = (
            lead + (label.group() if label else ""),
            body.lstrip()[label.end() if label else 0 :].strip(),
        )
        if is_claim(body) and not heads_table:
            return lead + self.claim(body, list(dict.fromkeys(indices)))
        marks = [self._number(i, support(body, self.passages[i])) for i in dict.fromkeys(indices)]
        return lead + put_markers(body, sorted(set(marks)))

    def _number(self, index: int, found: Support) -> int:
        hit = _section(self.passages[index], found.quote)
        key = (hit.id, found.quote, found.score >= SUPPORTED)
        if key not in self._numbers:
            self._numbers[key] = len(self._numbers) + 1
            marker = self._numbers[key]
            self.citations.append(
                Citation(
                    marker,
                    hit.id,
                    hit.page,
                    hit.heading,
                    found.quote,
                    found.score,
                    hit.sources,
                    hit.anchor,
                    hit.lang,
                )
            )
        return self._numbers[key]


def _section(hit: Hit, quote: str) -> Hit:
    """The section of a widened passage that has the quote, so that the citation leads to it and to its sources."""
    return next(
        (part for part in hit.parts if quote and (quote in part.text or quote in plain(part.text))), hit
    )


def tidy(text: str) -> str:
    """Without the spaces that a removed marker or link leaves behind."""
    return re.sub(r"(?<=\S) +(?=[,;:!?。，；：！？)）]|\.(?:\s|$))", "", re.sub(r"(?<=\S) {2,}", " ", text))


def marker_numbers(text: str) -> list[int]:
    """Numbers of the markers in a text, code spans left out: "a [1, 3] b【2】" gives 1, 3, 2."""
    plain_parts = CODE.split(text)[::2]
    groups = [group for part in plain_parts for group in ONE_GROUP.findall(part)]
    return [int(number) for group in groups for number in re.findall(r"\d+", group)]


def strip_markers(text: str) -> str:
    parts = CODE.split(text)
    parts[::2] = [MARKERS.sub("", part) for part in parts[::2]]
    return "".join(parts)


def put_markers(sentence: str, marks: list[int]) -> str:
    """Markers at the end of a sentence, before its closing punctuation; in a table row inside the last cell."""
    if not marks:
        return sentence
    text = "".join(f"[{n}]" for n in marks)
    if sentence.startswith("|") and sentence.endswith("|"):
        return f"{sentence[:-1].rstrip()} {text} |"
    end = re.search(r"[。！？!?.…]*$", sentence)
    body, close = sentence[: end.start()], sentence[end.start() :]
    return f"{body}{'' if re.search(r'[^ -~]$', body) else ' '}{text}{close}"


def _line_end(text: str, final: bool) -> int | None:
    """Where the line ends, its line break not included; None while it is not complete."""
    line = text.find("\n")
    return line if line >= 0 else len(text) if final else None
