"""What the command line prints of exported models: the parity report, costs, a push, blind votes, Ollama's models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape

from ui import render_verify
from ui.i18n import translator
from ui.terminal import console, table


def print_parity(parity: dict[str, Any], lang: str) -> None:
    """The parity report: the verdict, then a line a step with its cause, page and first difference."""
    t = translator(lang)
    colours = {"ok": "green", "attention": "yellow", "failed": "red", "skipped": "dim"}
    verdict = "verify.ready" if parity["ready"] else "verify.not_ready"
    console.print(f"[bold]{t(verdict)}[/] [dim]{parity['seconds']} s[/]")
    for row in render_verify.rows(parity, lang, t):
        state = f"[{colours[row['state']]}]{t('verify.' + row['state'])}[/]"
        console.print(f"  {row['engine']}  {escape(row['step'])}: {state} {escape(row['shown'])}")
        for key in ("cause", "difference"):
            if row[key]:
                console.print(f"    {escape(row[key])}")
        if row["page"]:
            console.print(f"    [dim]{t('verify.page', page=row['page'])}[/]")


def print_costs(quantized: dict[str, Any], lang: str) -> None:
    for line in render_verify.cost_lines(quantized, translator(lang)):
        console.print(f"  {escape(line)}")


def print_push(made: Any, sent: bool, lang: str) -> None:
    """What a push sends (trainer.export.hub.Push), file by file."""
    t = translator(lang)
    grid = table(t("push.file"), t("served.size"))
    for name, size in made.rows():
        grid.add_row(escape(name), f"{size:,}")
    console.print(t("push.to", repo=made.repo, seen=t("push.public" if made.public else "push.private")))
    console.print(grid)
    if not sent:
        console.print(t("push.dry_command"))


def print_votes(rows: Sequence[dict[str, Any]], lang: str) -> None:
    """Blind votes: wins of each pair, and the second one's win rate with its interval."""
    t = translator(lang)
    if not rows:
        console.print(t("blind.none"))
        return
    grid = table(*(t("blind." + key) for key in ("pair", "wins", "rate", "ties")))
    for row in rows:
        low, high = row["interval"]
        rate = "–" if row["rate"] is None else f"{row['b']} {row['rate']:.0%} ({low:.0%}–{high:.0%})"
        wins = " : ".join(str(row["wins"][row[name]]) for name in "ab")
        grid.add_row(escape(f"{row['a']} / {row['b']}"), wins, escape(rate), f"{row['tie']}, {row['bad']}")
    console.print(grid)


def print_served(models: Sequence[dict[str, Any]]) -> None:
    """Models in Ollama: name, size, precision, last change."""
    grid = table("model", "size", "weights", "changed")
    for model in models:
        details = model.get("details") or {}
        size = f"{model.get('size', 0) / 1e9:.2f} GB"
        changed = str(model.get("modified_at", ""))[:16].replace("T", " ")
        grid.add_row(model.get("name", ""), size, str(details.get("quantization_level", "")), changed)
    console.print(grid)
