"""`tunesmith data import`: rows of a file, folder, Hub data set, query, endpoint or page list into a project's data."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from kb.errors import UserError
from ui.cli_made import data_app
from ui.cli_runs import Json, emit
from ui.i18n import screen_lang, translator

EXAMPLES = (
    "FILE, FOLDER, hf:owner/name[:config][@revision][#split], 'sql:SELECT …', rest:https://…, web:https://…"
)


@contextmanager
def rows_bar(what: str, quiet: bool) -> Iterator[Callable[[int, int | None], None]]:
    """A bar of the rows read, on stderr; without an end where their number is not known."""
    if quiet or not sys.stderr.isatty():
        yield lambda read, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what[:40], total=None)
        yield lambda read, total: bar.update(task, completed=read, total=total)


@data_app.command("import")
def data_import(
    source: Annotated[str, typer.Argument(help=f"{EXAMPLES}; or a data_source.yaml, to do its imports again.")],
    out: Annotated[Path | None, typer.Argument(help="File to write, JSON lines; of web: also a folder, for `ingest`.")] = None,
    task: Annotated[str, typer.Option(help="Write into the data folder of this task.")] = "",
    mapping: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="ROLE=COLUMN", help="What a column is: --map instruction=Frage --map output=Antwort."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="An option of the source: --set paging=cursor; a wrong one lists all."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows at most.")] = None,
    look: Annotated[bool, typer.Option("--look", help="Show the proposed columns and the first row; write nothing.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Bring rows in: name their columns, write JSON lines, record where they came from in data_source.yaml."""
    from trainer.data import imports

    lang = screen_lang()
    given, options = _pairs(mapping, "--map"), _pairs(settings, "--set")
    if Path(source).suffix in (".yaml", ".yml"):
        with rows_bar(source, as_json) as seen:
            reports = imports.repeat(Path(source), os.environ, seen)
        _tell(reports, as_json, lang)
        return
    if look:
        _show(imports.look(source, options, given, os.environ), as_json, lang)
        return
    if out and source.startswith("web:") and not out.suffix:
        _save(source, out, options, limit, as_json, lang)
        return
    target = _target(out, task, source)
    with rows_bar(source, as_json) as seen:
        report = imports.bring_in(source, target, options, given, os.environ, limit, seen)
    _tell([report], as_json, lang)


def _save(
    source: str, folder: Path, options: dict[str, str], limit: int | None, as_json: bool, lang: str
) -> None:
    """Pages as Markdown files, to be asked about."""
    from trainer.data.sources.saved import save_pages

    with rows_bar(source, as_json) as seen:
        files, notes = save_pages(source, folder, options, os.environ, limit, seen)
    if as_json:
        emit({"files": [str(file) for file in files], "notes": notes})
        return
    for line in notes:
        typer.echo(line[lang], err=True)
    typer.echo(translator(lang)("import.saved", n=len(files), folder=folder))


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    pairs = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise UserError(f"{option} {text!r}: give NAME=VALUE")
        pairs[name.strip()] = value
    return pairs


def _target(out: Path | None, task: str, source: str) -> Path:
    """The file to write: the one given, or one named after the source in the task's data folder."""
    from trainer.data.imports import file_name
    from ui.home import home

    if bool(out) == bool(task):
        raise UserError("give the file to write, as rows.jsonl, or a task, as --task reviews; not both")
    if out:
        return out
    folder = home().tasks / task
    if not (folder / "task_definition.yaml").is_file():
        raise UserError(f"--task {task[:64]!r}: no such task; make it: tunesmith new {task[:64]}")
    return folder / "data" / file_name(source)


def _show(found: Any, as_json: bool, lang: str) -> None:
    """The proposal of each part, with the command line that says the same."""
    if as_json:
        parts = [
            {
                "name": name, "format": mapping.detected.format, "columns": [asdict(match) for match in mapping.matches],
                "unused": mapping.unused, "guessed": mapping.guessed, "first": first,
            }
            for name, mapping, first in found.parts
        ]  # fmt: skip
        emit({"source": found.name, "parts": parts, "notes": found.notes})
        return
    t = translator(lang)
    typer.echo(found.name)
    for name, mapping, first in found.parts:
        typer.echo(f"{name}: {mapping.detected.format}")
        for match in mapping.matches:
            typer.echo(
                f"  {match.role:<14} ← {match.column}  {match.confidence:.2f} {t('import.' + match.why)}"
            )
        if mapping.unused:
            typer.echo(f"  {t('import.unused')}: {', '.join(mapping.unused)}")
        emit(first)
    for line in found.notes:
        typer.echo(line[lang], err=True)


def _tell(reports: list[Any], as_json: bool, lang: str) -> None:
    from ui.render_import import report_lines

    if as_json:
        emit(
            [{**asdict(r.made), "notes": r.notes, "places": r.places, "changed": r.changed} for r in reports]
        )
        return
    for report in reports:
        typer.echo("\n".join(report_lines(report, lang)))
