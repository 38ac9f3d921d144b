"""Faults of the pages, each as "file:line: what": front matter, headings, footnotes, tables, links, spelling, twins.

kb/check.py calls this after the tables are sound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from kb import facts
from kb.pages import (
    FENCE,
    FOOTNOTE,
    LANGS,
    LINK,
    Page,
    PageError,
    files,
    front_matter,
    headings,
    read,
    shown,
)
from kb.render import CLOSE, OPEN, RenderError, block_text, blocks

DEFINITION = re.compile(r"^\[\^[\w.-]+\]:")
# Code and what stands in quotation marks is another's spelling: an argument, a name, a wrong claim.
QUOTED = re.compile(r"`[^`]*`|\"[^\"]*\"|「[^」]*」|\([^)]*\)|（[^）]*）|https?://\S+")


def read_pages(root: Path, faults: list[str]) -> dict[str, dict[str, Page]]:
    """Page id → language → page; a page that cannot be read is a fault."""
    found: dict[str, dict[str, Page]] = {}
    for path in files(root):
        try:
            page = read(path, root)
        except PageError as error:
            faults.append(str(error))
        else:
            found.setdefault(page.id, {})[page.lang] = page
    return found


def page_faults(pages: dict[str, dict[str, Page]], root: Path, latest: date) -> Iterator[str]:
    present = {shown(path, root) for path in files(root)}
    misspelt = {lang: misspellings(lang, root / "facts") for lang in LANGS}
    for path in sorted((root / "asked").rglob("*.yaml")):
        if (id := path.relative_to(root / "asked").with_suffix("").as_posix()) not in pages:
            yield f"kb/asked/{id}.yaml:1: there is no page {id!r}"
    for id, twins in pages.items():
        for page in twins.values():
            where = shown(page.path, root)
            text = page.path.read_text(encoding="utf-8")
            yield from _front_faults(page, text, where, pages, latest)
            yield from _heading_faults(page, where)
            yield from _footnote_faults(page, text, where)
            yield from _block_faults(page, text, where, root)
            yield from _link_faults(page, text, where, pages)
            yield from _spelling_faults(page, where, misspelt[page.lang])
            for lang in LANGS:
                if f"kb/pages/{id}.{lang}.md" not in present:
                    yield f"{where}:1: no twin in {lang}; write kb/pages/{id}.{lang}.md"
        yield from _asked_faults(id, twins, root)
        if len(twins) == len(LANGS):
            yield from _twin_faults([twins[lang] for lang in LANGS], root)


def _front_faults(page: Page, text: str, where: str, pages: dict[str, Any], latest: date) -> Iterator[str]:
    lines = front_matter(text, where)[0]["lines"]
    if page.updated > latest:
        yield f"{where}:{lines['updated']}: updated {page.updated} is in the future"
    for id, line in zip(page.related, lines["related[]"], strict=True):
        if id not in pages:
            yield f"{where}:{line}: unknown related page {id!r}"


def _own_headings(page: Page) -> list[tuple[int, int, str, str]]:
    """(file line, level, text, anchor) of the headings that the file itself has."""
    own = [
        (page.line + at, level, text, anchor) for at, level, text, anchor in headings(page.body.split("\n"))
    ]
    return [heading for heading in own if heading[3] != "sources"]


def _heading_faults(page: Page, where: str) -> Iterator[str]:
    seen: set[str] = set()
    for line, level, text, anchor in _own_headings(page):
        if level == 1:
            yield f"{where}:{line}: heading {text!r} has one #; the title stands in the front matter, sections have ##"
        elif level == 2 and not anchor:
            yield f"{where}:{line}: heading {text!r} has no anchor; write ## {text} {{#name}}"
        if anchor and anchor in seen:
            yield f"{where}:{line}: anchor {anchor!r} is there twice"
        seen.add(anchor)


def _twin_faults(twins: list[Page], root: Path) -> Iterator[str]:
    """The same anchors in the same order in both languages."""
    own = [[(line, anchor) for line, _, _, anchor in _own_headings(page) if anchor] for page in twins]
    names = [[anchor for _, anchor in one] for one in own]
    for this, other in ((0, 1), (1, 0)):
        for line, anchor in own[this]:
            if anchor not in names[other]:
                yield f"{shown(twins[this].path, root)}:{line}: anchor {anchor!r} is not in {twins[other].path.name}"
    if set(names[0]) == set(names[1]):
        for (_, first), (line, second) in zip(*own, strict=False):
            if first != second:
                yield f"{shown(twins[1].path, root)}:{line}: anchor {second!r} stands where {twins[0].path.name} has {first!r}"
                break


def _footnote_faults(page: Page, text: str, where: str) -> Iterator[str]:
    listed = {source.key for source in page.sources}
    fenced = False
    for number, line in enumerate(text.split("\n"), 1):
        if FENCE.match(line):
            fenced = not fenced
        if fenced or number < page.line:
            continue
        if DEFINITION.match(line):
            yield f"{where}:{number}: a footnote is defined; leave that out, the page adds its sources itself"
            continue
        for key in FOOTNOTE.findall(line):
            if key not in listed:
                yield f"{where}:{number}: footnote [^{key}] is not among the sources of the front matter"


def _block_faults(page: Page, text: str, where: str, root: Path) -> Iterator[str]:
    lines = text.split("\n")
    try:
        found = blocks(lines, where)
    except RenderError as error:
        yield str(error)
        return
    for line, last, block in found:
        try:
            table = block_text(block, page.lang, root)
        except ValueError as error:
            yield f"{where}:{line}: facts block {block!r}: {error}"
            continue
        if lines[line : last - 1] != table.split("\n"):
            yield f"{where}:{line}: facts block {block!r} differs from its rows; run `tunesmith kb render`"


def _link_faults(page: Page, text: str, where: str, pages: dict[str, dict[str, Page]]) -> Iterator[str]:
    """A link to another page is written [words](topic/slug#anchor); both must be there."""
    for number, line in _prose(page, text):
        for _, target in LINK.findall(line):
            if target.startswith(("https://", "http://")):
                continue
            id, _, anchor = target.partition("#")
            twin = pages.get(id, {}).get(page.lang) if id else page
            if twin is None:
                yield f"{where}:{number}: link to {target!r}: no page {id!r}; write topic/slug#anchor"
            elif anchor and anchor not in {section.anchor for section in twin.sections()}:
                yield f"{where}:{number}: link to {target!r}: that page has no section {anchor!r}"


def misspellings(lang: str, directory: Path) -> dict[str, str]:
    """Spellings that a page in `lang` must not have → the glossary's.

    In Traditional Chinese these are the mainland's words in Traditional characters (內存 for 記憶體); in English
    the same letters joined or parted otherwise (finetuning for fine-tuning); a hyphen for a space is grammar.
    """
    terms = facts.table("glossary", directory)
    wrong: dict[str, str] = {}
    if lang == "en":
        for term in terms:
            bare = re.sub(r"[-\s]", "", term.en).lower()
            wrong |= {
                other.lower(): term.en
                for other in term.also
                if re.sub(r"[-\s]", "", other).lower() == bare
                and other.lower().replace("-", " ") != term.en.lower().replace("-", " ")
            }
        return wrong
    from opencc import OpenCC

    traditional = OpenCC("s2t").convert
    right = "\n".join(text for term in terms for text in (term.zh_TW, *term.also))
    for term in terms:
        mainland = traditional(term.zh_CN)
        if mainland not in right and not mainland.isascii():
            wrong[mainland] = term.zh_TW
    return wrong


def _spelling_faults(page: Page, where: str, wrong: dict[str, str]) -> Iterator[str]:
    if not wrong:
        return
    text = page.path.read_text(encoding="utf-8")
    pattern = "|".join(map(re.escape, sorted(wrong, key=len, reverse=True)))
    words = re.compile(rf"(?<![\w-])(?:{pattern})(?![\w-])" if page.lang == "en" else pattern, re.IGNORECASE)
    for number, line in _prose(page, text):
        for found in words.findall(QUOTED.sub("", line)):
            yield f"{where}:{number}: {found!r}: the glossary writes {wrong[found.lower()]!r}"


def _asked_faults(id: str, twins: dict[str, Page], root: Path) -> Iterator[str]:
    """Questions that a section answers (kb/asked) must name a section that is there, in both languages."""
    path = root / "asked" / f"{id}.yaml"
    if not path.is_file():
        return
    where = f"kb/asked/{id}.yaml"
    try:
        node, values = facts.parse(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        yield f"{where}:{mark.line + 1 if mark else 1}: not valid YAML: {getattr(error, 'problem', error)}"
        return
    anchors = {"top", *(anchor for _, _, _, anchor in _own_headings(next(iter(twins.values()))))}
    for key, _ in node.value:
        lines = values[key.value]
        if key.value not in anchors:
            yield f"{where}:{key.start_mark.line + 1}: the page has no section {key.value!r}"
        elif not isinstance(lines, dict) or set(lines) != set(LANGS) or not all(lines.values()):
            yield f"{where}:{key.start_mark.line + 1}: {key.value}: give questions in {' and '.join(LANGS)}"


def _prose(page: Page, text: str) -> Iterator[tuple[int, str]]:
    """(file line, text) of the body outside code blocks and outside tables drawn from rows."""
    fenced = drawn = False
    for number, line in enumerate(text.split("\n"), 1):
        if FENCE.match(line):
            fenced = not fenced
        if OPEN.match(line.strip()):
            drawn = True
        if number >= page.line and not fenced and not drawn:
            yield number, line
        if line.strip() == CLOSE:
            drawn = False
