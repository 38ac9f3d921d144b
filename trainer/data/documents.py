"""Files that are no lines of JSON or cells of text → rows: Parquet, XLSX, PDF, Markdown, CoNLL. For read.py."""

from __future__ import annotations

import datetime
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from trainer.config import UserError

Numbered = Iterator[tuple[int, dict[str, Any]]]
Opened = tuple[str, Numbered]  # what the numbers count ("row"), the rows
Seen = Callable[[int], None]  # told the bytes read since it was last told
BATCH = 1000
UNPACKED = 1 << 30  # bytes that an .xlsx may unpack to
SHARED_TEXTS = 1 << 28  # bytes of its table of texts, which openpyxl holds in memory
TAG = re.compile(r"(?:O|[BIESMLU]-\S+)")
SPAN = re.compile(r"T\d+\t(\S+) (\d+)( \d+;\d+)* (\d+)(?:\t|$)")
HEADING = re.compile(r"#{1,6} ")


def parquet(path: Path, seen: Seen) -> Opened:
    """Rows of a Parquet file, in batches. Raises UserError where it is damaged."""
    return "row", enumerate(_parquet(path, seen), start=1)


def _parquet(path: Path, seen: Seen) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    size = path.stat().st_size
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            total = max(1, file.metadata.num_rows)
            for batch in file.iter_batches(BATCH, use_threads=False):
                yield from map(plain, batch.to_pylist())
                seen(size * len(batch) // total)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        told = str(error).splitlines()[0][:200]
        raise UserError(f"{path}: not a readable Parquet file: {told}; write it again") from None


def xlsx(path: Path, seen: Seen) -> Opened:
    """The first sheet that has rows, its first row naming the columns. Values, never formulas."""
    return "row", _sheet_rows(path, seen)


def _sheet_rows(path: Path, seen: Seen) -> Numbered:
    rows = _first_sheet(path, seen)
    header = [str(name or "").strip() for name in next(rows)]
    while header and not header[-1]:
        header.pop()
    if len(set(header)) < len(header) or not all(header):
        raise UserError(
            f"{path}, row 1: the header has an empty or repeated column name; name each column once"
        )
    for number, cells in enumerate(rows, start=2):
        if any(cell not in (None, "") for cell in cells):
            yield number, dict(zip(header, cells, strict=False))


def _first_sheet(path: Path, seen: Seen) -> Iterator[list[Any]]:
    """Rows of the first sheet that has two, read as they are asked for."""
    import openpyxl

    size, told = path.stat().st_size, 0
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {item.filename: item.file_size for item in archive.infolist()}
        whole = sum(sizes.values())
        if whole > UNPACKED or sizes.get("xl/sharedStrings.xml", 0) > SHARED_TEXTS:
            raise UserError(f"{path}: unpacks to {whole >> 20} MB; save the rows as .csv or .jsonl")
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        for sheet in book:
            rows = ([_cell(cell) for cell in row] for row in sheet.iter_rows(values_only=True))
            first = list(islice(rows, 2))
            if len(first) == 2:
                for number, row in enumerate(chain(first, rows), start=1):
                    yield row
                    if sheet.max_row and number % BATCH == 0 and told < size:
                        seen(size * BATCH // sheet.max_row)
                        told += size * BATCH // sheet.max_row
                seen(max(0, size - told))  # all at once where the sheet does not say how long it is
                return
    except UserError:
        raise
    except Exception as error:  # openpyxl raises KeyError, TypeError and others for a damaged book
        told = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{path}: not a readable .xlsx file: {told}; save it again") from None
    raise UserError(f"{path}:1: no sheet holds a header and rows; give it at least one row")


def pdf(path: Path, seen: Seen) -> Opened:
    """One row a page with its text. Raises UserError where no page holds text (a scan)."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path)
        pages = [page.get_textpage().get_text_range() for page in document]
    except pypdfium2.PdfiumError as error:
        raise UserError(f"{path}: not a readable PDF: {error}; print it to a new file") from None
    rows = [(number, {"text": text.replace("\r\n", "\n")}) for number, text in enumerate(pages, start=1)]
    if not any(row["text"].strip() for _, row in rows):
        raise UserError(f"{path}: no page holds text; it is a scan: read it with OCR first")
    return "row", iter(rows)


def brat(path: Path, seen: Seen) -> Opened:
    """One row of brat's standoff format: the .txt beside the .ann, its "T" lines as spans; relations are not read.

    A span in pieces (13 16;17 19) is taken from its first character to its last. Raises UserError.
    """
    try:
        text = path.with_suffix(".txt").read_text(encoding="utf-8-sig")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: its text cannot be read: {error}; put {path.stem}.txt beside it") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}; save it and its text as UTF-8") from None
    spans = []
    for number, line in enumerate(lines, start=1):
        if line.startswith("T"):
            found = SPAN.match(line)
            if not found:
                raise UserError(
                    f"{path}:{number}: expected 'T1<tab>Label 0 5<tab>text', found {line[:60]!r}; mend it"
                )
            label, first, _, last = found.groups()
            spans.append([int(first), int(last), label])
    return "row", iter([(1, {"text": text.rstrip("\n"), "entities": spans})])


READERS: dict[str, Callable[[Path, Seen], Opened]] = {
    ".parquet": parquet,
    ".xlsx": xlsx,
    ".pdf": pdf,
    ".ann": brat,
}


def _cell(value: Any) -> Any:
    """A cell as JSON has it: whole floats as Excel shows them, dates as text."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    return plain(value)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        return str(value)
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def is_conll(lines: list[str]) -> bool:
    """Whether lines hold a token and a tag each: 'Paris B-location'."""
    seen = [line.split() for line in lines[:200] if line.strip() and not line.startswith("-DOCSTART-")]
    tagged = sum(len(cells) >= 2 and bool(TAG.fullmatch(cells[-1])) for cells in seen)
    return (
        len(seen) > 0
        and tagged >= 0.9 * len(seen)
        and any("-" in cells[-1] for cells in seen if len(cells) > 1)
    )


def conll(lines: Iterable[str]) -> Numbered:
    """Sentences between blank lines as {"tokens", "tags"}; the number is the line of the first token."""
    tokens: list[str] = []
    tags: list[str] = []
    start = 1
    for number, line in enumerate(chain(lines, [""]), start=1):
        cells = line.split()
        if not cells or cells[0] == "-DOCSTART-":
            if tokens:
                yield start, {"tokens": tokens, "tags": tags}
            tokens, tags = [], []
            continue
        if not tokens:
            start = number
        tokens.append(cells[0])
        tags.append(cells[-1] if len(cells) > 1 else "")


def sections(lines: Iterable[str]) -> Numbered:
    """A Markdown page cut at its headings, code blocks whole."""
    part: list[str] = []
    start, fenced = 1, False
    for number, line in enumerate(chain(lines, [None]), start=1):
        if line is not None and line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        if line is None or (HEADING.match(line) and not fenced):
            if any(text.strip() for text in part):
                yield start, {"text": "\n".join(part).strip()}
            part, start = [], number
        part.append(line or "")
