"""Files and knowledge-base pages → Document. First step of ingestion; ingest/chunker.py cuts what comes out.

.md and .txt are read here, .pdf, .docx and .html become markdown through markitdown.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from ingest.text import detect_lang
from kb.errors import UserError

if TYPE_CHECKING:
    from kb.pages import Page

TEXT_SUFFIXES = {".md", ".txt", ".markdown"}
CONVERTED_SUFFIXES = {".pdf", ".docx", ".html", ".htm"}
SUFFIXES = TEXT_SUFFIXES | CONVERTED_SUFFIXES
MAX_BYTES = 64 * 2**20  # a larger file is a data set or an archive, not a document to read

TERMS = re.compile(r"\n## [^\n]*\{#terms-[a-z]+\}\n.*", re.DOTALL)
ASKED = (
    "asked:"  # opens the id of a document that holds questions; search gives the section that answers them
)
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_TITLE = re.compile(r"^#[ \t]+(.+?)[ \t]*(?:\{#[\w-]+\})?[ \t]*$", re.MULTILINE)


class ReadError(UserError):
    """A file that cannot be read, in one line: which, why, what to do."""


@dataclass(frozen=True)
class Document:
    """One text to be indexed. `text` is markdown; `source` is "kb" or the file's path; `sources` are {key, name, url, date}.

    `modified` is the day of the file's last change, or that on which a page was last gone over; ISO.
    """

    id: str
    title: str
    lang: str
    text: str
    source: str
    page: str
    sha256: str
    sources: list[dict[str, str]] = field(default_factory=list)
    modified: str = ""


def read_file(path: Path) -> Document:
    """Read one file of SUFFIXES as markdown. Raises ReadError in one line for everything that can be wrong with it."""
    path = Path(os.path.abspath(path))
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ReadError(
            f"{path}: {suffix or 'no'} suffix is not supported; convert it to one of {', '.join(sorted(SUFFIXES))}"
        )
    data = read_bytes(path)
    text = decode(path, data) if suffix in TEXT_SUFFIXES else convert(path, data)
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")
    if not text.strip():
        raise ReadError(f"{path}: no text in it; a scanned file needs text recognition (OCR) first")
    front = _FRONT_MATTER.match(text) if suffix != ".txt" else None
    body = text[front.end() :] if front else text
    return Document(
        id=f"file:{path}",
        title=_title(body, front.group() if front else "") or path.stem,
        lang=detect_lang(body),
        text=body,
        source=str(path),
        page=str(path),
        sha256=hashlib.sha256(data).hexdigest(),
        modified=_changed(path),
    )


def _changed(path: Path) -> str:
    try:
        return date.fromtimestamp(path.stat().st_mtime).isoformat()
    except (OverflowError, ValueError, OSError):  # just gone, or a year that is none; some archives hold such
        return ""


def read_bytes(path: Path) -> bytes:
    """Content of a file. Raises ReadError."""
    try:
        if not path.is_file():
            raise ReadError(f"{path}: no such file; check the path")
        if path.stat().st_size > MAX_BYTES:
            raise ReadError(f"{path}: larger than {MAX_BYTES >> 20} MiB; split it")
        return path.read_bytes()
    except OSError as error:
        raise ReadError(f"{path}: cannot be opened ({error.strerror}); check its permissions") from None


def decode(path: Path, data: bytes) -> str:
    """UTF-8 text, with or without a byte order mark. Raises ReadError with the offset of the first bad byte."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ReadError(
            f"{path}: not UTF-8 at byte {error.start} (0x{data[error.start]:02x}); save it as UTF-8"
        ) from None


def convert(path: Path, data: bytes) -> str:
    """A .pdf, .docx or .html file as markdown, by markitdown. Raises ReadError."""
    import logging

    from markitdown import StreamInfo, converters

    logging.getLogger("pdfminer").setLevel(logging.ERROR)
    suffix = path.suffix.lower()
    # The converter of the suffix itself: MarkItDown.convert would take a torn .docx for plain text.
    kinds = {".pdf": converters.PdfConverter, ".docx": converters.DocxConverter}
    converter = kinds.get(suffix, converters.HtmlConverter)()
    try:
        return converter.convert(io.BytesIO(data), StreamInfo(extension=suffix)).markdown
    except (
        Exception
    ) as error:  # parsers of broken files raise anything; the file is skipped, named with the cause
        first = (str(error).strip().splitlines() or [""])[0][:160]
        raise ReadError(f"{path}: not a readable {suffix} file ({type(error).__name__}: {first})") from None


def _title(body: str, front: str) -> str:
    stated = re.search(r"^title:[ \t]*[\"']?(.+?)[\"']?[ \t]*$", front, re.MULTILINE)
    heading = _TITLE.search(body)
    return (stated or heading).group(1).strip() if stated or heading else ""


def kb_documents() -> list[Document]:
    """All pages of the knowledge base, and for each what people ask of it, as a document of its own (ASKED).

    Raises kb.pages.PageError for a broken page.
    """
    from kb.pages import SOURCES_HEADING, pages

    documents = []
    for page in pages():
        # The list of sources at the end is for the reader of the page; each chunk carries its own.
        body = page.body.rpartition(f"\n## {SOURCES_HEADING[page.lang]} {{#sources}}\n")[0] or page.body
        body = TERMS.sub("", body)  # a list of words answers nothing and holds every question's words
        sources = [
            {"key": s.key, "name": s.name, "url": s.url, "date": s.date.isoformat()} for s in page.sources
        ]
        updated = page.updated.isoformat()
        sha256 = hashlib.sha256(f"{page.title}\n{body}\n{sources}\n{updated}".encode()).hexdigest()
        documents.append(
            Document(
                f"kb:{page.id}:{page.lang}",
                page.title,
                page.lang,
                body,
                "kb",
                page.id,
                sha256,
                sources,
                updated,
            )
        )
        if questions := _asked(page):
            sha256 = hashlib.sha256(f"{page.title}\n{questions}".encode()).hexdigest()
            id = f"{ASKED}{page.id}:{page.lang}"
            documents.append(
                Document(id, page.title, page.lang, questions, "kb", page.id, sha256, [], updated)
            )
    return documents


def _asked(page: Page) -> str:
    """The questions that a page answers, under the headings of its sections."""
    from kb.pages import asked

    lines = asked(page)
    headings = {section.anchor: section.heading for section in page.sections()}
    parts = ["\n".join(lines.pop("top", []))]
    parts += [f"## {headings[anchor]} {{#{anchor}}}\n\n" + "\n".join(each) for anchor, each in lines.items()]
    return "\n\n".join(part for part in parts if part)
