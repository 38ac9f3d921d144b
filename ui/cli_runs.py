"""Commands about runs and models; part of the command line in ui/cli.py."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from kb.errors import UserError
from ui.cli_library import Json

run_app = typer.Typer(help="Show, follow, cancel, resume and compare runs.", no_args_is_help=True)

RunId = Annotated[str, typer.Argument(metavar="ID", help="Run as task/version, for example reviews/v1.")]
RunFile = Annotated[
    str, typer.Argument(metavar="RUN.yaml|TASK", help="A run file, or a task for its newest run's values.")
]
FOLLOW_SECONDS = 1.0
CANCEL_SECONDS = 60.0  # to wait for a checkpoint to be written
FINAL = {"done", "failed", "cancelled", "lost", "oom", "timeout"}


def emit(document: Any) -> None:
    typer.echo(json.dumps(document, ensure_ascii=False, default=str))


def folder_of(run_id: str):
    from trainer import runs
    from ui.home import home

    return runs.find(home().tasks, run_id)


def jobs():
    from trainer.jobs import Jobs
    from ui.home import home

    return Jobs(home().path)


@run_app.command("show")
def run_show(run_id: RunId, as_json: Json = False) -> None:
    """Status, scores and values of a run."""
    from dataclasses import asdict

    from trainer import watch
    from ui.cli import screen_lang
    from ui.terminal import print_run

    jobs().dispatch()
    folder = folder_of(run_id)
    if as_json:
        emit(
            {
                "id": folder.id,
                "status": folder.status(),
                "run": folder.config().model_dump(),
                "scores": folder.scores(),
                "flags": [asdict(flag) for flag in watch.flags(folder)],
                "lineage": folder.lineage(),
            }
        )
    else:
        print_run(folder, screen_lang())


@run_app.command("log")
def run_log(run_id: RunId, lines: Annotated[int, typer.Option("-n", min=1)] = 40) -> None:
    """The last lines of a run's log."""
    typer.echo(folder_of(run_id).log_tail(lines))


@run_app.command("cancel")
def run_cancel(run_id: RunId) -> None:
    """Stop a run; it keeps a checkpoint that resumes."""
    from trainer.messages import message
    from ui.cli import screen_lang

    folder = folder_of(run_id)
    state = jobs().cancel(folder.id, wait=CANCEL_SECONDS)
    status = folder.status()
    said = message(status, screen_lang()) if status["state"] == "cancelled" else state
    typer.echo(f"{folder.id}: {said}")


@run_app.command("resume")
def run_resume(run_id: RunId) -> None:
    """Go on from the last complete checkpoint."""
    folder = folder_of(run_id)
    jobs().resume(folder.id)
    typer.echo(f"{folder.id}: queued; `tunesmith run show {folder.id}` tells how it goes")


@run_app.command("compare")
def run_compare(first: RunId, second: RunId, as_json: Json = False) -> None:
    """Which values differ between two runs, and their scores."""
    from trainer import runs
    from ui.terminal import print_comparison

    comparison = runs.compare(folder_of(first), folder_of(second))
    if as_json:
        emit(comparison)
    else:
        print_comparison(comparison)


def new(name: Annotated[str, typer.Argument(metavar="TASK")]) -> None:
    """Make a task folder with its definition."""
    from trainer.tasks import new_task
    from ui.home import home

    typer.echo(f"made {new_task(home().path, name)}")


