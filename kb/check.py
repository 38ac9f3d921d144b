"""Faults of the knowledge base, each as "file:line: what": the tables, the pages, and what joins them.

`tunesmith kb check` and the tests run this; `python -m kb.check` does so without the rest of Tunesmith.
kb imports no other room, so the names of RunConfig's fields are read from its source.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kb import facts
from kb.pages import (
    FENCE,
    FOOTNOTE,
    KB_DIR,
    LANGS,
    Page,
    PageError,
    files,
    front_matter,
    headings,
    read,
    shown,
)
from kb.render import RenderError, block_text, blocks

# What a rule may set beside fields of RunConfig and Situation: the decision, what is collected for the reader,
# and values in between that assistant/recommend.py and trainer/estimate.py read on their way to a RunConfig.
_DECIDED = "decision warning alternative families kinds target_b named_b length_needed headroom headroom_least batch_min batch_target"
_MEASURED = "utilisation cpu_gflops_per_core starter_gflops"
DECISION_KEYS = frozenset(f"{_DECIDED} {_MEASURED}".split())
DEFINITION = re.compile(r"^\[\^[\w.-]+\]:")
ADDRESS = re.compile(r"https?://\S+|tests/\S+")  # the second: a measurement of our own, by its script


@dataclass(frozen=True)
class Table:
    """One table as read: its YAML nodes keep the lines, `rows` are valid (None where one is not)."""

    file: str
    node: yaml.Node
    rows: list[Any]

    def at(self, *loc: Any) -> str:
        """ "file:line" of a row or of a key in it, as near as the row goes."""
        node, line = self.node, 1
        for part in loc:
            if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
            elif isinstance(node, yaml.MappingNode):
                found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
                if found is None:
                    break
                line, node = found[0].start_mark.line + 1, found[1]
        return f"{self.file}:{line}"


def check(root: Path | None = None, today: date | None = None) -> list[str]:
    """All faults, ordered by file and line; empty when the knowledge base is sound.

    `root` is the kb folder; trainer/config.py and assistant/types.py are read beside it.
    """
    root = root or KB_DIR
    latest = (today or date.today()) + timedelta(
        days=1
    )  # it may be tomorrow already where a page was written
    faults: list[str] = []
    tables = {name: _read_table(name, root, faults) for name in facts.TABLES}
    if not faults:
        for name, table in tables.items():
            facts.remember(name, root / "facts", table.rows)
            faults += _row_faults(name, table, tables, latest)
        pages = _read_pages(root, faults)
        fields = _fields(root.parent / "trainer" / "config.py", "RunConfig")
        situation = _fields(root.parent / "assistant" / "types.py", "Situation")
        faults += _page_references(tables, pages)
        faults += _rule_faults(tables["rules"], fields | situation)
        faults += _symptom_faults(tables["symptoms"], fields)
        faults += _pages_faults(pages, root, latest)
    return sorted(set(faults), key=_place)


def _place(fault: str) -> tuple[str, int, str]:
    file, line, what = fault.split(":", 2)
    return file, int(line), what


def _read_table(name: str, root: Path, faults: list[str]) -> Table:
    path = root / "facts" / f"{name}.yaml"
    file = f"kb/facts/{name}.yaml"
    empty = yaml.SequenceNode("", [])
    if not path.is_file():
        faults.append(f"{file}:1: no such file")
        return Table(file, empty, [])
    text = path.read_text(encoding="utf-8")
    try:
        node, values = facts.parse(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        faults.append(f"{file}:{line}: not valid YAML: {getattr(error, 'problem', error)}")
        return Table(file, empty, [])
    if not isinstance(values, list):
        faults.append(f"{file}:1: expected a list of rows, found {type(values).__name__}")
        return Table(file, empty, [])
    table = Table(file, node, [])
    for number, value in enumerate(values):
        try:
            table.rows.append(facts.TABLES[name].model_validate(value))
        except ValidationError as error:
            for one in error.errors():
                key = ".".join(map(str, one["loc"]))
                faults.append(f"{table.at(number, *one['loc'])}: {key or 'row'}: {one['msg']}")
    return table


def _row_faults(name: str, table: Table, tables: dict[str, Table], latest: date) -> Iterator[str]:
    """Names given twice, unknown sources, dates to come, addresses, model links."""
    key = facts.ID.get(name, "id")
    known = {row.key for row in tables["sources"].rows}
    seen: dict[str, str] = {}
    hubs: dict[str, str] = {}
    for number, row in enumerate(table.rows):
        named = getattr(row, key)
        first = seen.setdefault(named.lower(), table.at(number, key))
        if first != table.at(number, key):
            yield f"{table.at(number, key)}: {key} {named!r} is already in line {first.rpartition(':')[2]}"
        for position, source in enumerate(getattr(row, "sources", ())):
            if source not in known:
                yield f"{table.at(number, 'sources', position)}: unknown source {source!r}; see kb/facts/sources.yaml"
        if not getattr(row, "sources", True):
            yield f"{table.at(number, 'sources')}: {named!r} has no source"
        for field in ("date", "released"):
            if getattr(row, field, latest) > latest:
                yield f"{table.at(number, field)}: {field} {getattr(row, field)} is in the future"
        if name == "sources" and not ADDRESS.fullmatch(row.url):
            yield f"{table.at(number, 'url')}: url {row.url!r} is not an address"
        if name == "models":
            ids = {model.id for model in table.rows}
            if row.superseded_by and row.superseded_by not in ids:
                yield f"{table.at(number, 'superseded_by')}: unknown model {row.superseded_by!r}"
            first = hubs.setdefault(row.hub_id.lower(), table.at(number, "hub_id"))
            if first != table.at(number, "hub_id"):
                line = first.rpartition(":")[2]
                yield f"{table.at(number, 'hub_id')}: hub_id {row.hub_id!r} is already in line {line}"


def _fields(path: Path, name: str) -> set[str]:
    """Names of the annotated fields of a class, read from source without importing it."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return {
                item.target.id
                for item in node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            }
    raise ValueError(f"{path}: no class {name}")


