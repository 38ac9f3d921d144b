"""`tunesmith data import`: a source → its columns named → JSON lines in the project's data folder, and a record.

The record in data_source.yaml (key `imports`) holds the source, its options, the mapping and hashes of what came in,
so that `tunesmith data import data_source.yaml` does it again and says whether the content has changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import yaml

from trainer.config import UserError, write_atomic
from trainer.data.check import METHOD_OF_FORMAT
from trainer.data.convert import convert_rows, shape_of
from trainer.data.history import RECORD, writers
from trainer.data.mapping import LOOKED_AT, Mapping, apply, opened, propose
from trainer.data.read import file_hash
from trainer.data.sources import Incoming, open_source, split_name
from trainer.data.sources.incoming import Environ, Item, Note, Part, note

Seen = Callable[[int, int | None], None]  # rows read, rows expected if that is known
Planned = tuple[Part, list[Item], Mapping]
CHUNK = 500
SHOWN = 5  # places kept a fault


@dataclass
class Import:
    """One import, as it is recorded.

    `content_sha256` is of the file or files, or of all records in their order; `rows_sha256` of the records in any
    order, so that another order is told from another content. `counts`: read, written, trainable, and by kind what
    was left out or mended, or cannot be trained on (`places` says where). `outputs` maps files to their SHA-256.
    """

    source: str
    options: dict[str, Any] = field(default_factory=dict)
    map: dict[str, str] = field(default_factory=dict)
    limit: int | None = None
    content_sha256: str = ""
    rows_sha256: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass
class Looked:
    """What would be imported: for each part its mapping and first row as it would be written."""

    name: str
    parts: list[tuple[str, Mapping, dict[str, Any]]]
    columns: list[str]
    notes: list[Note]


@dataclass
class Report:
    """What an import did. `rows` are those written to each file, `places` the first rows of each fault.

    A repeated one says in `changed` how what came in differs (new, same, order, content) and how many rows it read
    `before`.
    """

    made: Import
    folder: Path
    notes: list[Note]
    places: dict[str, list[str]]
    rows: dict[str, int]
    changed: str = ""
    before: int = 0


def look(source: str, options: dict[str, Any], given: dict[str, str], environ: Environ) -> Looked:
    """Read the first rows of a source and propose what its columns are; writes nothing. Raises UserError."""
    incoming, _ = open_source(source, options, environ)
    parts = []
    columns: dict[str, None] = {}
    for part, head, mapping in _planned(incoming, given, LOOKED_AT):
        columns.update(dict.fromkeys(name for _, row in head for name in row))
        parts.append((part.name, mapping, apply(head[0][1], mapping)))
    return Looked(incoming.name, parts, list(columns), incoming.notes)


def bring_in(
    source: str, out: Path, options: dict[str, Any], given: dict[str, str], environ: Environ,
    limit: int | None = None, seen: Seen = lambda read, total: None,
) -> Report:  # fmt: skip
    """Import a source into `out` (a .jsonl file; a folder of several formats makes one file of each).

    Raises UserError, also where a column was only guessed: a person has to say what it is. Nothing is left of an
    import that was not finished.
    """
    out = Path(out)
    if out.suffix != ".jsonl":
        raise UserError(f"{out}: rows are written as JSON lines; give a name that ends in .jsonl")
    incoming, kept_options = open_source(source, options, environ)
    if out.resolve() == Path(source).resolve():
        raise UserError(f"{out}: would overwrite its own input; give another file")
    planned = _planned(incoming, given, min(LOOKED_AT, limit or LOOKED_AT))
    for _, _, mapping in planned:
        if mapping.guessed:
            raise UserError(_asking(source, mapping))
    names = _names(out, [mapping.detected.format for _, _, mapping in planned])
    files = tuple(dict.fromkeys(names))
    tally, rows = Tally(incoming.total, limit, seen), Counter()
    with writers(out.parent, files) as write:
        for name, (part, head, mapping) in zip(names, planned, strict=True):
            # A remote part cannot begin again: its first rows are those that were looked at.
            with closing(part.open() if len(planned) > 1 else iter_of(head, part)) as items:
                for row in tally.through(items, mapping):
                    write(name, row)
                    rows[name] += 1
        if not tally.written:
            raise UserError(f"{source}: no row was read; nothing was written")
    made = Import(
        _relative(incoming.name, out.parent), kept_options, _columns(planned), limit,
        incoming.content_sha256 or tally.content.hexdigest(), tally.any_order(), incoming.facts,
        tally.counts(incoming.counts), {}, {name: file_hash(out.parent / name) for name in files},
    )  # fmt: skip
    made.formats = {
        name: mapping.detected.format for name, (_, _, mapping) in zip(names, planned, strict=True)
    }
    _record(out.parent, made)
    return Report(made, out.parent, incoming.notes, tally.places, dict(rows))


def file_name(source: str) -> str:
    """A name for what comes of a source: reviews.jsonl, owner-name-train.jsonl, example.org-rows.jsonl."""
    kind, target = split_name(source)
    if kind == "path" or (kind == "web" and "://" not in target):
        stem = Path(target).stem
    elif kind == "sql":
        stem = Path(target).stem if target.strip().endswith(".sql") else "query"
    else:
        stem = target.split()[0].split("://")[-1].split("?")[0]
    return re.sub(r"[^\w.]+", "-", stem).strip("-.")[:80] + ".jsonl"


def repeat(record: Path, environ: Environ, seen: Seen = lambda read, total: None) -> list[Report]:
    """Do the imports of a data_source.yaml again; each report says whether the content changed. Raises UserError."""
    folder = record.parent
    reports = []
    recorded = imports(record)
    if not recorded:
        raise UserError(f"{record}: no imports in it; make one with `tunesmith data import SOURCE OUT`")
    for old in recorded:
        if not old.outputs or any(
            "/" in name or "\\" in name or name.startswith(".") for name in old.outputs
        ):
            raise UserError(f"{record}: {old.source}: outputs must name files of this folder, as rows.jsonl")
        out = folder / (next(iter(old.outputs)) if len(old.outputs) == 1 else _stem_of(old))
        source = old.source
        if ":" not in source.split("/")[0] and not Path(source).is_absolute():
            source = str(folder / source)
        report = bring_in(source, out, old.options, old.map, environ, old.limit, seen)
        report.changed, report.before = _change(old, report.made), old.counts.get("read", 0)
        reports.append(report)
    return reports


def imports(record: Path) -> list[Import]:
    """The imports that a data_source.yaml records. Raises UserError where it is damaged."""
    try:
        document = yaml.safe_load(record.read_text(encoding="utf-8")) or {}
        return [Import(**item) for item in document.get("imports") or []]
    except FileNotFoundError:
        raise UserError(f"{record}: no such file; give a data_source.yaml") from None
    except (OSError, yaml.YAMLError, TypeError, AttributeError, UnicodeDecodeError) as error:
        told = str(error).splitlines()[0]
        raise UserError(f"{record}: not a record of imports: {told}; mend or remove it") from None


def _planned(incoming: Incoming, given: dict[str, str], count: int) -> list[Planned]:
    """Each part with its first rows and its mapping; parts that give no rows are left out with a line."""
    alone = len(incoming.parts) == 1
    planned: list[Planned] = []
    for part in incoming.parts:
        try:
            one = _plan(part, given, count, alone)
        except UserError as error:
            if alone:
                raise
            incoming.notes.append(note("failed", error=str(error)))
            continue
        if one is None:
            incoming.notes.append(note("empty", name=part.name))
        else:
            planned.append(one)
    if not alone:
        incoming.counts.clear()  # counted again when the parts are read whole
    if not planned:
        told = "; ".join(line["en"] for line in incoming.notes[:3]) or "it holds no rows"
        raise UserError(f"{incoming.name}: nothing to import: {told}")
    return planned


def _plan(part: Part, given: dict[str, str], count: int, alone: bool) -> Planned | None:
    items = part.open()
    head = [(where, opened(row)) for where, row in islice(items, count)]
    if alone:
        part = Part(part.name, lambda: items)  # the rest of the same reading
    else:
        items.close()
    if not head:
        return None
    rows = [row for _, row in head]
    # In a folder a given column is meant for the files that have it.
    fitting = alone or {column.split(".")[0] for column in given.values()} <= {
        name for row in rows for name in row
    }
    return part, head, propose(rows, given if fitting else {}, part.name)


def iter_of(head: list[Item], part: Part) -> Iterator[Item]:
    """The first rows, which were read already, and those after them."""
    rest = part.open()
    try:
        yield from chain(head, rest)
    finally:
        rest.close()


class Tally:
    """Rows on their way through: hashed as they came, mapped, tried for training, counted."""

    def __init__(self, total: int | None, limit: int | None, seen: Seen) -> None:
        self.total, self.limit, self.seen = limit or total, limit, seen
        self.read = self.written = self.trainable = 0
        self.content = hashlib.sha256()
        self._sum = 0
        self._faults: Counter[str] = Counter()
        self.places: dict[str, list[str]] = defaultdict(list)

    def through(self, items: Iterator[Item], mapping: Mapping) -> Iterator[dict[str, Any]]:
        """The mapped rows of a part."""
        method = METHOD_OF_FORMAT.get(mapping.detected.format, "sft")
        while chunk := list(islice(items, min(CHUNK, (self.limit or self.read + CHUNK) - self.read))):
            mapped = []
            for _, row in chunk:
                row = opened(row)
                raw = json.dumps(row, ensure_ascii=False, sort_keys=True).encode("utf-8", "surrogatepass")
                self.content.update(raw + b"\n")
                self._sum += int.from_bytes(hashlib.sha256(raw).digest())
                mapped.append(apply(row, mapping))
            self._try(chunk, mapped, mapping, method)
            self.read += len(chunk)
            self.seen(self.read, self.total)
            for row in mapped:
                self.written += 1
                yield row

    def _try(self, chunk: list[Item], mapped: list[dict[str, Any]], mapping: Mapping, method: str) -> None:
        converted = convert_rows(list(enumerate(mapped)), mapping.detected, shape_of(method))
        self.trainable += len(set(converted.numbers))
        for kind, numbers in converted.faults.items():
            self._faults[kind] += len(numbers)
            room = SHOWN - len(self.places[kind])
            self.places[kind] += [chunk[number][0] for number in numbers[:room]]

    def any_order(self) -> str:
        """A hash that does not depend on the order of the rows: the sum of theirs."""
        return f"{self._sum % 2**256:064x}"

    def counts(self, before: Counter[str]) -> dict[str, int]:
        """read, written, trainable, then kinds; `before` counts what was left out while reading."""
        kinds = self._faults + Counter({kind: count for kind, count in before.items() if kind != "broken"})
        read = self.read + before["broken"]
        return {"read": read, "written": self.written, "trainable": self.trainable, **kinds}


def _names(out: Path, formats: list[str]) -> list[str]:
    """The file of each part: one for all, or one a format where there are several."""
    if len(set(formats)) == 1:
        return [out.name] * len(formats)
    return [f"{out.stem}-{name.replace('+', '-')}.jsonl" for name in formats]


def _stem_of(old: Import) -> str:
    """The name that was asked for, of an import into several files."""
    name, kind = next(iter(old.formats.items()))
    return name.removesuffix(f"-{kind.replace('+', '-')}.jsonl") + ".jsonl"


def _columns(planned: list[Planned]) -> dict[str, str]:
    """The mapping to record: that of a single part, of several only what all share."""
    first = planned[0][2].columns
    return first if all(mapping.columns == first for _, _, mapping in planned) else {}


def _asking(source: str, mapping: Mapping) -> str:
    told = ", ".join(
        f"{match.column!r} as {match.role} ({match.confidence:.2f})" for match in mapping.matches
    )
    command = " ".join(f"--map {match.role}={match.column}" for match in mapping.matches)
    return f"{source}: its columns can only be guessed: {told}; say so if it is right: {command}"


def _change(old: Import, new: Import) -> str:
    """ "", "order" or "content": how what came in differs from the time before; "new" where nothing was recorded."""
    if not old.content_sha256:
        return "new"
    if old.content_sha256 == new.content_sha256:
        return "same"
    return "order" if old.rows_sha256 == new.rows_sha256 else "content"


def _relative(name: str, folder: Path) -> str:
    """A path relative to the record's folder where it lies in it; other sources by their name."""
    if ":" in name.split("/")[0]:
        return name
    path = Path(name).expanduser().resolve()
    return str(path.relative_to(folder.resolve())) if path.is_relative_to(folder.resolve()) else str(path)


def _record(folder: Path, made: Import) -> None:
    record = folder / RECORD
    kept = (
        [old for old in imports(record) if not set(old.outputs) & set(made.outputs)]
        if record.is_file()
        else []
    )
    document = yaml.safe_load(record.read_text(encoding="utf-8")) if record.is_file() else {}
    told = [
        {name: value for name, value in asdict(one).items() if value not in (None, "", {})}
        for one in [*kept, made]
    ]
    # asdict has no aliases to share, but a Counter is no plain dict for YAML
    document = {**(document or {}), "imports": json.loads(json.dumps(told))}
    head = "# How the files of this folder came here. Again: tunesmith data import data_source.yaml, data rebuild FOLDER\n"
    write_atomic(record, head + yaml.safe_dump(document, allow_unicode=True, sort_keys=False))
