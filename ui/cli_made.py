"""Commands that make a data file of others: drop, sample, balance, relabel, merge, render, pack; part of `data`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from kb.errors import UserError
from ui.cli_data import Out, data_app
from ui.cli_runs import Json, emit
from ui.i18n import screen_lang

Seed = Annotated[int, typer.Option(help="Draws the same rows every time.")]


def made(step: str, file: Path, out: Path, **options: Any) -> None:
    """Run a step and say what it did."""
    from trainer.data import make

    typer.echo(make(step, file, out, options, screen_lang()))


def pairs(given: list[str], option: str) -> dict[str, str]:
    """NAME=VALUE as given on the command line. Raises UserError."""
    split = [one.rpartition("=") for one in given]
    wrong = next(
        (one for one, (name, mark, _) in zip(given, split, strict=True) if not name or not mark), None
    )
    if wrong is not None:
        raise UserError(f"{option} {wrong}: write LABEL=VALUE")
    return {name.strip(): value.strip() for name, _, value in split}


def number(text: str, option: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1000:
        raise UserError(f"{option} {text}: write a number of 0 to 1000")
    return value


@data_app.command("drop")
def data_drop(
    file: Path,
    out: Out,
    kind: Annotated[
        list[str], typer.Option(help="Kind of finding, as `data check --json` names it. Repeatable.")
    ],
    max_length: Annotated[
        int | None, typer.Option(min=16, help="For over_max_length and answer_cut.")
    ] = None,
    benchmark: Annotated[list[Path] | None, typer.Option(help="For benchmark_overlap. Repeatable.")] = None,
    schema: Annotated[Path | None, typer.Option(help="For schema_mismatch.")] = None,
) -> None:
    """Leave out the rows that have a finding of these kinds."""
    files = {"benchmarks": [str(one) for one in benchmark or []], "schema": str(schema) if schema else ""}
    made("drop", file, out, kinds=kind, max_length=max_length, **files)


@data_app.command("sample")
def data_sample(
    file: Path,
    out: Out,
    rows: Annotated[int, typer.Option(min=0, help="How many rows.")] = 0,
    fraction: Annotated[float, typer.Option(min=0, max=1, help="… or which share of them.")] = 0,
    stratify: Annotated[bool, typer.Option(help="The same share of every label.")] = False,
    seed: Seed = 42,
) -> None:
    """Draw rows, in the file's order."""
    if bool(rows) == bool(fraction):
        raise UserError("give either --rows or --fraction")
    made("sample", file, out, rows=rows, fraction=fraction, stratify=stratify, seed=seed)


@data_app.command("balance")
def data_balance(
    file: Path,
    out: Out,
    ratio: Annotated[
        float, typer.Option(min=0, help="Repeat rows until no class is more than so many times another.")
    ] = 0,
    cap: Annotated[int, typer.Option(min=0, help="Most rows of a class.")] = 0,
    weight: Annotated[
        list[str] | None, typer.Option(help="LABEL=FACTOR on a class's rows. Repeatable.")
    ] = None,
    by: Annotated[str, typer.Option(help="Column that holds the class; default the label.")] = "",
    seed: Seed = 42,
) -> None:
    """Oversample, cap or weigh classes by sampling. Do it to the training part, after the split."""
    if not (ratio or cap or weight):
        raise UserError(
            "give --ratio, --cap or --weight; --ratio 1 makes all classes as large as the largest"
        )
    weights = {name: number(value, "--weight") for name, value in pairs(weight or [], "--weight").items()}
    made("balance", file, out, weights=weights, cap=cap, ratio=ratio, by=by, seed=seed)


@data_app.command("relabel")
def data_relabel(
    file: Path,
    out: Out,
    rename: Annotated[
        list[str], typer.Option("--map", help="OLD=NEW; 'OLD=' leaves the rows out. Repeatable.")
    ],
) -> None:
    """Rename labels, join them, or leave some out."""
    made("relabel", file, out, map=pairs(rename, "--map"))


@data_app.command("merge")
def data_merge(
    out: Out,
    files: Annotated[list[Path], typer.Argument(help="Data files of one kind.")],
    weight: Annotated[
        list[str] | None,
        typer.Option(help="FILE=FACTOR: 0.5 half of its rows, 2 all of them twice. Repeatable."),
    ] = None,
    seed: Seed = 42,
) -> None:
    """Put files together; the column source_file says where each row comes from."""
    given = {name: number(value, "--weight") for name, value in pairs(weight or [], "--weight").items()}
    unknown = sorted(given.keys() - {str(file) for file in files} - {file.name for file in files})
    if unknown:
        raise UserError(f"--weight {unknown[0]}: is none of the files; write FILE=FACTOR")
    weights = [given.get(str(file), given.get(file.name, 1.0)) for file in files]
    made("merge", files[0], out, sources=[str(file) for file in files[1:]], weights=weights, seed=seed)


@data_app.command("render")
def data_render(
    file: Path,
    out: Out,
    template: Annotated[str, typer.Option(help="A model's folder, a .jinja file, or 'chatml'.")],
    system: Annotated[str, typer.Option(help="System prompt of every row.")] = "",
) -> None:
    """Write rows as one text each, through a chat template in a sandbox with a time limit."""
    from trainer.data.template import load_template

    found = load_template(template)
    made("render", file, out, template_source=found.source, template_marks=found.marks, system=system)


@data_app.command("pack")
def data_pack(
    file: Path,
    max_length: Annotated[int, typer.Option(min=16, help="Tokens a pack.")] = 1024,
    tokenizer: Annotated[str, typer.Option(help="A model's folder; without it tokens are estimated.")] = "",
    batch_size: Annotated[int, typer.Option(min=1, help="Rows a batch, for the comparison.")] = 8,
    as_json: Json = False,
) -> None:
    """How full packs of rows are, as TRL packs them, and how much is padding without."""
    from trainer.data.packing import packing
    from ui.i18n import translator

    found = packing(file, max_length, tokenizer, batch_size)
    if as_json:
        emit(asdict(found))
        return
    t = translator(screen_lang())
    typer.echo(
        t("data.packs", packs=f"{found.packs:,}", length=f"{max_length:,}", full=f"{100 * found.full:.1f}")
    )
    typer.echo(t("data.unpacked", size=batch_size, full=f"{100 * found.unpacked_full:.1f}"))
    if found.long_rows:
        typer.echo(t("data.packs_cut", rows=f"{found.long_rows:,}", tokens=f"{found.cut:,}"))