def _page_references(tables: dict[str, Table], pages: dict[str, dict[str, Page]]) -> Iterator[str]:
    anchors = {
        (id, lang): {section.anchor for section in page.sections()}
        for id, twins in pages.items()
        for lang, page in twins.items()
    }
    for name in ("rules", "symptoms", "methods"):
        for number, row in enumerate(tables[name].rows):
            id, _, anchor = row.page.partition("#")
            where = tables[name].at(number, "page")
            if id not in pages:
                yield f"{where}: no page {id!r}"
            elif not anchor:
                yield f"{where}: {row.page!r} names no section; write page#anchor"
            else:
                for lang in pages[id]:
                    if anchor not in anchors[id, lang]:
                        yield f"{where}: page {id!r} has no section {anchor!r} in {lang}"


def _rule_faults(table: Table, fields: set[str]) -> Iterator[str]:
    """A key in `set` that nobody reads is a typo: it must be a field, a decision, or read by another rule."""
    read_by_rules = {fact for row in table.rows for fact in row.when}
    for row in table.rows:
        for value in (*row.set.values(), *row.when.values()):
            read_by_rules |= _names(value)
    known = fields | DECISION_KEYS | read_by_rules
    for number, row in enumerate(table.rows):
        for key, value in row.set.items():
            where = table.at(number, "set", key)
            if key not in known:
                yield f"{where}: set {key!r} is no field of RunConfig or Situation, nor one of DECISION_KEYS, and no rule reads it"
            yield from _expression_faults(where, value)
        for key, limits in row.range.items():
            where = table.at(number, "range", key)
            if key not in row.set:
                yield f"{where}: range of {key!r}, which the rule does not set"
            if len(limits) != 2 or limits[0] > limits[1]:
                yield f"{where}: range of {key!r} must be [low, high]"


def _symptom_faults(table: Table, fields: set[str]) -> Iterator[str]:
    for number, row in enumerate(table.rows):
        for position, remedy in enumerate(row.remedies):
            for key, value in remedy.change.items():
                where = table.at(number, "remedies", position, "change", key)
                if key not in fields:
                    yield f"{where}: change {key!r} is no field of RunConfig"
                yield from _expression_faults(where, value)
                for name in sorted(_names(value) - fields):
                    yield f"{where}: {name!r} in {value!r} is no field of RunConfig"


def _expression_faults(where: str, value: Any) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("=") and _parse(value) is None:
        yield f"{where}: {value!r} is not an expression"


def _names(value: Any) -> set[str]:
    """Facts that an "=…" value reads; functions such as min are none."""
    if isinstance(value, dict):
        return {name for part in value.values() for name in _names(part)}
    tree = _parse(value) if isinstance(value, str) and value.startswith("=") else None
    if tree is None:
        return set()
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - called


def _parse(value: str) -> ast.expr | None:
    try:
        return ast.parse(value[1:].strip(), mode="eval").body
    except SyntaxError:
        return None


def _read_pages(root: Path, faults: list[str]) -> dict[str, dict[str, Page]]:
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


def _pages_faults(pages: dict[str, dict[str, Page]], root: Path, latest: date) -> Iterator[str]:
    present = {shown(path, root) for path in files(root)}
    for id, twins in pages.items():
        for page in twins.values():
            where = shown(page.path, root)
            text = page.path.read_text(encoding="utf-8")
            yield from _front_faults(page, text, where, pages, latest)
            yield from _heading_faults(page, where)
            yield from _footnote_faults(page, text, where)
            yield from _block_faults(page, text, where, root)
            for lang in LANGS:
                if f"kb/pages/{id}.{lang}.md" not in present:
                    yield f"{where}:1: no twin in {lang}; write kb/pages/{id}.{lang}.md"
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


if __name__ == "__main__":
    found = check()
    print(*found, sep="\n", end="\n" if found else "")
    raise SystemExit(bool(found))
