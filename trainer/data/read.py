"""Any text file of rows → numbered records, read by json and csv alone, before any library guesses.

First step of the flow file → read → detect → convert → split. What cannot be read at all is a
UserError that names file, line and column; what can be mended is counted in `Records.mended`.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.config import UserError
from trainer.data import documents
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
LARGEST_WHOLE = 1 << 30  # bytes of a file that is read as a whole; JSONL and Parquet are read in parts


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
    suffix = path.suffix.lower()
    if streams(path):
        records = _read_jsonl(path)
    elif suffix in documents.READERS:
        records = Records(path, suffix[1:], "row", [], file_hash(path))
        records.unit, records.rows = documents.READERS[suffix](path)
    else:
        raw = path.read_bytes()
        text = _decode(path, raw)
        records = Records(path, _kind(path, text), "line", [], hashlib.sha256(raw).hexdigest())
        readers = {"json": _read_json, "csv": _read_table, "tsv": _read_table}
        readers.get(records.kind, _read_text)(records, text)
    if not records.rows:
        raise UserError(f"{path}:1: the file holds no rows; give it at least one")
    return records


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
    if not head.strip() and (size <= len(head) or not path.read_bytes().strip()):
        raise UserError(f"{path}:1: the file is empty; give it rows")
    for mark, name in WIDE_MARKS:
        if head.startswith(mark):
            raise UserError(f"{path}:1: the file is {name}; save it as UTF-8")
    if size > LARGEST_WHOLE and path.suffix.lower() != ".parquet" and not streams(path):
        raise UserError(
            f"{path}: {size >> 20} MB of {path.suffix} cannot be read in parts; save it as .jsonl or .parquet"
        )


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _decode(path: Path, raw: bytes) -> str:
    raw = raw.removeprefix(codecs.BOM_UTF8)
    at = raw.find(b"\0")
    if at >= 0:
        line = raw.count(b"\n", 0, at) + 1
        raise UserError(
            f"{path}:{line}: a NUL byte at offset {at}; the file is binary or UTF-16: save it as UTF-8 text"
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}:{line}: invalid UTF-8 (byte 0x{raw[error.start]:02x} at offset {error.start}); save it as UTF-8"
        ) from None


def _kind(path: Path, text: str) -> str:
    suffix = path.suffix.lower().lstrip(".")
    return suffix if suffix in ("json", "csv", "tsv") else "text"


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


def _read_json(records: Records, text: str) -> None:
    path = records.path
    try:
        value = loader(records.mended)(text)
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
    records.unit = "row"
    for number, record in enumerate(rows, start=1):
        if isinstance(record, str):
            record = {"text": record}
        if not isinstance(record, dict):
            raise UserError(
                f"{records.where(number)}: expected an object {{…}}, found {json_name(record)}; make it an object"
            )
        records.rows.append((number, record))


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


# tables and text


def _read_table(records: Records, text: str) -> None:
    path = records.path
    header_line = text.split("\n", 1)[0]
    delimiter = "\t" if records.kind == "tsv" else max(",;\t", key=header_line.count)
    lines = _plain_lines(text) if delimiter == "\t" else None
    rows = lines if lines is not None else _quoted_rows(path, text, delimiter)
    header = [name.strip() for name in rows[0][1]]
    if len(set(header)) < len(header) or not all(header):
        raise UserError(f"{path}:1: the header has an empty or repeated column name; name each column once")
    for number, fields in rows[1:]:
        if not any(field.strip() for field in fields):
            continue
        if len(fields) != len(header):
            # Cells that are missing at the end read as empty; the converter then names the row.
            records.mended["ragged_row"] += 1
        records.rows.append((number, dict(zip(header, fields, strict=False))))


def _plain_lines(text: str) -> list[tuple[int, list[str]]] | None:
    """Tab-separated lines in which quotes mean nothing; None if some line has another number of cells.

    Most .tsv files are so, and their lone quotes would swallow lines in a reader of quoted cells.
    """
    rows = [
        (number, line.removesuffix("\r").split("\t"))
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    width = len(rows[0][1])
    if any(len(fields) != width for _, fields in rows):
        return None
    return [(number, [_unquote(field) for field in fields]) for number, fields in rows]


def _unquote(field: str) -> str:
    inner = field[1:-1]
    whole = len(field) >= 2 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if whole else field


def _quoted_rows(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    csv.field_size_limit(2**31 - 1)  # the default of 128 KiB refuses long documents
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    start = 1
    try:
        for fields in reader:
            if fields:
                rows.append((start, fields))
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}:{start}: not a readable table: {error}; mend the quotes of this row"
        ) from None
    return rows


def _read_text(records: Records, text: str) -> None:
    """Documents of raw text: paragraphs between blank lines, or lines where there are no blank ones."""
    lines = text.replace("\r\n", "\n").split("\n")
    if documents.is_conll(lines):
        records.kind, records.rows = "conll", documents.conll(lines)
        return
    if records.path.suffix.lower() in (".md", ".mdx"):
        records.rows = documents.sections(lines)
        return
    by_line = not any(not line.strip() for line in lines[:-1])
    document: list[str] = []
    start = 1
    for number, line in enumerate([*lines, ""], start=1):
        if line.strip():
            if not document:
                start = number
            document.append(line)
        if document and (by_line or not line.strip()):
            records.rows.append((start, {"text": "\n".join(document)}))
            document = []
