"""Bring the index into line with the knowledge base and a user's files, by content hash. Last step of ingestion.

What did not change costs a hash. A file that cannot be read is named and skipped, the rest goes in.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ingest.chunker import Chunk, split
from ingest.embedder import Embedder
from ingest.index import Index, Progress
from ingest.readers import SUFFIXES, Document, ReadError, kb_documents, read_bytes, read_file
from ingest.server import Server
from kb.facts import FACTS_DIR

BATCH = 250  # chunks in one commit; a kill costs the vectors of so many, a commit about .1 s
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
    index_dir: Path,
    progress: Progress | None = None,
    embedder: Embedder | None = None,
    server: Server | None = None,
) -> SyncReport:
    """Put the knowledge base into the index. Costs milliseconds when its files are as they were.

    An index made by another version or embedder is built anew, by this and every other function here, the
    user's files included; the knowledge base then comes back at the next call.
    Raises kb.pages.PageError for a broken page.
    """
    fingerprint = _fingerprint()
    with closing(Index(index_dir, embedder, server)) as index:
        known = index.manifest.meta("kb") == fingerprint
        if known and not (index.outdated or index.unsettled or index.manifest.unread()):
            return SyncReport(unchanged=len(index.manifest.document_ids("kb")))
        report = _sync(index, lambda report: _kb_work(index), progress)
        index.manifest.set_meta("kb", fingerprint)
        return report


def add_paths(
    index_dir: Path,
    paths: Iterable[Path],
    progress: Progress | None = None,
    embedder: Embedder | None = None,
    server: Server | None = None,
) -> SyncReport:
    """Add or renew files and folders (with what lies below); files that left a given folder leave the index too.

    A file that was read before and cannot be read now keeps its earlier text. Raises ReadError for a path
    that does not exist.
    """
    places = [Path(os.path.abspath(path)) for path in paths]
    for place in places:
        if not place.exists():
            raise ReadError(f"{place}: no such file or folder; check the path")
    with closing(Index(index_dir, embedder, server)) as index:

        def work(report: SyncReport) -> _Work:
            for place in places:
                index.manifest.set_place(str(place), True)
            return _files_work(index, places, report)

        return _sync(index, work, progress)


def sync_places(
    index_dir: Path,
    progress: Progress | None = None,
    embedder: Embedder | None = None,
    server: Server | None = None,
) -> SyncReport:
    """Look again at every file and folder that was added: what changed, came or went there, does so here.

    A folder that is not there, or has become empty, may be a disk that is not attached: its documents stay
    and it is named. What was removed from the library in a folder that is still wanted stays out.
    """
    with closing(Index(index_dir, embedder, server)) as index:

        def work(report: SyncReport) -> _Work:
            index.check(progress)
            wanted = [Path(path) for path, wanted in index.manifest.places().items() if wanted]
            return _files_work(index, [p for p in wanted if not _is_away(index, p, report)], report)

        return _sync(index, work, progress)


def remove(
    index_dir: Path,
    sources: Iterable[str],
    progress: Progress | None = None,
    embedder: Embedder | None = None,
    server: Server | None = None,
) -> SyncReport:
    """Take files and folders out of the index. Raises ReadError for a source that is not in it."""
    wanted = [os.path.abspath(source) for source in sources]
    with closing(Index(index_dir, embedder, server)) as index:

        def work(report: SyncReport) -> _Work:
            found = {source: index.manifest.document_ids(source) for source in wanted}
            for source, ids in found.items():
                if not ids and not index.manifest.places().get(source):
                    raise ReadError(f"{source}: not in the library; `tunesmith library` lists what is")
            for source in wanted:
                index.manifest.set_place(source, False)
            return _Work(gone=sorted({i for ids in found.values() for i in ids}))

        return _sync(index, work, progress)


def _sync(index: Index, plan: Callable[[SyncReport], _Work], progress: Progress | None) -> SyncReport:
    start, report = time.perf_counter(), SyncReport()
    tell = progress or (lambda done, total, what: None)
    with _writing(index, tell):
        index.settle(tell)
        if index.outdated:
            index.start_over()
        _read_again(index, report, tell)
        _carry_out(index, plan(report), report, tell)
    report.seconds = time.perf_counter() - start
    return report


def _read_again(index: Index, report: SyncReport, tell: Progress) -> None:
    """The files of an index that was started over. What cannot be read any more has no text to keep."""
    unread = index.manifest.unread()
    if not unread:
        return
    if not index.manifest.places():  # of a version that did not note them
        for source in unread:
            index.manifest.set_place(source, True)
    _carry_out(index, _files_work(index, [Path(source) for source in unread], report), report, tell)
    _carry_out(index, _Work(gone=[f"file:{source}" for source in index.manifest.unread()]), report, tell)


@contextmanager
def _writing(index: Index, tell: Progress) -> Iterator[None]:
    with ExitStack() as stack:
        if not stack.enter_context(index.writing(wait=False)):
            tell(0, 0, "waiting for another process that writes")
            stack.enter_context(index.writing())
        yield


def _carry_out(index: Index, work: _Work, report: SyncReport, tell: Progress) -> None:
    report.removed += len(work.gone)
    batch: list[tuple[Document, list[Chunk]]] = []
    gone, waiting = work.gone, 0
    for number, (document_id, sha256, read) in enumerate(work.candidates):
        tell(number, len(work.candidates), document_id.partition(":")[2])
        try:
            known = index.manifest.sha256(document_id)
            if known == sha256():
                report.unchanged += 1
                continue
            document = read()
        except ReadError as error:
            report.skipped.append((document_id.removeprefix("file:"), str(error)))
            continue
        if known:
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
    gone = [i for i in index.manifest.document_ids("kb") if i not in ids]
    return _Work([(d.id, lambda d=d: d.sha256, lambda d=d: d) for d in documents], gone)


def _files_work(index: Index, places: list[Path], report: SyncReport) -> _Work:
    files: dict[Path, None] = {}
    before: set[str] = set()
    closed: list[str] = []  # folders that may not be looked into: what was read there stays
    unwanted = {Path(path) for path, wanted in index.manifest.places().items() if not wanted}
    for place in places:
        files.update(
            dict.fromkeys(_files_below(place, unwanted, closed, report) if place.is_dir() else [place])
        )
        before.update(index.manifest.document_ids(str(place)))
    here = {f"file:{file}": file for file in files if file.exists()}
    kept = {i for folder in closed for i in index.manifest.document_ids(folder)}
    candidates = [
        (i, lambda f=f: hashlib.sha256(read_bytes(f)).hexdigest(), lambda f=f: read_file(f))
        for i, f in here.items()
    ]
    return _Work(candidates, sorted(before - here.keys() - kept))


def _is_away(index: Index, place: Path, report: SyncReport) -> bool:
    """Whether a wanted folder, or the folder of a wanted file, is not there to be looked at."""
    is_folder = any(i != f"file:{place}" for i in index.manifest.document_ids(str(place)))
    folder = place if is_folder else place.parent
    away = not folder.is_dir() or (is_folder and os.access(folder, os.R_OK) and not any(folder.iterdir()))
    if away:
        report.skipped.append(
            (str(place), f"{place}: not there now; `tunesmith library remove {place}` takes it out")
        )
    return away


def _files_below(folder: Path, unwanted: set[Path], closed: list[str], report: SyncReport) -> list[Path]:
    """Files of SUFFIXES below a folder, in order; hidden ones are left alone, others are named as skipped."""
    files: list[Path] = []

    def stop(error: OSError) -> None:
        closed.append(error.filename)
        report.skipped.append((error.filename, f"{error.filename}: cannot be opened ({error.strerror})"))

    for where, folders, names in os.walk(folder, onerror=stop):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and Path(where, n) not in unwanted)
        for name in sorted(names):
            path = Path(where, name)
            if path in unwanted:
                continue
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
