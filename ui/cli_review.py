"""Commands for rows that a local model writes: generate, paraphrase, pairs, review, add; part of `data`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from kb.errors import UserError
from ui.cli_data import Out, data_app
from ui.cli_made import Seed, made
from ui.cli_runs import Json, emit
from ui.i18n import screen_lang, translator

Review = Annotated[Path, typer.Argument(help="Review file to write or to go on with, JSON lines.")]
Model = Annotated[str, typer.Option(help="Name on the Ollama or OpenAI-compatible server, or a .gguf file.")]
Backend = Annotated[str, typer.Option(help="auto, ollama, openai or llamacpp.")]


def asker(model: str, backend: str) -> tuple[Any, str]:
    from dataclasses import replace

    from ui.home import home
    from ui.writing import writer

    settings = home().settings()
    return writer(replace(settings, backend=backend) if backend else settings, model, screen_lang())


@contextmanager
def counted() -> Iterator[Any]:
    """A bar of the candidates written, on stderr: a small machine takes seconds for each."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

    console = Console(stderr=True)
    with Progress(
        BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console, transient=True
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, wanted: bar.update(task, completed=done, total=wanted)


def told(found: Any, review: Path) -> None:
    t = translator(screen_lang())
    typer.echo(t("data.proposed", n=found.made, review=review))
    for kind, count in found.thrown.items():
        typer.echo(t("data.thrown." + kind, n=count))
    if not found.made:
        raise typer.Exit(1)


@data_app.command("generate")
def data_generate(
    file: Path,
    review: Review,
    model: Model = "",
    to: Annotated[int, typer.Option(min=1, help="Classes of fewer rows than this get more.")] = 20,
    rows: Annotated[int, typer.Option(min=1, max=1000, help="Most new rows a class.")] = 10,
    seed: Seed = 42,
    backend: Backend = "",
) -> None:
    """Let a local model write rows for thin classes into a review file; nothing is used before you accept it."""
    from trainer.data.propose import generate

    ask, name = asker(model, backend)
    with counted() as seen:
        found = generate(file, review, ask, name, to, rows, seed, seen)
    told(found, review)


@data_app.command("paraphrase")
def data_paraphrase(
    file: Path,
    review: Review,
    model: Model = "",
    rows: Annotated[int, typer.Option(min=1, max=1000, help="Rows to paraphrase.")] = 10,
    each: Annotated[int, typer.Option(min=1, max=5, help="Paraphrases of each.")] = 2,
    seed: Seed = 42,
    backend: Backend = "",
) -> None:
    """Let a local model write questions in other words into a review file; the answers stay."""
    from trainer.data.propose import paraphrase

    ask, name = asker(model, backend)
    with counted() as seen:
        found = paraphrase(file, review, ask, name, rows, each, seed, seen)
    told(found, review)


@data_app.command("pairs")
def data_pairs(
    file: Path,
    review: Review,
    tuned: Annotated[str, typer.Option(help="The tuned model, whose answer is put forward as chosen.")],
    base: Annotated[str, typer.Option(help="The base model, whose answer is the rejected one.")],
    rows: Annotated[int, typer.Option(min=1, max=1000, help="Prompts to answer.")] = 20,
    seed: Seed = 42,
    backend: Backend = "",
) -> None:
    """Preference pairs of tuned and base answers into a review file, for you to accept, swap or reject."""
    from trainer.data.propose import preference_pairs

    (one, first), (other, second) = asker(tuned, backend), asker(base, backend)
    with counted() as seen:
        found = preference_pairs(file, review, one, other, (first, second), rows, seed, seen)
    told(found, review)


@data_app.command("review")
def data_review(
    review: Annotated[Path, typer.Argument(help="A review file.")],
    accept: Annotated[str, typer.Option(help="Numbers, as 1,2,5-9, or 'all' that wait.")] = "",
    reject: Annotated[str, typer.Option(help="Numbers, or 'all' that wait.")] = "",
    swap: Annotated[str, typer.Option(help="Pairs to accept with chosen and rejected turned round.")] = "",
    as_json: Json = False,
) -> None:
    """Show candidates, or accept and reject them."""
    from trainer.data.review import judge, read_review

    for given, status, turned in (
        (swap, "accepted", True),
        (accept, "accepted", False),
        (reject, "rejected", False),
    ):
        if given:
            judge(review, numbers(given), status, turned)
    found = read_review(review)
    if as_json:
        emit(found)
        return
    t = translator(screen_lang())
    for one in found:
        shown = " · ".join(
            str(value) if isinstance(value, str) else _turns(value) for value in one["record"].values()
        )
        notes = f" ({', '.join(one['notes'])})" if one.get("notes") else ""
        typer.echo(
            f"{one['id']:>4} {t('data.status.' + one['status'])}  {' '.join(shown.split())[:200]}{notes}"
        )
    counts = {
        status: sum(one["status"] == status for one in found)
        for status in ("waiting", "accepted", "rejected")
    }
    typer.echo(t("data.reviewed", **counts))


def _turns(value: Any) -> str:
    turns = value if isinstance(value, list) else []
    return " / ".join(
        str(turn.get("content", turn.get("value", ""))) for turn in turns if isinstance(turn, dict)
    )


def numbers(given: str) -> list[int] | None:
    """1,2,5-9 as numbers; None for "all". Raises UserError."""
    if given.strip() == "all":
        return None
    try:
        ends = [[int(end) for end in part.split("-")] for part in given.split(",")]
    except ValueError:
        raise UserError(f"{given}: write numbers, for example 1,2,5-9, or all") from None
    return [number for first, *last in ends for number in range(first, (last or [first])[0] + 1)]


@data_app.command("add")
def data_add(
    review: Annotated[Path, typer.Argument(help="A review file.")],
    out: Out,
    to: Annotated[
        Path | None, typer.Option(help="The data file that they join; without it they stand alone.")
    ] = None,
) -> None:
    """Write the accepted rows, marked synthetic, alone or with the rows of a data file."""
    if to is None:
        made("add", review, out)
    else:
        made("add", to, out, reviewed=str(review))
