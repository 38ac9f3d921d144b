"""Fact tables inside pages: the block `<!-- facts: NAME [key=value …] -->` … `<!-- /facts -->` is written from the rows.

`tunesmith kb render` rewrites the blocks, `kb check` compares them, so that a page and the advice
cannot disagree. A block: models [family=], rules field= [method=], gpus, methods, datasets [task=], symptom id=,
glossary [group=], fields names= (settings of a run, read from the source of RunConfig).
"""

from __future__ import annotations

import re
from pathlib import Path

from kb.errors import UserError
from kb.pages import KB_DIR, files, shown
from kb.tables import TABLES

OPEN = re.compile(r"^<!-- facts: *(.*?) *-->$")
CLOSE = "<!-- /facts -->"


class RenderError(UserError):
    """A facts block that cannot be rendered; the message opens with file:line."""


def render(write: bool, root: Path = KB_DIR) -> list[str]:
    """Files whose blocks differ from the rows, as "kb/pages/…md"; rewritten when `write`. Raises RenderError."""
    changed = []
    for path in files(root):
        old = path.read_text(encoding="utf-8")
        new = rendered(old, path, root)
        if new != old:
            changed.append(shown(path, root))
            if write:
                path.write_text(new, encoding="utf-8")
    return changed


def rendered(text: str, path: Path, root: Path = KB_DIR) -> str:
    """The page with every block rewritten from the rows. Raises RenderError with the line of the bad block."""
    lang = path.stem.rpartition(".")[2]
    lines = text.split("\n")
    out: list[str] = []
    end = 0
    for line, last, block in blocks(lines, shown(path, root)):
        try:
            table = block_text(block, lang, root)
        except ValueError as error:
            raise RenderError(f"{shown(path, root)}:{line}: facts block {block!r}: {error}") from None
        out += [*lines[end:line], *table.split("\n"), CLOSE]
        end = last
    return "\n".join(out + lines[end:])


def blocks(lines: list[str], where: str) -> list[tuple[int, int, str]]:
    """(line of the opening comment, line of the closing one, what it asks for), lines from 1."""
    found = []
    start, asked = 0, ""
    for number, line in enumerate(lines, 1):
        if match := OPEN.match(line.strip()):
            if start:
                raise RenderError(
                    f"{where}:{start}: facts block {asked!r} is not closed; write {CLOSE} after it"
                )
            start, asked = number, match[1]
        elif line.strip() == CLOSE:
            if not start:
                raise RenderError(f"{where}:{number}: {CLOSE} without an opening <!-- facts: NAME -->")
            found.append((start, number, asked))
            start = 0
    if start:
        raise RenderError(f"{where}:{start}: facts block {asked!r} is not closed; write {CLOSE} after it")
    return found


def block_text(block: str, lang: str, root: Path = KB_DIR) -> str:
    """Markdown of one block such as "rules field=learning_rate". Raises ValueError on a name or argument unknown."""
    name, *rest = block.split()
    if name not in TABLES:
        raise ValueError(f"unknown table {name!r}; known are {', '.join(TABLES)}")
    draw, required, optional = TABLES[name]
    arguments = dict(part.partition("=")[::2] for part in rest)
    if unknown := arguments.keys() - {*required, *optional}:
        raise ValueError(
            f"unknown argument {min(unknown)!r}; known are {', '.join((*required, *optional)) or 'none'}"
        )
    if missing := [key for key in required if not arguments.get(key)]:
        raise ValueError(f"{missing[0]}= is missing")
    return draw(lang, root / "facts", **arguments)
