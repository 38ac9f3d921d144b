"""Faults of the knowledge base, each as "file:line: what": the tables, the pages, and what joins them.

`tunesmith kb check` and the tests run this; `python -m kb.check` does so without the rest of Tunesmith.
kb imports no other room, so the names of RunConfig's fields are read from its source.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kb import facts
from kb.check_pages import page_faults, read_pages
from kb.pages import KB_DIR, LANGS, Page, shown
from kb.tables import class_fields

# What a rule may set beside fields of RunConfig and Situation: the decision, what is collected for the reader,
# and values in between that assistant/recommend.py and trainer/estimate.py read on their way to a RunConfig.
_DECIDED = "decision warning alternative plan ask families kinds target_b named_b length_needed headroom headroom_least batch_min batch_target fix serve_gb_per_second serve_gflops answer_ms score_points head_better"
_MEASURED = (
    "utilisation cpu_gflops_per_core starter_gflops disk_gb_per_second probe_share_gpu probe_share_cpu"
)
DECISION_KEYS = frozenset(f"{_DECIDED} {_MEASURED}".split())
CODE = re.compile(r"`(\w+)`")
# What is published once and stays as it was: papers and data sheets do not age, documentation and prices do.
FIXED = re.compile(r"arxiv\.org|doi\.org|aclanthology|openreview|proceedings|/releases/tag/|\.pdf$|datasheet")
FRESH_DAYS = 180
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
        pages = read_pages(root, faults)
        fields = class_fields(root.parent / "trainer" / "config.py", "RunConfig").keys()
        situation = class_fields(root.parent / "assistant" / "types.py", "Situation").keys()
        faults += _page_references(tables, pages)
        faults += _rule_faults(tables["rules"], fields | situation)
        faults += _symptom_faults(tables["symptoms"], tables["measures"], fields)
        faults += page_faults(pages, root, latest)
        faults += _coverage_faults(pages, tables["methods"], fields, root)
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


def _rule_faults(table: Table, fields: Set[str]) -> Iterator[str]:
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


def _symptom_faults(table: Table, measures: Table, fields: Set[str]) -> Iterator[str]:
    known = {row.id for row in measures.rows}
    for number, row in enumerate(table.rows):
        for position, signal in enumerate(row.signals):
            for measure in signal.when.keys() - known:
                where = table.at(number, "signals", position, "when", measure)
                yield f"{where}: unknown measure {measure!r}; see kb/facts/measures.yaml"
        for position, remedy in enumerate(row.remedies):
            for key, value in remedy.change.items():
                where = table.at(number, "remedies", position, "change", key)
                if key not in fields:
                    yield f"{where}: change {key!r} is no field of RunConfig"
                yield from _expression_faults(where, value)
                for name in sorted(_names(value) - fields):
                    yield f"{where}: {name!r} in {value!r} is no field of RunConfig"


def _coverage_faults(
    pages: dict[str, dict[str, Page]], methods: Table, fields: Set[str], root: Path
) -> Iterator[str]:
    """What a run may name and no page tells: a setting without a mention, a method without its row."""
    config = root.parent / "trainer" / "config.py"
    where = f"trainer/{config.name}"
    mentioned = {
        lang: set(CODE.findall("\n".join(twins[lang].body for twins in pages.values() if lang in twins)))
        for lang in LANGS
    }
    for lang in LANGS:
        for field, node in class_fields(config, "RunConfig").items():
            if field not in mentioned[lang]:
                yield f"{where}:{node.lineno}: no page in {lang} tells of `{field}`"
    told = {row.id for row in methods.rows}
    for name, line in _method_names(root.parent / "trainer" / "methods" / "__init__.py"):
        if name not in told:
            yield f"trainer/methods/__init__.py:{line}: method {name!r} has no row in kb/facts/methods.yaml"


def _method_names(path: Path) -> Iterator[tuple[str, int]]:
    """(key of METHODS, its line), read from source without importing it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "METHODS":
            assert isinstance(node.value, ast.Dict)
            yield from ((key.value, key.lineno) for key in node.value.keys if isinstance(key, ast.Constant))


def notes(root: Path | None = None, today: date | None = None) -> list[str]:
    """What is sound but old: pages, and sources that change after their date, not looked at for 180 days."""
    root = root or KB_DIR
    oldest = (today or date.today()) - timedelta(days=FRESH_DAYS)
    found = []
    sources = _read_table("sources", root, [])
    for number, row in enumerate(sources.rows):
        if row.date < oldest and not FIXED.search(row.url):
            found.append(
                f"{sources.at(number, 'date')}: {row.key!r} was read on {row.date}; read it again and mend what changed"
            )
    for twins in read_pages(root, []).values():
        for page in twins.values():
            if page.updated < oldest:
                found.append(f"{shown(page.path, root)}:1: updated {page.updated}; read it again")
    return sorted(found, key=_place)


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


if __name__ == "__main__":
    found = check()
    print(*found, sep="\n", end="\n" if found else "")
    raise SystemExit(bool(found))
