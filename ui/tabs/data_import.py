"""The Data tab's part that brings rows in: a source looked at, its columns named by dropdowns, imported, then checked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from kb.errors import UserError
from ui import render
from ui.context import Context
from ui.i18n import Translate
from ui.render_import import column_label, proposal, report_html
from ui.streams import Stop

COLUMNS = 12  # dropdowns; a source of more columns is mapped on the command line
COMMAND_LINE = {"private"}  # options that a visitor of the page may not set


def build(context: Context, lang: str, t: Translate, stop: gr.Button) -> SimpleNamespace:
    from trainer.data.mapping import ROLES

    part = SimpleNamespace()
    part.stop = stop  # the one of the tab
    part.columns, part.made = gr.State([]), gr.State("")
    with gr.Accordion(t("import.title"), open=False, elem_id="import"):
        part.source = gr.Textbox(
            label=t("import.source"), placeholder=t("import.example"), elem_id="import-source"
        )
        part.settings = gr.Textbox(label=t("import.settings"), lines=2)
        with gr.Row():
            part.limit = gr.Number(label=t("import.limit"), precision=0, minimum=0, value=0, min_width=120)
            part.task = gr.Dropdown(
                choices=tasks_of(context, t), value="", label=t("import.task"), min_width=160, elem_id="import-task"
            )  # fmt: skip
        part.look = gr.Button(t("import.look"), elem_id="import-look")
        part.shown = gr.HTML()
        choices = [(t("import.unused"), ""), *((role, role) for role in ROLES)]
        part.roles = [
            gr.Dropdown(choices=choices, value="", visible=False, elem_id=f"import-column-{at}")
            for at in range(COLUMNS)
        ]
        part.go = gr.Button(t("import.go"), variant="primary", elem_id="import-go")
        part.told = gr.HTML(elem_id="import-told")
    return part


def connect(context: Context, lang: str, t: Translate, part: Any) -> Any:
    """Wire the part; returns the event after which part.made holds the path of a new file, or "" ."""

    def look(source: str, settings: str):
        try:
            columns, shown, roles = looked(source, settings, lang, t)
        except UserError as fault:
            return [[], render.error(str(fault), lang), "", *[gr.Dropdown(visible=False)] * COLUMNS]
        return [columns, shown, "", *roles]

    event = dict(concurrency_limit=1)
    part.look.click(
        look, [part.source, part.settings], [part.columns, part.shown, part.told, *part.roles], **event
    )
    part.source.submit(
        look, [part.source, part.settings], [part.columns, part.shown, part.told, *part.roles], **event
    )

    # Gradio puts the bar in by its place: after *roles it would not be found.
    def go(source, settings, limit, task, columns, request: gr.Request, progress=gr.Progress(), *roles):
        def seen(read: int, total: int | None) -> None:
            still_wanted(stop, t)
            progress((read, total), unit="rows")

        try:
            with context.streams.begin(work_of(request)) as stop:
                report = imported(
                    context, source, settings, limit, task, dict(zip(columns, roles, strict=False)), seen
                )
        except UserError as fault:
            return render.error(str(fault), lang), ""
        return report_html(report, lang), str(report.folder / next(iter(report.made.outputs)))

    part.go.click(lambda: gr.Button(visible=True), None, part.stop, show_progress="hidden")
    done = part.go.click(
        go,
        [part.source, part.settings, part.limit, part.task, part.columns, *part.roles],
        [part.told, part.made],
        **event,
    )
    done.then(lambda: gr.Button(visible=False), None, part.stop, show_progress="hidden")
    return done


def work_of(request: gr.Request) -> str:
    """What is under way in this tab, of one page."""
    return f"data {request.session_hash}"


def still_wanted(stop: Stop, t: Translate) -> None:
    """Raises UserError once the person has pressed the button: what was begun leaves nothing."""
    if stop.wanted.is_set():
        raise UserError(t("data.stopped"))


def tasks_of(context: Context, t: Translate) -> list[tuple[str, str]]:
    """The tasks whose data folder may take the rows; first the uploads."""
    found = sorted(path.parent.name for path in context.home.tasks.glob("*/task_definition.yaml"))
    return [(t("import.uploads"), ""), *((name, name) for name in found)]


def looked(source: str, settings: str, lang: str, t: Translate) -> tuple[list[str], str, list[Any]]:
    """(columns, the proposal as HTML, a dropdown for each column set to what is proposed)."""
    from trainer.data.imports import look

    found = look(named(source), options_of(settings), {}, os.environ)
    mapping = found.parts[0][1]
    # Files of several formats have columns of their own each; those are named file by file.
    columns = found.columns[:COLUMNS] if len(found.parts) == 1 else []
    proposed = {match.column: match for match in mapping.matches}
    roles = [gr.Dropdown(visible=False, value="")] * COLUMNS
    for at, column in enumerate(columns):
        match = proposed.get(column)
        label = column_label(column, match.confidence if match else None, t)
        roles[at] = gr.Dropdown(visible=True, label=label, value=match.role if match else "")
    return columns, proposal(found, lang), roles


def imported(
    context: Context, source: str, settings: str, limit: float | None, task: str, roles: dict[str, str],
    seen: Callable[[int, int | None], None],
) -> Any:  # fmt: skip
    """Import into the task's data folder, or beside the uploads; `roles` are column → role as chosen."""
    from trainer.data.imports import bring_in, file_name

    given: dict[str, str] = {}
    for column, role in roles.items():
        if role in given:
            raise UserError(f"two columns are {role}: {given[role]!r} and {column!r}; choose one")
        if role:
            given[role] = column
    name = named(source)
    folder = context.home.tasks / task / "data" if task else context.home.uploads / "imported"
    if task and not (context.home.tasks / task / "task_definition.yaml").is_file():
        raise UserError(f"no task {task[:64]!r}; choose one of the list")
    return bring_in(
        name, folder / file_name(name), options_of(settings), given, os.environ, int(limit) if limit else None, seen
    )  # fmt: skip


def named(source: str) -> str:
    """The source as given; an empty one is told."""
    if not source.strip():
        raise UserError("no source; give a file, a folder, hf:, sql:, rest: or web:")
    return str(Path(source.strip()).expanduser()) if ":" not in source else source.strip()


def options_of(settings: str) -> dict[str, str]:
    """NAME=VALUE a line."""
    options = {}
    for line in settings.splitlines():
        if line.strip():
            name, equals, value = line.partition("=")
            if not equals or not name.strip():
                raise UserError(f"{line[:60]!r}: give NAME=VALUE")
            if name.strip() in COMMAND_LINE:
                raise UserError(
                    f"{name.strip()} can be set on the command line alone: tunesmith data import … --set"
                )
            options[name.strip()] = value.strip()
    return options