def train(
    run: RunFile,
    where: Annotated[
        str, typer.Option("--where", "--on", help="Where it runs: local, ssh:HOST, ray:ADDRESS or slurm.")
    ] = "local",
    slurm_file: Annotated[
        Path | None, typer.Option(help="Write the sbatch script of a new run here, and start nothing.")
    ] = None,
    detach: Annotated[bool, typer.Option(help="Queue it and return at once.")] = False,
    rehearse: Annotated[
        bool,
        typer.Option(help="Try every stage first, on the CPU in about a minute, with a tiny random model."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Start a run and follow it; Ctrl-C leaves it running."""
    from ui.home import home
    from ui.start import start, write_slurm

    wanted = wanted_run(run)
    if rehearse:
        try_out(wanted, as_json)
        return
    if slurm_file:
        folder = write_slurm(home(), wanted, slurm_file, reasons_of(run, wanted))
        emit(
            {"id": folder.id, "folder": str(folder.path), "script": str(slurm_file)}
        ) if as_json else typer.echo(f"{folder.id}: sbatch {slurm_file} trains it in {folder.path}")
        return
    folder = start(home(), jobs(), wanted, reasons_of(run, wanted), where)
    if detach:
        emit({"id": folder.id, "folder": str(folder.path)}) if as_json else typer.echo(
            f"{folder.id}: queued in {folder.path}"
        )
        return
    follow(folder, as_json)


def wanted_run(run: str):
    """The values of a run file, or of a task's newest run."""
    from trainer import config, runs
    from ui.home import home

    if run.endswith((".yaml", ".yml")) or Path(run).is_file():
        wanted = config.load(Path(run))
        return wanted.model_copy(update=absolute_paths(wanted, Path(run).resolve().parent))
    earlier = [folder for folder in runs.all_runs(home().tasks) if folder.id.split("/")[0] == run]
    if not earlier:
        raise UserError(
            f"task {run!r} has no run yet; give a run file, or make one: tunesmith recommend --data FILE --save run.yaml"
        )
    return earlier[0].config()


def reasons_of(run: str, wanted) -> dict[str, Any]:
    """The reasons that stand in a run file, or in that of a task's newest run; a value changed since is the person's."""
    from assistant.yours import yours_of
    from trainer import config, runs
    from ui.cli import screen_lang
    from ui.home import home

    path = Path(run)
    if not path.is_file():
        earlier = [folder for folder in runs.all_runs(home().tasks) if folder.id.split("/")[0] == run]
        path = earlier[0].path / "run.yaml"
    kept = config.reasons_in(path)
    own = yours_of(wanted.model_dump(), kept, screen_lang())
    return kept | {
        name: reason for name, reason in own.items() if name not in ("train_file", "test_file", "task")
    }


def baseline(
    run: RunFile,
    shots: Annotated[int, typer.Option(min=0, max=64, help="Examples before each question; 0: none.")] = 5,
    as_json: Json = False,
) -> None:
    """Score the untrained base model on a run's test rows, without and with examples: what training has to beat."""
    from trainer import baseline
    from trainer.jobs import Jobs
    from ui.home import home
    from ui.start import check

    wanted = wanted_run(run)
    check(wanted)
    folder = baseline.begin(home().path, wanted, shots)
    follow(folder, as_json, board=Jobs(home().path / "baselines"))


def try_out(wanted, as_json: bool) -> None:
    """Rehearse a run and print what was checked. Status 2 where the input is wrong, 1 where the work failed."""
    from trainer import rehearse
    from trainer.jobs import Jobs
    from ui.cli import screen_lang
    from ui.home import home
    from ui.start import check
    from ui.terminal import RunPrinter, print_rehearsal

    check(wanted)
    folder = rehearse.begin(home().path, wanted)
    board, printer = Jobs(home().path / "rehearsals"), RunPrinter(folder, quiet=as_json)
    try:
        while printer.update()["state"] not in FINAL:
            time.sleep(FOLLOW_SECONDS)
            board.dispatch()
    except KeyboardInterrupt:  # a rehearsal is for whoever waits for it
        board.cancel(folder.id)
        raise typer.Exit(130) from None
    found = rehearse.report(folder)
    if as_json:
        emit(found)
    else:
        print_rehearsal(found, screen_lang())
    if found["exit"]:
        raise typer.Exit(found["exit"])


def absolute_paths(wanted, base: Path) -> dict[str, str]:
    """Data paths in a run file are relative to that file, as a reader of it expects."""
    changes = {}
    for field in ("train_file", "eval_file", "test_file"):
        value = getattr(wanted, field)
        if value and not Path(value).is_absolute():
            beside = base / value
            changes[field] = str(beside if beside.exists() else Path(value).resolve())
    return changes | {"rewards": [_absolute_reward(spec, base) for spec in wanted.rewards]}


def _absolute_reward(spec: str, base: Path) -> str:
    """The same of the file that a reward names: json:SCHEMA.json, 0.5*file:REWARD.py."""
    head, colon, name = spec.partition(":")
    kind = head.rpartition("*")[2].strip()
    if kind in ("file", "json") and name and (base / name).is_file():
        return f"{head}{colon}{(base / name).resolve()}"
    return spec


def follow(folder, as_json: bool = False, kind: str = "train", board=None, quiet: bool = False) -> None:
    """Print the curve until the run ends. The run is a process of its own: Ctrl-C stops only the printing."""
    from trainer.messages import MISTAKE, message
    from ui.cli import screen_lang
    from ui.terminal import RunPrinter

    board, printer = board or jobs(), RunPrinter(folder, quiet=as_json or quiet, kind=kind)
    try:
        while True:
            board.reap()
            board.dispatch()
            status = printer.update()
            if status.get("state") in FINAL:
                break
            time.sleep(FOLLOW_SECONDS)
    except KeyboardInterrupt:
        typer.echo(
            f"\n{folder.id} goes on; `tunesmith run show {folder.id}` or `tunesmith run cancel {folder.id}`",
            err=True,
        )
        raise typer.Exit(130) from None
    if as_json:
        emit({"id": folder.id, "folder": str(folder.path), "status": status, "scores": folder.scores()})
    if status["state"] != "done":
        told = message(status, screen_lang()) or "see its log"
        typer.echo(f"tunesmith: {folder.id} {status['state']}: {told}", err=True)
        raise typer.Exit(2 if status.get("code") == MISTAKE else 1)


def runs_list(as_json: Json = False) -> None:
    """All runs, newest first."""
    from trainer import runs
    from ui.home import home
    from ui.terminal import print_runs

    jobs().dispatch()
    folders = runs.all_runs(home().tasks)
    if as_json:
        emit([{"id": folder.id, **folder.status(), "scores": folder.scores()} for folder in folders])
    else:
        print_runs(folders)


def evaluate(run_id: RunId, as_json: Json = False) -> None:
    """Score a finished run on its frozen test rows, against the base model and the majority class."""
    folder = folder_of(run_id)
    jobs().submit(folder, "evaluate")
    follow(folder, as_json, "evaluate")
    if not as_json:
        from ui.terminal import print_scores

        print_scores(folder.scores())


def project(
    name: Annotated[
        str, typer.Argument(metavar="TASK|ID", help="A task for its newest run, or a run (task/v1).")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder to write; default tasks/TASK/project.")] = None,
    lang: Annotated[str | None, typer.Option(help="Language of the documents: zh-TW or en.")] = None,
    as_json: Json = False,
) -> None:
    """Write a task's training project as plain TRL scripts that run without Tunesmith, or add a version to it."""
    from trainer import project as projects
    from trainer import runs
    from ui.cli import screen_lang
    from ui.home import home

    run = folder_of(name) if "/" in name else runs.newest(home().tasks, name)
    written = projects.write(run, out, lang or screen_lang())
    if as_json:
        emit(
            {
                "folder": str(written.folder),
                "version": written.version,
                "new": written.new,
                "kept": written.kept,
            }
        )
        return
    typer.echo(f"{written.folder}: {written.version}, {len(written.new)} files written")
    for edited in written.kept:
        typer.echo(f"kept as you edited it: {edited}; the new text is in {edited}.new")
    typer.echo(f"run it: {written.folder}/scripts/run_pipeline.sh")


def chat(
    model: Annotated[
        str, typer.Argument(metavar="ID|MODEL", help="A run (task/v1), a GGUF file, or an Ollama model.")
    ],
    prompt: Annotated[str | None, typer.Option(help="Say this, print the answer, and leave.")] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(help="A further run on the same base; /use ID and /use base switch while you chat."),
    ] = None,
) -> None:
    """Chat with a trained model, or with several adapters on one base."""
    from ui.chat import open_adapters, open_model
    from ui.home import home

    if adapter:
        with open_adapters(home(), [model, *adapter]) as (talk, use):
            _converse(talk, prompt, use)
    else:
        with open_model(home(), model) as talk:
            _converse(talk, prompt)


def _converse(talk: Any, prompt: str | None, use: Any = None) -> None:
    """Ask and answer until the person leaves; `prompt` asks once."""
    history: list[dict[str, str]] = []
    while True:
        text = prompt if prompt is not None else typer.prompt(">", prompt_suffix=" ")
        if use is not None and text.startswith("/use "):
            try:
                use(text.removeprefix("/use ").strip())
                history = []  # another model knows nothing of what was said to the last one
            except UserError as fault:
                typer.echo(str(fault), err=True)
            continue
        history.append({"role": "user", "content": text})
        reply = ""
        for piece in talk(history):
            reply += piece
            typer.echo(piece, nl=False)
        typer.echo()
        if prompt is not None:
            return
        history.append({"role": "assistant", "content": reply})


def register(app: typer.Typer) -> None:
    """Put the top-level commands of this file on the main application."""
    for name, command in {
        "new": new, "baseline": baseline, "train": train, "runs": runs_list, "eval": evaluate, "project": project,
        "chat": chat,
    }.items():  # fmt: skip
        app.command(name)(command)
