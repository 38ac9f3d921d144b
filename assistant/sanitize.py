"""A model's text without anything that a page could follow or fetch: links, images, tags, addresses.

Works on the stream: what may still turn out to be one is held back, so nothing unsafe is ever shown. Code is left
as it is; so that whoever renders the text finds code in the same places, fences come out at the margin with three
backticks, and backticks that make no code span go. Between backends.py and markers.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

CODE = re.compile(r"(?<![\\`])`[^`\n]+`(?!`)")
FENCE = re.compile(r"([ \t]*)`{3,}([^`]*)")
IMAGE_OR_LINK = re.compile(r"!?\[([^\]\n]*)\]\((?:[^()\n]|\([^()\n]*\))*\)")
IMAGE = re.compile(r"!\[([^\]\n]*)\](?:\[[^\]\n]*\])?")
REFERENCE_LINK = re.compile(r"\[([^\]\n]+)\]\[[^\]\n]*[^\]\d\n,、 ][^\]\n]*\]")
DEFINITION = re.compile(r"^\s*\[[^\]\n]+\]:\s")
TAG = re.compile(r"<\|[^|>\n]{1,40}\|>|</?[A-Za-z][^>\n]*>|<!--.*?-->")
BEGUN = re.compile(r"<(?=[A-Za-z/!?])|(?<=\])(?=\()")  # of a tag or a link that goes on in another line
ADDRESS = re.compile(
    r"(?:\b(?:https?|ftp|data|javascript|vbscript|file):|\bwww\.|(?<![:\w])//)[^\s<>()（）「」，。、；\]\[]*",
    re.I,
)
# what at the end of a text may be the beginning of one of these, or of a marker: something open, or a run without
# a space (an address grows letter by letter). Each character can match in one way only, so this stays linear.
OPEN = re.compile(
    r"!?[\[【［][^\]】］\n]*$|!?\[[^\]\n]*\](?:\([^)\n]*|\[[^\]\n]*)$|<[A-Za-z/!|]?[^>\n]{0,200}$|\\*`[^`\n]*`*$"
    r"|(?:!?\[[^\]\n]*\](?:\([^)\n]*\))?|<[A-Za-z/!|][^>\n]*>|<(?![A-Za-z/!|])|[!-;=-Z\\-~])+$"
)
HOLD = 600  # characters: what is open for longer is no link


@dataclass
class Safe:
    """`known` are the passages: an address that stands in one of them may stay."""

    known: list[str] = field(default_factory=list)
    held: str = ""
    _fenced: str | None = None  # the white space before an open fence
    _midline: bool = False  # the beginning of the line has been given out

    def feed(self, piece: str) -> str:
        """What of the text so far is safe and was not given out yet."""
        *lines, self.held = (self.held + piece).split("\n")
        out = "".join(self._line(line) + "\n" for line in lines)
        return out + self._beginning()

    def finish(self) -> str:
        """The rest. A bracket that never closed is dropped with what stands in it, if that could be a marker."""
        rest, self.held = re.sub(r"\s*[\[【［][\s\d,，、^]*$", "", self.held), ""
        return self._line(rest)

    def _line(self, line: str) -> str:
        whole, self._midline = not self._midline, False
        fence = FENCE.fullmatch(line) if whole else None
        if fence and (self._fenced is None or not fence[2].strip()):
            self._fenced = fence[1] if self._fenced is None else None
            return "```" + fence[2].rstrip()
        if self._fenced is not None:
            return line.removeprefix(self._fenced)
        return "" if whole and DEFINITION.match(line) else self.clean(line)

    def _beginning(self) -> str:
        """The part of an unfinished line that no later text can change."""
        start = self.held.lstrip()
        if not self._midline and (
            self._fenced is not None or start.startswith(("```", "[", "|")) or "```".startswith(start)
        ):
            return ""
        masked = CODE.sub(lambda match: "x" * len(match.group()), self.held)
        open_ = OPEN.search(masked)
        cut = open_.start() if open_ else len(masked)
        if len(masked) - cut > HOLD:
            cut = len(masked)
        begin, self.held = self.held[:cut], self.held[cut:]
        self._midline = self._midline or bool(begin)
        return self.clean(begin)

    def clean(self, text: str) -> str:
        """Text of links and images stays; what they point to goes. Code spans stay as they are."""
        spans = CODE.findall(text)
        parts = [self._clean(part) for part in CODE.split(text)]
        return "".join(part + span for part, span in zip(parts, [*spans, ""], strict=True))

    def _clean(self, text: str) -> str:
        text = IMAGE_OR_LINK.sub(lambda m: f"[{m[1]}]" if m[1].isdigit() else m[1], text.replace("`", ""))
        text = REFERENCE_LINK.sub(r"\1", IMAGE.sub(r"\1", text))
        text = BEGUN.sub(r"\g<0> ", TAG.sub("", text))
        return ADDRESS.sub(lambda match: match.group() if self._is_known(match.group()) else "", text)

    def _is_known(self, address: str) -> bool:
        address = address.rstrip(".,;:!?*_")
        return "://" in address and any(address in text for text in self.known)
