"""What the command line prints of a run that trains, of a repeated one and of a sweep; part of terminal.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ui import render_sweep
from ui.i18n import duration, translator
from ui.render import value_text
from ui.render_runs import MORE, figure

console = Console(highlight=False)


def print_live(folder: Any, lang: str) -> None:
    """The newest figures of the curve, and what it shows with the page to read."""
    from trainer import watch
    from trainer.memory import ADJUSTED

    status, t = folder.status(), translator(lang)
    parts = []
    if status["state"] == "running" and status.get("eta_seconds"):
        parts.append(t("runs.eta", n=duration(status["eta_seconds"], t)))
    if status.get("peak_gb"):
        parts.append(t("runs.peak", n=status["peak_gb"]))
    newest: dict[str, float] = {}
    for row in folder.metrics():
        newest |= {name: row[name] for name in ("loss", "eval_loss", *MORE) if row.get(name) is not None}
    parts += [f"{t('runs.' + name)} {figure(name, value)}" for name, value in newest.items()]
    if parts:
        console.print(" · ".join(parts))
    for change in folder.lineage().get(ADJUSTED) or []:
        console.print(f"[yellow]{escape(t('runs.adjusted', **change))}[/]")
    for flag in watch.flags(folder):
        told = f"[yellow]{escape(flag.name[lang])}[/]: {escape(flag.text[lang])} {escape(flag.remedy[lang])}"
        console.print(f"{told} [dim]{flag.page}[/]")


def print_repeat(found: dict[str, Any], lang: str) -> None:
    console.print(escape(render_sweep.repeat_text(found, translator(lang))))


def print_sweep(sweep: Any, rows: Sequence[dict[str, Any]], lang: str) -> None:
    """A row a run, the best of them and what may be chance."""
    t = translator(lang)
    names = render_sweep.score_names(rows)
    grid = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("run", "", *sweep.fields, *(t("sweep." + name) for name in names)):
        grid.add_column(column, overflow="fold")
    for row in rows:
        scores = [render_sweep.number(row["scores"].get(name)) for name in names]
        values = [value_text(row["values"][name]) for name in sweep.fields]
        grid.add_row(row["run"], t("state." + row["state"]), *values, *scores)
    console.print(f"[bold]{t('sweep.title', id=sweep.id)}[/]")
    console.print(grid)
    for line in render_sweep.verdict(rows, t):
        console.print(escape(line))
