"""Commands about data files; part of the command line in ui/cli.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ui.cli_runs import Json, emit
from ui.i18n import screen_lang

data_app = typer.Typer(
    help="Check a data file, repair, deduplicate, redact, convert, split and look at it.",
    no_args_is_help=True,
)

Out = Annotated[Path, typer.Argument(help="File to write, JSON lines.")]
WORTH_A_BAR = 8 << 20  # bytes; smaller files take about a second


@contextmanager
def progress(file: Path, quiet: bool) -> Iterator[Callable[[int], None]]:
    """A bar of the bytes read, on stderr, for files that take their time."""
    size = file.stat().st_size if file.is_file() else 0
    if quiet or size < WORTH_A_BAR:
        yield lambda read: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(file.name, total=size)
        yield lambda read: bar.advance(task, read)


@data_app.command("check")
def data_check(
    file: Path,
    against: Annotated[
        Path | None, typer.Option(help="A test file: rows of it found in FILE are named.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=16, help="Tokens a row that the run will take.")
    ] = None,
    tokenizer: Annotated[str, typer.Option(help="A model's folder; without it tokens are estimated.")] = "",
    benchmark: Annotated[
        list[Path] | None, typer.Option(help="A benchmark's file to look for overlap. Repeatable.")
    ] = None,
    schema: Annotated[str, typer.Option(help="JSON schema that the answers are to follow.")] = "",
    template: Annotated[
        str, typer.Option(help="Chat template to render: a model's folder, a .jinja file, or 'chatml'.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Measure a data file and name every fault. Status 1 when a fault stops training."""
    from trainer.data import check
    from ui.terminal import print_profile

    with progress(file, as_json) as seen:
        measured = check(file, against, max_length, tokenizer, seen, benchmark or [], schema, template)
    if as_json:
        emit(asdict(measured))
    else:
        print_profile(measured, screen_lang())
    if any(finding.severity == "error" for finding in measured.findings):
        raise typer.Exit(1)


@data_app.command("repair")
def data_repair(
    file: Path,
    out: Out,
    labels: Annotated[bool, typer.Option(help="Write every label in its commonest spelling.")] = False,
    think: Annotated[bool, typer.Option(help="Keep <think> blocks; --no-think takes them out.")] = True,
) -> None:
    """Leave out broken lines and useless rows; mend encoding, NUL and template marks."""
    from trainer.data import make

    typer.echo(make("repair", file, out, {"labels": labels, "no_think": not think}, screen_lang()))


@data_app.command("dedupe")
def data_dedupe(
    file: Path,
    out: Out,
    near: Annotated[bool, typer.Option(help="Near repeats as well (MinHash).")] = False,
    inputs: Annotated[bool, typer.Option(help="Every further row of the same question.")] = False,
    against: Annotated[Path | None, typer.Option(help="Leave out what stands in this test file.")] = None,
) -> None:
    """Keep the first of each group of repeats."""
    from trainer.data import make

    options = {"near": near, "inputs": inputs, "against": str(against) if against else ""}
    typer.echo(make("dedupe", file, out, options, screen_lang()))


@data_app.command("redact")
def data_redact(file: Path, out: Out) -> None:
    """Replace personal data and keys by their names: [EMAIL], [PHONE], [TW_ID], [SECRET] …"""
    from trainer.data import make

    typer.echo(make("redact", file, out, {}, screen_lang()))


@data_app.command("convert")
def data_convert(
    file: Path,
    out: Out,
    script: Annotated[str, typer.Option(help="One Chinese script: traditional or simplified.")] = "",
    system: Annotated[str, typer.Option(help="System prompt of every row.")] = "",
    instruction: Annotated[str, typer.Option(help="Put before the text of every labelled row.")] = "",
) -> None:
    """Write FILE as conversational prompt/completion JSONL, which TRL takes."""
    from trainer.data import make

    options = {"script": script, "system": system, "instruction": instruction}
    typer.echo(make("convert", file, out, options, screen_lang()))


@data_app.command("split")
def data_split(
    file: Path,
    out: Annotated[Path, typer.Argument(help="Folder for train.jsonl, eval.jsonl and test.jsonl.")],
    test_fraction: Annotated[float, typer.Option(min=0, max=0.5)] = 0.1,
    eval_fraction: Annotated[float, typer.Option(min=0, max=0.5)] = 0.05,
    seed: int = 42,
    near: Annotated[bool, typer.Option(help="Keep near repeats in one part.")] = False,
    group: Annotated[str, typer.Option(help="Column whose equal values stay in one part.")] = "",
    time: Annotated[str, typer.Option(help="Column of dates: the newest rows are the test.")] = "",
    stratify: Annotated[str, typer.Option(help="Column whose shares are kept; default the label.")] = "",
    frozen: Annotated[
        Path | None,
        typer.Option(help="Test file of an earlier version, kept; what it holds is not trained on."),
    ] = None,
) -> None:
    """Split a file by label, by group, by near repeats or by time, no question in two parts."""
    from trainer.data import split_file

    lang = screen_lang()
    typer.echo(
        split_file(file, out, test_fraction, eval_fraction, seed, near, group, time, stratify, frozen, lang)
    )


@data_app.command("rebuild")
def data_rebuild(folder: Annotated[Path, typer.Argument(help="Folder with data_source.yaml.")]) -> None:
    """Run the recorded steps of a folder again; every byte must come out the same."""
    from trainer.data import rebuild

    typer.echo("\n".join(rebuild(folder)))


@data_app.command("card")
def data_card(
    source: Annotated[Path, typer.Argument(help="A data file, or a folder of train, eval and test files.")],
    licence: Annotated[
        str, typer.Option(help="Licence of the source, as apache-2.0; default what stands beside the data.")
    ] = "",
) -> None:
    """Write README.md beside the data: a dataset card in Hugging Face's format."""
    from trainer.data import write_card

    typer.echo(f"made {write_card(source, licence)}")


@data_app.command("preview")
def data_preview(
    file: Path,
    rows: Annotated[int, typer.Option(min=1, max=100)] = 3,
    model: Annotated[
        str, typer.Option(help="'starter' or a model's folder: show tokens, those that carry loss in colour.")
    ] = "",
    method: Annotated[str, typer.Option(help="Training method; default by the file's format.")] = "",
    max_length: Annotated[int, typer.Option(min=16)] = 1024,
    as_json: Json = False,
) -> None:
    """Show rows as the trainer will see them; with --model also which tokens carry loss."""
    from trainer.data import preview

    if not model:
        for row in preview(file, rows):
            emit(row)
        return
    from trainer.config import RunConfig
    from trainer.data.masks import masked
    from trainer.data.steps import usual_method
    from ui.terminal import print_masks

    config = RunConfig(
        task="preview", base_model=model, train_file=str(file), method=method or usual_method(file),
        max_length=max_length,
    )  # fmt: skip
    found = masked(file, config, rows)
    if as_json:
        emit(found)
    else:
        print_masks(found)
