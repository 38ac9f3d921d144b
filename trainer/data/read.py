"""Any text file of rows → numbered records, read by json and csv alone, before any library guesses.

First step of the flow file → read → detect → convert → split. What cannot be read at all is a
UserError that names file, line and column; what can be mended is counted in `Records.mended`.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.config import UserError
from trainer.data import documents, tables
from trainer.data.lines import Fault, blocks, json_name, loader, parse

SUFFIXES = (
    ".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".xlsx", ".conll", ".bio", ".annotated", ".txt", ".md",
    ".mdx", ".pdf", ".ann",
)  # fmt: skip
# Wide characters are named first by their mark: a UTF-32-LE mark begins like a UTF-16-LE one.
WIDE_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"),
)  # fmt: skip
LARGEST_WHOLE = 1 << 28  # bytes of a file that is read as a whole: it takes up to six times that in memory
WHOLE = (".json", ".pdf", ".ann")  # all others are read in parts


@dataclass
class Records:
    """Rows of a file as they stand in it.

    `rows` are (number, record): the line in the file, or for a JSON array the index from 1. `unit` says
    which ("line" or "row"). `mended` counts what was put right while reading, by kind.
    """

    path: Path
    kind: str
    unit: str
    rows: list[tuple[int, dict[str, Any]]]
    sha256: str
    mended: Counter[str] = field(default_factory=Counter)

    def where(self, number: int) -> str:
        return f"{self.path}:{number}" if self.unit == "line" else f"{self.path}, row {number}"


def read_records(path: Path) -> Records:
    """Read a file of one of SUFFIXES. Raises UserError: what, file:line, what to do."""
    check_path(path)
    if streams(path):
        records = _read_jsonl(path)
    else:
        given = source(path)
        rows = list(given.rows)
        records = Records(path, given.kind, given.unit, rows, file_hash(path), given.mended)
    if not records.rows:
        raise UserError(f"{path}:1: the file holds no rows; give it at least one")
    return records


@dataclass
class Source:
    """Rows of a file as they are read; `mended` is whole when they are."""

    kind: str
    unit: str
    rows: Iterator[tuple[int, dict[str, Any]]]
    mended: Counter[str]


def source(path: Path, seen: Callable[[int], None] = lambda size: None) -> Source:
    """The rows of a file that is no JSONL (see `streams`), one after the other; `seen` is told the bytes read.

    Raises UserError, also while rows are read. Only a JSON document, a PDF and brat's pair are read as a whole.
    """
    suffix, mended = path.suffix.lower(), Counter()
    if suffix in documents.READERS:
        unit, rows = documents.READERS[suffix](path, seen)
        return Source(suffix[1:], unit, rows, mended)
    if suffix in (".csv", ".tsv"):
        return Source(suffix[1:], "line", tables.table(path, suffix[1:], mended, seen), mended)
    if suffix == ".json":
        rows = iter(_read_json(path, "".join(tables.lines_of(path, seen, LARGEST_WHOLE)), mended))
        return Source("json", "row", rows, mended)
    kind, rows = tables.text(path, seen)
    return Source(kind, "line", rows, mended)


def streams(path: Path) -> bool:
    """Whether the file holds one JSON object a line, which lines.blocks can read in parts."""
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".ndjson"):
        return True
    if suffix != ".json":
        return False
    with path.open("rb") as file:  # many ".json" files hold one object a line
        head = file.read(1 << 20).lstrip(b"\xef\xbb\xbf \t\r\n")
    first, _, rest = head.partition(b"\n")
    first = first.rstrip()
    return first[:1] == b"{" and first[-1:] == b"}" and rest.strip()[:1] == b"{"


def check_path(path: Path) -> None:
    """Raise UserError where the file is missing, unreadable, empty, of an unknown kind or too large to read whole."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{path}: unknown kind of file {path.suffix!r}; save it as one of: {', '.join(SUFFIXES)} (UTF-8)"
        )
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
        size = path.stat().st_size
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of a data file") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}; check the path and its permissions"
        ) from None
    if not head.strip() and _is_blank(path):
        raise UserError(f"{path}:1: the file is empty; give it rows")
    for mark, name in WIDE_MARKS:
        if head.startswith(mark):
            raise UserError(f"{path}:1: the file is {name}; save it as UTF-8")
    if size > LARGEST_WHOLE and path.suffix.lower() in WHOLE and not streams(path):
        raise UserError(
            f"{path}: {size >> 20} MB of {path.suffix} cannot be read in parts; save it as .jsonl or .parquet"
        )


