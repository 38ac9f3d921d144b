"""Commands about kept conversations; part of the command line in ui/cli.py."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

conversations_app = typer.Typer(
    help="Kept conversations and your thumbs on their answers.", no_args_is_help=True
)


@conversations_app.callback()
def group() -> None:
    """Kept conversations and your thumbs on their answers."""


@conversations_app.command("export")
def export(
    to: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="File to write.")],
    kind: Annotated[
        str,
        typer.Option("--as", help="kto: a row for each vote; dpo: pairs of a liked and a disliked answer."),
    ] = "kto",
) -> None:
    """Write your thumbs as preference data that `tunesmith recommend --data` and `train` read."""
    from assistant import preferences
    from ui.home import home

    count = preferences.export(home().conversations, to, kind)
    typer.echo(f"wrote {count} rows to {to}")
