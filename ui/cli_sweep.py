"""`tunesmith sweep` and `tunesmith run repeat`; part of the command line in ui/cli.py."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from ui.cli_runs import FINAL, FOLLOW_SECONDS, Json, RunId, emit, folder_of, follow, jobs, run_app, wanted_run


@run_app.command("repeat")
def run_repeat(
    run_id: RunId,
    detach: Annotated[bool, typer.Option(help="Queue it and return at once.")] = False,
    as_json: Json = False,
) -> None:
    """Train a finished run again, same values and rows, and say whether the weights are the same."""
    from trainer import repeat
    from ui.cli import screen_lang
    from ui.home import home
    from ui.terminal_runs import print_repeat

    child = repeat.begin(home().tasks, folder_of(run_id))
    jobs().submit(child)
    if detach:
        emit({"id": child.id, "repeats": run_id}) if as_json else typer.echo(f"{child.id}: queued")
        return
    follow(child, quiet=as_json)
    found = repeat.comparison(home().tasks, child)
    if as_json:
        emit({"id": child.id, **(found or {})})
    elif found:
        print_repeat(found, screen_lang())
    if not found or not found["same"]:
        raise typer.Exit(1)


def sweep(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN.yaml|TASK|TASK/s1", help="A run file or a task; or a sweep, to show it."),
    ],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE,VALUE; or FIELD=LOW..HIGH with --random.")
    ] = None,
    random: Annotated[
        int | None, typer.Option(min=1, help="Draw so many combinations instead of all.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the drawing.")] = 0,
    detach: Annotated[bool, typer.Option(help="Queue the runs and return at once.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel what of the sweep is not done.")] = False,
    as_json: Json = False,
) -> None:
    """Train a grid, or a random draw, of values as a group of queued runs; show their table and the best."""
    from trainer import sweeps
    from ui.home import home
    from ui.start import check

    tasks = home().tasks
    if run.rpartition("/")[0] and sweeps.NAME.fullmatch(run.rpartition("/")[2]):
        group = sweeps.load(tasks, run)
        if cancel:
            _cancel(group)
    else:
        wanted = wanted_run(run)
        fields = sweeps.parse(settings or [])
        check(wanted)
        group, made = sweeps.create(tasks, wanted, fields, random, seed)
        for folder in made:
            jobs().submit(folder)
        if not detach:
            _follow(group)
    _show(group, as_json)


def _follow(group) -> None:
    """Print each run's end. Ctrl-C leaves them in the queue."""
    from trainer import runs
    from ui.home import home

    board, told = jobs(), set()
    try:
        while len(told) < len(group.runs):
            board.reap()
            board.dispatch()
            for run_id in group.runs:
                state = runs.find(home().tasks, run_id).status()["state"]
                if run_id not in told and state in FINAL:
                    told.add(run_id)
                    typer.echo(f"{run_id} {state} ({len(told)}/{len(group.runs)})", err=True)
            time.sleep(FOLLOW_SECONDS)
    except KeyboardInterrupt:
        typer.echo(f"\n{group.id} goes on; `tunesmith sweep {group.id}` shows it", err=True)
        raise typer.Exit(130) from None


def _cancel(group) -> None:
    from trainer import runs

    for run_id in reversed(group.runs):  # the last first, so that none starts because one before it ended
        if folder_of(run_id).status()["state"] in runs.ACTIVE:
            jobs().cancel(run_id)


def _show(group, as_json: bool) -> None:
    from trainer import sweeps
    from ui.cli import screen_lang
    from ui.home import home
    from ui.terminal_runs import print_sweep

    rows = sweeps.table(home().tasks, group)
    if as_json:
        best = sweeps.best(rows)
        named = best and {
            **{key: best[key] for key in ("score", "value", "margin", "n", "others")},
            "run": best["row"]["run"],
        }
        emit({"id": group.id, "fields": group.fields, "runs": rows, "best": named})
    else:
        print_sweep(group, rows, screen_lang())


def register(app: typer.Typer) -> None:
    app.command("sweep")(sweep)
