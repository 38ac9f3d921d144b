"""Commands about a user's own documents, and the filters of a search; part of the command line in ui/cli.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from kb.errors import UserError

library_app = typer.Typer(help="Your documents in the library: list, remove, look at them again.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Source = Annotated[
    str | None, typer.Option("--source", help='Only from this file or folder of yours, or "kb", the pages.')
]
Since = Annotated[
    datetime | None,
    typer.Option("--since", formats=["%Y-%m-%d"], metavar="YYYY-MM-DD", help="Only what was changed since."),
]


def filtered(index: Any, request: dict[str, Any], source: str | None, since: datetime | None) -> Any:
    """The index through the filters of a line of --batch, or else of the command. Raises UserError."""
    source, day = request.get("source", source), request.get("since")
    if not isinstance(source, str | None):
        raise UserError(f'"source" = {source!r}; give "kb", a file or a folder')
    if source is not None and source != "kb":
        source = os.path.abspath(os.path.expanduser(source))
    if source is not None and not index.manifest.holds(source):
        raise UserError(f"{source}: not in the library; `tunesmith library` lists what is")
    try:
        first = date.fromisoformat(day) if day is not None else since and since.date()
    except (TypeError, ValueError):
        raise UserError(f'"since" = {day!r}; give a day as 2026-01-31') from None
    return index.within(source, first)


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders: .md .txt .pdf .docx .html")],
    as_json: Json = False,
) -> None:
    """Add your own documents to the library; unchanged files are skipped."""
    from ingest.sync import add_paths

    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; give the path of a document")
    _carry_out(add_paths, as_json, paths)


@library_app.callback(invoke_without_command=True)
def library(
    context: typer.Context,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", help="The same as `library remove`.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Your documents in the library: list (also without a command), remove, look at them again."""
    if context.invoked_subcommand is None:
        if remove:
            remove_documents(remove, as_json)
        else:
            list_documents(as_json)


@library_app.command("list")
def list_documents(as_json: Json = False) -> None:
    """What is in the library, with the days on which it was changed and added."""
    from ingest.readers import ASKED
    from ui.cli import emit, open_index

    documents = [row for row in open_index(quiet=as_json).documents() if not row.id.startswith(ASKED)]
    if as_json:
        emit({"documents": [vars(document) for document in documents]})
    else:
        from ui.terminal import print_documents

        print_documents(documents)


@library_app.command("remove")
def remove_documents(
    sources: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files or folders in the library.")],
    as_json: Json = False,
) -> None:
    """Take documents out of the library; the files themselves stay as they are."""
    from ingest.sync import remove

    _carry_out(remove, as_json, sources)


@library_app.command("sync")
def sync_documents(as_json: Json = False) -> None:
    """Look again at every file and folder that you added: take in what changed or is new, drop what is gone."""
    from ingest.sync import sync_places

    _carry_out(sync_places, as_json)


def _carry_out(work: Callable[..., Any], as_json: bool, *arguments: Any) -> None:
    """Do one thing to the index and tell what came of it."""
    from ui.cli import emit, open_index, progress
    from ui.home import home

    open_index(quiet=as_json).close()
    with progress(not as_json and sys.stderr.isatty()) as bar:
        report = work(home().index, *arguments, progress=bar, **home().stores())
    if as_json:
        skipped = [{"path": path, "reason": reason} for path, reason in report.skipped]
        emit({**vars(report), "skipped": skipped, "seconds": round(report.seconds, 3)})
        return
    for path, why in report.skipped:
        typer.echo(f"skipped {path}: {why}", err=True)
    typer.echo(
        f"{report.added} added, {report.changed} changed, {report.removed} removed, {report.unchanged} unchanged, "
        f"{len(report.skipped)} skipped; {report.chunks} passages in {report.seconds:.1f} s"
    )
