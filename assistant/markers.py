"""The answer as it grows: pieces of a model's text in, sentences with checked [n] markers out.

A sentence is settled once it is complete: its markers are resolved against the passages of the prompt,
unknown ones dropped, its support measured, and [n] numbered by (passage, quote) in order of appearance.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from assistant.citations import MARKERS, SUPPORTED, Support, is_claim, plain, sentence_end, support
from assistant.types import Citation, Hit

CODE = re.compile(r"(`[^`\n]*`)")
ONE_GROUP = re.compile(
    r"[\[【［]\^?\s*([1-9]\d{0,2}(?:\s*[,，、;]\s*[1-9]\d{0,2})*)\s*(?:†[^\]】］]*)?[\]】］]"
)
REFERENCE_LINK = re.compile(r"\[([^\]\n]+)\]\[[^\]\n]*[^\]\d\n][^\]\n]*\]")
LINK_DEFINITION = re.compile(r"^\s*\[[^\]\n]+\]:\s*\S+.*$")
URL = re.compile(r"(?:\b(?:https?|ftp|data|javascript|file):|\bwww\.|//)[^\s<>()（）「」，。、；\]]+", re.I)
SPECIAL = re.compile(r"<\|[^|>\n]{1,40}\|>|</?[A-Za-z][^>\n]*>|<!--.*?-->")
UNSAFE_TAIL = re.compile(
    r"(?:!?\[[^\]\n]*|\[[^\]\n]*\](?:\([^)\n]*)?|<[^>\n]{0,200}|`[^`\n]*|\S*(?:/|:|www)\S*|h|ht|htt|https?|w|ww|!)$"
)
ENDING = re.compile(r"[\s。！？!?.…」』”’\"'）)\]*_`]*$")
HOLD = 400  # characters: a bracket that is still open after so many is no marker


@dataclass
class Cited:
    """Collects one answer over these passages, numbered from 1 in the prompt."""

    passages: list[Hit]
    citations: list[Citation] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)
    text: str = ""  # settled
    _buffer: str = ""
    _fenced: bool = False
    _numbers: dict[tuple[str, str], int] = field(default_factory=dict)

    def feed(self, piece: str) -> None:
        """More text of the model; sentences that it completes are settled."""
        self._buffer += piece
        self._settle(final=False)

    def finish(self) -> None:
        """No more text comes: settle the rest, also an unfinished sentence."""
        self._settle(final=True)
        self.text = self.text.rstrip()

    @property
    def started(self) -> bool:
        return bool(self.text or self._buffer)

    def visible(self) -> str:
        """Text to show now: the settled part and the safe beginning of the next sentence, without its markers.

        It only ever grows, and never shows a broken marker, link or tag.
        """
        tail = MARKERS.sub("", self._buffer)
        if self._fenced or "\n" in tail:
            return self.text
        for _ in range(8):  # what is held back may lay bare another unsafe ending
            cut = ENDING.sub("", UNSAFE_TAIL.sub("", tail))
            if cut == tail:
                break
            tail = cut
        if LINK_DEFINITION.match(tail) or tail.lstrip().startswith(("|", "[")):
            return self.text
        return self.text + self._clean(tail)

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
            if best is not None and others[best].score >= SUPPORTED:
                good = {best: others[best]}
        marks = [
            self._number(index, Support(s.score, raw or s.quote)) for index, s in (good or found).items()
        ]
        shown = put_markers(sentence, sorted(set(marks)))
        if not good:
            self.unsupported.append(shown.strip())
        return shown

    def _settle(self, final: bool) -> None:
        while self._buffer:
            if self._buffer[0] == "\n":
                self.text, self._buffer = self.text + "\n", self._buffer[1:]
                continue
            if self._fenced or self._buffer.lstrip().startswith("```"):
                if not self._fence(final):
                    return
                continue
            end = _line_end(self._buffer, final) if self._is_line() else sentence_end(self._buffer, 0, final)
            if end is None:
                if len(self._buffer) < 4 * HOLD:
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
        if line.lstrip().startswith("```"):
            self._fenced = not self._fenced
        self.text += line
        return True

    def _settled(self, raw: str) -> str:
        indices = [n - 1 for n in marker_numbers(raw) if 1 <= n <= len(self.passages)]
        body = self._clean(strip_markers(raw))
        if LINK_DEFINITION.match(body) or re.fullmatch(r"[|\s:-]*", body):
            return body if body.strip().startswith("|") else ""
        lead = body[: len(body) - len(body.lstrip())]
        if is_claim(body):
            return lead + self.claim(body.strip(), list(dict.fromkeys(indices)))
        marks = [self._number(i, support(body, self.passages[i])) for i in dict.fromkeys(indices)]
        return lead + put_markers(body.strip(), sorted(set(marks)))

    def _clean(self, text: str) -> str:
        """Text without images, links, tags and addresses that no passage has; code spans as they are."""
        parts = CODE.split(text)
        for i in range(0, len(parts), 2):
            lead = parts[i][: len(parts[i]) - len(parts[i].lstrip())]
            trail = parts[i][len(parts[i].rstrip()) :] if parts[i].strip() else ""
            body = SPECIAL.sub("", plain(REFERENCE_LINK.sub(r"\1", parts[i])))
            parts[i] = lead + URL.sub(lambda match: self._known(match.group()), body).strip() + trail
        return "".join(parts)

    def _known(self, url: str) -> str:
        return url if any(url.rstrip(".,;:") in hit.text for hit in self.passages) else ""

    def _number(self, index: int, found: Support) -> int:
        hit = self.passages[index]
        key = (hit.id, found.quote)
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
