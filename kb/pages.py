"""The pages under kb/pages: front matter and Markdown body, one file for each language.

Read by ingest (sections become chunks), by the answers (a citation opens its section) and by
`tunesmith kb check`. A fault in a file is told as "kb/pages/…md:12: what".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from kb import facts
from kb.errors import UserError
from kb.facts import Source

KB_DIR = Path(__file__).parent
LANGS = ("en", "zh-TW")
SOURCES_HEADING = {"en": "Sources", "zh-TW": "資料來源"}

HEADING = re.compile(r"^(#{1,6})\s+(.+?)(?:\s*\{#([a-z0-9-]+)\})?\s*$")
FENCE = re.compile(r"^\s*(```|~~~)")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LINK = re.compile(r"(?<!!)(\[[^\]^][^\]]*\])\(([^)\s]+)\)")  # (words), (target)
FOOTNOTE = re.compile(r"\[\^([\w.-]+)\]")

# Key of the front matter → the Python type that its YAML value must have.
FRONT_MATTER: dict[str, type] = {
    "title": str,
    "topic": str,
    "updated": date,
    "sources": list,
    "related": list,
}


class PageError(UserError):
    """A page file is wrong; the message opens with file:line."""


@dataclass(frozen=True)
class Section:
    """What stands under one heading with an anchor, deeper headings without an anchor included.

    `text` leaves the heading itself out; `line` is the heading's line in the file, from 1.
    """

    anchor: str
    heading: str
    level: int
    text: str
    line: int


@dataclass(frozen=True)
class Page:
    """One page in one language.

    `body` is Markdown: comments are blanked (rendered fact tables stay), footnote references
    `[^key]` stay, and a section that lists the sources used is added at the end.
    """

    id: str
    lang: str
    title: str
    topic: str
    updated: date
    sources: list[Source]
    related: list[str]
    body: str
    path: Path
    line: int = field(default=1, repr=False)  # line of the file on which the body starts

    def sections(self) -> list[Section]:
        """Sections in reading order; text before the first heading comes first, with anchor ""."""
        starts = [(0, 1, self.title, "")]
        lines = self.body.split("\n")
        starts += [(at, level, text, anchor) for at, level, text, anchor in headings(lines) if anchor]
        found = []
        for number, (at, level, heading, anchor) in enumerate(starts):
            end = starts[number + 1][0] if number + 1 < len(starts) else len(lines)
            text = "\n".join(lines[at if number == 0 else at + 1 : end]).strip()
            if text or number:
                found.append(Section(anchor, heading, level, text, self.line + at))
        return found


def headings(lines: list[str]) -> Iterator[tuple[int, int, str, str]]:
    """(index, level, text, anchor or "") of each Markdown heading; `#` in a code block is none."""
    fenced = ""
    for at, line in enumerate(lines):
        if fence := FENCE.match(line):
            fenced = "" if fenced == fence[1] else fenced or fence[1]
        elif not fenced and (match := HEADING.match(line)):
            yield at, len(match[1]), match[2], match[3] or ""


def pages(lang: str | None = None, root: Path = KB_DIR) -> list[Page]:
    """All pages, or those in one language, ordered by id. Raises PageError at the first bad file."""
    return [read(path, root) for path in files(root) if lang is None or path.stem.endswith(f".{lang}")]


def page(id: str, lang: str, root: Path = KB_DIR) -> Page:
    """One page by id ("methods/lora") and language. Raises PageError when there is none."""
    path = root / "pages" / f"{id}.{lang}.md"
    if path not in files(root):
        raise PageError(f"{shown(path, root)}:1: no such page; `tunesmith library` lists the pages")
    return read(path, root)


def asked(page: Page, root: Path = KB_DIR) -> dict[str, list[str]]:
    """Section anchor ("top" for the page) → how people put the questions that it answers, in the page's language.

    For search only: they bring the words of those who do not know the page's own. Empty when none are written.
    """
    path = root / "asked" / f"{page.id}.yaml"
    if not path.is_file():
        return {}
    values = facts.parse(path.read_text(encoding="utf-8"))[1] or {}
    return {anchor: list(lines[page.lang]) for anchor, lines in values.items()}


def files(root: Path = KB_DIR) -> list[Path]:
    """Paths of all page files, ordered."""
    return sorted((root / "pages").rglob("*.md"))


def shown(path: Path, root: Path) -> str:
    """The path as messages show it: kb/pages/methods/lora.en.md."""
    return f"kb/{path.relative_to(root).as_posix()}"


def read(path: Path, root: Path = KB_DIR) -> Page:
    """Read one file. Raises PageError with file:line when its name, front matter or sources are wrong."""
    where = shown(path, root)
    slug, _, lang = path.stem.rpartition(".")
    if lang not in LANGS or len(path.relative_to(root / "pages").parts) != 2:
        raise PageError(
            f"{where}:1: expected pages/<topic>/<slug>.<lang>.md with lang one of {', '.join(LANGS)}"
        )
    text = path.read_text(encoding="utf-8")
    front, end = front_matter(text, where)
    if front["topic"] != path.parent.name:
        raise PageError(
            f"{where}:{front['lines']['topic']}: topic {front['topic']!r}, but the folder is {path.parent.name!r}"
        )
    known = facts.by_id("sources", root / "facts")
    for key, line in zip(front["sources"], front["lines"]["sources[]"], strict=True):
        if key not in known:
            raise PageError(
                f"{where}:{line}: unknown source {key!r}; add it to kb/facts/sources.yaml or correct the key"
            )
    body = COMMENT.sub(lambda found: "\n" * found[0].count("\n"), "\n".join(text.split("\n")[end:]))
    used = [known[key] for key in dict.fromkeys(FOOTNOTE.findall(body)) if key in known]
    return Page(
        id=f"{path.parent.name}/{slug}",
        lang=lang,
        title=front["title"],
        topic=front["topic"],
        updated=front["updated"],
        sources=[known[key] for key in front["sources"]],
        related=front["related"],
        body=body.rstrip() + "\n" + source_section(used, lang),
        path=path,
        line=end + 1,
    )


def source_section(sources: list[Source], lang: str) -> str:
    """The closing section: name, address and date of each source; empty without sources."""
    if not sources:
        return ""
    rows = [f"- [^{one.key}] [{one.name}]({one.url}), {one.date}" for one in sources]
    return f"\n## {SOURCES_HEADING[lang]} {{#sources}}\n\n" + "\n".join(rows) + "\n"


def front_matter(text: str, where: str) -> tuple[dict[str, Any], int]:
    """Checked values of the front matter, and the line of the file that closes it.

    Under "lines" stand the file line of each key, and under "sources[]" and the like those of the list's items.
    Raises PageError with the line of the key that is wrong.
    """
    file_lines = text.split("\n")
    end = next((at for at, line in enumerate(file_lines[1:], 1) if line.rstrip() == "---"), 0)
    if file_lines[0].rstrip() != "---" or not end:
        raise PageError(f"{where}:1: no front matter; open the file with --- and close it with ---")
    head = "\n".join(file_lines[1:end])
    try:
        node, values = facts.parse(head)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 2 if mark else 2
        raise PageError(f"{where}:{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(values, dict):
        raise PageError(f"{where}:2: front matter must be `key: value` lines")
    lines: dict[str, Any] = {}
    for key, value in node.value:
        lines[key.value] = key.start_mark.line + 2
        if isinstance(value, yaml.SequenceNode):
            lines[f"{key.value}[]"] = [item.start_mark.line + 2 for item in value.value]
    _check_front_matter(values, lines, where)
    return {**values, "lines": lines}, end + 1


def _check_front_matter(values: dict[str, Any], lines: dict[str, Any], where: str) -> None:
    for key in values:
        if key not in FRONT_MATTER:
            raise PageError(
                f"{where}:{lines[str(key)]}: unknown key {key!r}; known are {', '.join(FRONT_MATTER)}"
            )
    for key, kind in FRONT_MATTER.items():
        if key not in values:
            raise PageError(f"{where}:2: {key} is missing in the front matter")
        value = values[key]
        if not isinstance(value, kind) or (kind is list and any(not isinstance(one, str) for one in value)):
            expected = {list: "a list of keys", str: "text", date: "a date such as 2026-11-22"}[kind]
            raise PageError(f"{where}:{lines[key]}: {key} must be {expected}, not {value!r}")
