"""A file, or a folder of mixed files: each file is read by its own kind. Source name: a path."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from trainer.config import UserError
from trainer.data.licence import licence_of
from trainer.data.read import SUFFIXES, check_path, file_hash
from trainer.data.sources.incoming import Environ, Incoming, Item, Note, Options, Part, note
from trainer.data.steps import numbered

# Files that stand beside data and are none.
ABOUT = ("readme", "license", "licence", "copying", "notice", "source", "changelog", "citation")


class FileOptions(Options):
    """only: files of a folder by a pattern, as *.csv or train/*.jsonl."""

    only: str = ""


def open_path(target: str, options: FileOptions, environ: Environ) -> Incoming:
    """The records of a file or of all data files of a folder. Raises UserError."""
    path = Path(target).expanduser()
    if path.is_dir():
        return _folder(path, options)
    check_path(path)
    incoming = Incoming(str(path), [], content_sha256=file_hash(path))
    incoming.parts = [_part(path, path.name, incoming.counts)]
    incoming.facts |= _licence(path)
    return incoming


def _part(path: Path, name: str, counts: Counter[str]) -> Part:
    def records() -> Iterator[Item]:
        own: Counter[str] = Counter()
        for number, record in numbered(path, own, mend=True):
            yield f"{name}:{number}", record
        # `read` are here the broken lines, each counted by its kind as well
        counts.update({kind: count for kind, count in own.items() if kind != "read"})
        counts["broken"] += own["read"]

    return Part(name, records)


def _folder(folder: Path, options: FileOptions) -> Incoming:
    root = folder.resolve()
    incoming = Incoming(str(folder), [])
    hashes: dict[str, str] = {}
    for path in sorted(folder.rglob(options.only or "*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or any(part.startswith(".") for part in Path(name).parts):
            continue
        why = _left_out(path, name, root)
        if why:
            incoming.notes.append(why)
            continue
        hashes[name] = file_hash(path)
        incoming.parts.append(_part(path, name, incoming.counts))
    if not incoming.parts:
        told = f"; {incoming.notes[0]['en']}" if incoming.notes else ""
        raise UserError(f"{folder}: no data file in it; give files of {', '.join(SUFFIXES)}{told}")
    incoming.facts |= {"files": hashes, **_licence(folder / "file")}
    incoming.content_sha256 = hashlib.sha256(repr(sorted(hashes.items())).encode()).hexdigest()
    return incoming


def _licence(path: Path) -> dict[str, str]:
    """What the card or licence file beside a file says: it does not travel with the rows."""
    said, _ = licence_of(path, [])
    return {"licence": said} if said else {}


def _left_out(path: Path, name: str, root: Path) -> Note | None:
    """Why a file of a folder is not read; None where it is."""
    if not path.resolve().is_relative_to(root):
        return note("link", name=name)
    if path.name.lower().startswith(ABOUT):
        return note("about", name=name)
    if path.suffix.lower() not in SUFFIXES:
        return note("kind", name=name)
    if path.suffix.lower() == ".txt" and path.with_suffix(".ann").is_file():
        return note("pair", name=name)
    try:
        check_path(path)
    except UserError as error:
        return note("failed", error=str(error))
    return None
