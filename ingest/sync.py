"""Bring the index into line with the knowledge base and a user's files, by content hash. Last step of ingestion.

What did not change costs a hash. A file that cannot be read is named and skipped, the rest goes in.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ingest.chunker import Chunk, split
from ingest.embedder import Embedder
from ingest.index import Index
from ingest.readers import SUFFIXES, Document, ReadError, kb_documents, read_bytes, read_file
from kb.facts import FACTS_DIR

Progress = Callable[[int, int, str], None]
BATCH = 1000  # chunks in one commit; more cost memory, fewer cost a commit (about .1 s) each
PAGES_DIR = FACTS_DIR.parent / "pages"


@dataclass
class SyncReport:
    """Documents by what happened to them; `chunks` were written; `skipped` are (path, reason)."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    chunks: int = 0
    seconds: float = 0.0


@dataclass
class _Work:
    """What a sync has to look at: (document id, its sha256, its text), both on demand; and documents to take out."""

    candidates: list[tuple[str, Callable[[], str], Callable[[], Document]]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)


def build_kb(
    index_dir: Path, progress: Progress | None = None, embedder: Embedder | None = None
) -> SyncReport:
    """Put the knowledge base into the index. Costs milliseconds when its files are as they were.

    An index made by another version or embedder is built anew, by this and every other function here, the
    user's files included; the knowledge base then comes back at the next call.
    Raises kb.pages.PageError for a broken page.
    """
    fingerprint = _fingerprint()
    with closing(Index.open(Path(index_dir), embedder)) as index:
        if index.manifest.meta("kb") == fingerprint and not index.outdated:
            return SyncReport(unchanged=sum(row.source == "kb" for row in index.documents()))
        report = _sync(index, lambda report: _kb_work(index), progress)
        index.manifest.set_meta("kb", fingerprint)
        return report


def add_paths(
    index_dir: Path, paths: Iterable[Path], progress: Progress | None = None, embedder: Embedder | None = None
) -> SyncReport:
    """Add or renew files and folders (with what lies below); files that left a given folder leave the index too.

    A file that was read before and cannot be read now keeps its earlier text. Raises ReadError for a path
    that does not exist.
    """
    places = [Path(os.path.abspath(path)) for path in paths]
    for place in places:
        if not place.exists():
            raise ReadError(f"{place}: no such file or folder; check the path")
    with closing(Index.open(Path(index_dir), embedder)) as index:
        return _sync(index, lambda report: _files_work(index, places, report), progress)


def remove(index_dir: Path, sources: Iterable[str], progress: Progress | None = None) -> SyncReport:
    """Take files and folders out of the index. Raises ReadError for a source that is not in it."""
    wanted = [os.path.abspath(source) for source in sources]
    with closing(Index.open(Path(index_dir))) as index:

        def work(report: SyncReport) -> _Work:
            found = {source: index.manifest.document_ids(source) for source in wanted}
            for source, ids in found.items():
                if not ids:
                    raise ReadError(f"{source}: not in the library; `tunesmith library` lists what is")
            return _Work(gone=sorted({i for ids in found.values() for i in ids}))

        return _sync(index, work, progress)


def _sync(index: Index, plan: Callable[[SyncReport], _Work], progress: Progress | None) -> SyncReport:
    start, report = time.perf_counter(), SyncReport()
    tell = progress or (lambda done, total, what: None)
    with index.writing():
        index.settle()
        if index.outdated:
            index.start_over()
            files = [Path(row.source) for row in index.documents() if row.source != "kb"]
            _carry_out(index, _files_work(index, files, report), report, tell)
        _carry_out(index, plan(report), report, tell)
    report.seconds = time.perf_counter() - start
    return report


def _carry_out(index: Index, work: _Work, report: SyncReport, tell: Progress) -> None:
    known = index.manifest.hashes()
    report.removed += len(work.gone)
    batch: list[tuple[Document, list[Chunk]]] = []
    gone, waiting = work.gone, 0
    for number, (document_id, sha256, read) in enumerate(work.candidates):
        tell(number, len(work.candidates), document_id.partition(":")[2])
        try:
            if known.get(document_id) == sha256():
                report.unchanged += 1
                continue
            document = read()
        except ReadError as error:
            report.skipped.append((document_id.removeprefix("file:"), str(error)))
            continue
        if known.get(document_id):
            report.changed += 1
        else:
            report.added += 1
        batch.append((document, split(document)))
        waiting += len(batch[-1][1])
        if waiting >= BATCH:
            index.put(batch, gone)
            report.chunks += waiting
            batch, gone, waiting = [], [], 0
    if batch or gone:
        index.put(batch, gone)
        report.chunks += waiting
    tell(len(work.candidates), len(work.candidates), "")


def _kb_work(index: Index) -> _Work:
    documents = kb_documents()
    ids = {document.id for document in documents}
    known = [row.id for row in index.documents() if row.source == "kb"]
    return _Work(
        [(d.id, lambda d=d: d.sha256, lambda d=d: d) for d in documents], [i for i in known if i not in ids]
    )


def _files_work(index: Index, places: list[Path], report: SyncReport) -> _Work:
    files: dict[Path, None] = {}
    gone: set[str] = set()
    for place in places:
        found = _files_below(place, report) if place.is_dir() else [place]
        files.update(dict.fromkeys(found))
        here = {f"file:{file}" for file in found if file.exists()}
        gone.update(i for i in index.manifest.document_ids(str(place)) if i not in here)
    candidates = [
        (f"file:{f}", lambda f=f: hashlib.sha256(read_bytes(f)).hexdigest(), lambda f=f: read_file(f))
        for f in files
        if f"file:{f}" not in gone
    ]
    return _Work(candidates, sorted(gone))


def _files_below(folder: Path, report: SyncReport) -> list[Path]:
    """Files of SUFFIXES below a folder, in order; hidden ones are left alone, others are named as skipped."""
    files: list[Path] = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(where, name)
            if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                files.append(path)
            elif not name.startswith("."):
                report.skipped.append((str(path), f"{path}: {path.suffix or 'no'} suffix is not supported"))
    return files


def _fingerprint() -> str:
    """sha256 over the files that the knowledge base's chunks are made of."""
    digest = hashlib.sha256()
    for path in [*sorted(PAGES_DIR.rglob("*.md")), FACTS_DIR / "sources.yaml"]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
