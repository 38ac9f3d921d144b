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
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.config import UserError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".md")
# Wide characters are named first by their mark: a UTF-32-LE mark begins like a UTF-16-LE one.
WIDE_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"), (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"),
)  # fmt: skip
LONGEST_NUMBER = 4000  # digits; Python refuses to read more than 4,300 as an int


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
    """Read .jsonl, .json, .csv, .tsv or .txt as UTF-8. Raises UserError: what, file:line, what to do."""
    raw = _read_bytes(path)
    text = _decode(path, raw)
    records = Records(path, _kind(path, text), "line", [], hashlib.sha256(raw).hexdigest())
    readers = {"jsonl": _read_jsonl, "json": _read_json, "csv": _read_table, "tsv": _read_table}
    readers.get(records.kind, _read_text)(records, text)
    if not records.rows:
        raise UserError(f"{path}:1: the file holds no rows; give it at least one")
    return records


def _read_bytes(path: Path) -> bytes:
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{path}: unknown kind of file {path.suffix!r}; save it as one of: {', '.join(SUFFIXES)} (UTF-8)"
        )
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of a data file") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}; check the path and its permissions"
        ) from None
    if not raw.strip():
        raise UserError(f"{path}:1: the file is empty; give it rows")
    return raw


def _decode(path: Path, raw: bytes) -> str:
    for mark, name in WIDE_MARKS:
        if raw.startswith(mark):
            raise UserError(f"{path}:1: the file is {name}; save it as UTF-8")
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
    if suffix in ("jsonl", "ndjson"):
        return "jsonl"
    if suffix == "json":  # many ".json" files hold one object a line
        first, _, rest = text.lstrip().partition("\n")
        first = first.rstrip()
        return "jsonl" if first[:1] == "{" and first[-1:] == "}" and rest.strip()[:1] == "{" else "json"
    return suffix if suffix in ("csv", "tsv") else "text"


# JSON


def _read_jsonl(records: Records, text: str) -> None:
    load = _loader(records)
    first: str | None = None
    broken = 0
    # Only "\n" ends a line: str.splitlines would also cut at U+2028 inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = load(line)
            if isinstance(record, dict):
                records.rows.append((number, record))
                continue
            fault = f"{records.path}:{number}: expected an object {{…}}, found {_json_name(record)}"
        except json.JSONDecodeError as error:
            fault = f"{records.path}:{number}:{error.colno}: not valid JSON: {error.msg}"
        except RecursionError:
            fault = f"{records.path}:{number}: nested too deeply to read"
        broken += 1
        first = first or fault
    if first:
        more = f" (and {broken - 1} more broken lines)" if broken > 1 else ""
        raise UserError(f"{first}{more}; mend or remove the line")


def _read_json(records: Records, text: str) -> None:
    path = records.path
    try:
        value = _loader(records)(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}; mend it"
        ) from None
    except RecursionError:
        raise UserError(f"{path}:1: nested too deeply to read; give a list of flat rows") from None
    if isinstance(value, dict):
        lists = [
            name
            for name, item in value.items()
            if isinstance(item, list) and item and isinstance(item[0], dict)
        ]
        if len(lists) != 1:
            names = ", ".join(repr(name) for name in list(value)[:6])
            raise UserError(
                f"{path}:1: expected a list of rows, found one object with {names}; save rows as a list"
            )
        value = value[lists[0]]
    if not isinstance(value, list):
        raise UserError(f"{path}:1: expected a list of rows, found {_json_name(value)}; save rows as a list")
    records.unit = "row"
    for number, record in enumerate(value, start=1):
        if not isinstance(record, dict):
            raise UserError(
                f"{records.where(number)}: expected an object {{…}}, found {_json_name(record)}; make it an object"
            )
        records.rows.append((number, record))


def _loader(records: Records) -> Any:
    mended = records.mended

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(items)
        if len(record) < len(items):
            mended["duplicate_key"] += 1
        return record

    def constant(name: str) -> None:  # NaN, Infinity: written by pandas for a missing value
        mended["nan"] += 1

    def whole(digits: str) -> Any:
        return int(digits) if len(digits) <= LONGEST_NUMBER else digits

    def real(digits: str) -> Any:
        value = float(digits)
        return value if math.isfinite(value) else digits

    # The hooks leave the decoder written in C in use.
    decoder = json.JSONDecoder(
        object_pairs_hook=pairs, parse_constant=constant, parse_int=whole, parse_float=real
    )
    return decoder.decode


def _json_name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "a number")


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