def _is_blank(path: Path) -> bool:
    with path.open("rb") as file:
        return not any(part.strip() for part in iter(lambda: file.read(1 << 20), b""))


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# JSON


def _read_jsonl(path: Path) -> Records:
    digest = hashlib.sha256()
    records = Records(path, "jsonl", "line", [], "")
    faults: list[Fault] = []
    for block in blocks(path, digest.update):
        parsed = parse(block)
        records.rows += parsed.rows
        records.mended += parsed.mended
        faults += parsed.faults
    records.sha256 = digest.hexdigest()
    if faults:
        more = f" (and {len(faults) - 1} more broken lines)" if len(faults) > 1 else ""
        raise UserError(
            f"{path}{faults[0].text}{more}; mend or remove the line, or: tunesmith data repair {path} OUT"
        )
    return records


def _read_json(path: Path, text: str, mended: Counter[str]) -> list[tuple[int, dict[str, Any]]]:
    try:
        value = loader(mended)(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}; mend it"
        ) from None
    except RecursionError:
        raise UserError(f"{path}:1: nested too deeply to read; give a list of flat rows") from None
    rows = _rows_of(value)
    if rows is None:
        names = ", ".join(repr(name[:40]) for name in list(value)[:6]) if isinstance(value, dict) else ""
        found = f"one object with {names}" if names else json_name(value)
        raise UserError(f"{path}:1: expected a list of rows, found {found}; save rows as a list")
    numbered = []
    for number, record in enumerate(rows, start=1):
        if isinstance(record, str):
            record = {"text": record}
        if not isinstance(record, dict):
            raise UserError(
                f"{path}, row {number}: expected an object {{…}}, found {json_name(record)}; make it an object"
            )
        numbered.append((number, record))
    return numbered


def _rows_of(value: Any) -> list[Any] | None:
    """The rows that a JSON document holds, in the layouts that public data sets use; None if it holds none."""
    if isinstance(value, dict):
        lists = {name: item for name, item in value.items() if isinstance(item, list) and item}
        of = lambda fits: (
            lists and len(lists) == len(value) and all(fits(i) for rows in lists.values() for i in rows)
        )
        if of(lambda item: isinstance(item, str)):  # {label: [text]}
            return [{"text": text, "label": name} for name, texts in lists.items() for text in texts]
        if of(
            lambda item: isinstance(item, list) and len(item) == 2 and all(isinstance(x, str) for x in item)
        ):
            # {split: [[text, label]]}, as CLINC has it
            return [{"text": a, "label": b, "split": name} for name, rows in lists.items() for a, b in rows]
        tables = [rows for rows in lists.values() if isinstance(rows[0], dict)]
        return _flat(tables[0]) if len(tables) == 1 else None
    return _flat(value) if isinstance(value, list) else None


def _flat(rows: list[Any]) -> list[Any]:
    """SQuAD's articles as one row a question; any other list as it is."""
    if not (rows and isinstance(rows[0], dict) and isinstance(rows[0].get("paragraphs"), list)):
        return rows
    flat = []
    for article in rows:
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        for paragraph in paragraphs if isinstance(paragraphs, list) else [{}]:
            given = paragraph if isinstance(paragraph, dict) else {}
            questions = given.get("qas")
            for item in questions if isinstance(questions, list) else [{}]:
                item = item if isinstance(item, dict) else {}
                answers = item.get("answers")
                first = answers[0] if isinstance(answers, list) and answers else None
                answer = first.get("text") if isinstance(first, dict) else first
                flat.append(
                    {"context": given.get("context"), "question": item.get("question"), "answer": answer}
                )
    return flat
