"""Files of lines that are no JSON (CSV, TSV, plain text, Markdown, CoNLL) → records, one at a time. For read.py.

Every line is decoded where it is read, so that a file of any size takes the memory of its longest row.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from trainer.config import UserError
from trainer.data import documents
from trainer.data.lines import LONGEST_LINE

Numbered = tuple[int, dict[str, Any]]
Seen = Callable[[int], None]  # told the bytes read since it was last told
ENDS = re.compile("(?<=\r)(?!\n)")  # a line of an old Mac ends in \r alone
TOLD = 1 << 20


def lines_of(path: Path, seen: Seen = lambda size: None, longest: int = LONGEST_LINE) -> Iterator[str]:
    """Lines of a UTF-8 file with their ends. Raises UserError: a NUL, bytes that are no UTF-8, an endless line."""
    with path.open("rb") as file:
        offset = told = 0
        for number in range(1, 1 << 62):
            raw = file.readline(longest + 1)
            if not raw:
                break
            if len(raw) > longest and not raw.endswith(b"\n"):
                raise UserError(
                    f"{path}:{number}: a line of more than {longest >> 20} MB; divide the text into shorter lines"
                )
            yield from (
                ENDS.split(_decoded(path, number, offset, raw))
                if b"\r" in raw
                else (_decoded(path, number, offset, raw),)
            )
            offset += len(raw)
            if offset - told > TOLD:
                seen(offset - told)
                told = offset
        seen(offset - told)


def _decoded(path: Path, number: int, offset: int, raw: bytes) -> str:
    if offset == 0:
        skipped = raw.removeprefix(codecs.BOM_UTF8)
        offset, raw = len(raw) - len(skipped), skipped
    at = raw.find(b"\0")
    if at >= 0:
        raise UserError(
            f"{path}:{number}: a NUL byte at offset {offset + at}; the file is binary or UTF-16: save it as UTF-8 text"
        )
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte, at = raw[error.start], offset + error.start
        raise UserError(
            f"{path}:{number}: invalid UTF-8 (byte 0x{byte:02x} at offset {at}); save it as UTF-8"
        ) from None


# tables


def table(path: Path, kind: str, mended: Counter[str], seen: Seen) -> Iterator[Numbered]:
    """Rows of a CSV or TSV file by the names of its first line."""
    header_line = next(lines_of(path), "")
    delimiter = "\t" if kind == "tsv" else max(",;\t", key=header_line.count)
    plain = delimiter == "\t" and _is_plain(path)
    rows = _plain_rows(lines_of(path, seen)) if plain else _quoted_rows(path, lines_of(path, seen), delimiter)
    header = [name.strip() for name in next(rows)[1]]
    if len(set(header)) < len(header) or not all(header):
        raise UserError(f"{path}:1: the header has an empty or repeated column name; name each column once")
    for number, fields in rows:
        if not any(field.strip() for field in fields):
            continue
        if len(fields) != len(header):
            # Cells that are missing at the end read as empty; the converter then names the row.
            mended["ragged_row"] += 1
        yield number, dict(zip(header, fields, strict=False))


def _is_plain(path: Path) -> bool:
    """Whether every line has as many cells as the first, so that quotes mean nothing.

    Most .tsv files are so, and their lone quotes would swallow lines in a reader of quoted cells.
    """
    tabs = None
    for line in lines_of(path):
        if line.strip():
            tabs = line.count("\t") if tabs is None else tabs
            if line.count("\t") != tabs:
                return False
    return True


def _plain_rows(lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, [_unquote(field) for field in line.rstrip("\r\n").split("\t")]


def _unquote(field: str) -> str:
    inner = field[1:-1]
    whole = len(field) >= 2 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if whole else field


def _quoted_rows(path: Path, lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(LONGEST_LINE)  # the default of 128 KiB refuses long documents
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    start = 1
    try:
        for fields in reader:
            if fields:
                yield start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}:{start}: not a readable table: {error}; mend the quotes of this row"
        ) from None


# text


def text(path: Path, seen: Seen) -> tuple[str, Iterator[Numbered]]:
    """("conll" or "text", documents): sentences of tokens, a Markdown page's sections, paragraphs or lines."""
    head = [line.rstrip("\r\n") for line in islice(lines_of(path), 200)]
    lines = (line.rstrip("\r\n") for line in lines_of(path, seen))
    if documents.is_conll(head):
        return "conll", documents.conll(lines)
    if path.suffix.lower() in (".md", ".mdx"):
        return "text", documents.sections(lines)
    return "text", _paragraphs(lines, by_line=not _has_gaps(path))


def _has_gaps(path: Path) -> bool:
    """Whether there is a blank line, whatever follows the last line end."""
    return any(not line.strip() and line.endswith("\n") for line in lines_of(path))


def _paragraphs(lines: Iterator[str], by_line: bool) -> Iterator[Numbered]:
    """Documents of raw text: paragraphs between blank lines, or lines where there are no blank ones."""
    document: list[str] = []
    start = 1
    for number, line in enumerate(chain(lines, [""]), start=1):
        if line.strip():
            if not document:
                start = number
            document.append(line)
        if document and (by_line or not line.strip()):
            yield start, {"text": "\n".join(document)}
            document = []
