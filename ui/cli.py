"""The command line: `tunesmith …`. A thin skin over the rooms below; heavy imports wait for their command.

--json prints one JSON document and nothing else on stdout; --batch answers JSON lines from
standard input line by line. Exit status: 0 done, 1 the work failed, 2 the input is wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from kb.errors import UserError, told
from ui import (
    cli_conversations,
    cli_evaluate,
    cli_export,
    cli_import,
    cli_library,
    cli_made,
    cli_review,
    cli_runs,
    cli_sweep,
)
from ui.cli_library import Json, Since, Source, filtered
from ui.i18n import screen_lang

app = typer.Typer(
    name="tunesmith",
    help="Ask how to fine-tune a language model; get a cited answer, a reasoned run, a model to chat with.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
kb_app = typer.Typer(help="Check and render the knowledge base.", no_args_is_help=True)
Batch = Annotated[
    bool, typer.Option("--batch", help="Read JSON lines from standard input, answer line by line.")
]
Lang = Annotated[
    str | None, typer.Option("--lang", help="Reader's language: en or zh-TW; default: the question's.")
]


def emit(document: Any) -> None:
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def batch(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer each JSON line of standard input with one line. A bad line answers {"error"}; the status is then 2."""
    failed = False
    for number, line in enumerate(sys.stdin, 1):
        if not line.strip():
            continue
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise UserError(f"expected an object, found {type(request).__name__}")
            emit(answer(request))
        except (ValueError, RecursionError, UserError) as error:
            failed = True
            emit({"error": f"line {number}: {error}"})
    if failed:
        raise typer.Exit(2)


@contextmanager
def progress(enabled: bool = True) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on stderr as the `progress(done, total, what)` that the rooms below call."""
    if not enabled:
        yield lambda done, total, what: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)


def open_index(quiet: bool = False):
    """The index with the knowledge base in it; brought up to date when the pages changed."""
    from ingest.index import Index
    from ingest.sync import build_kb
    from ui.home import home

    kept = home().stores()
    if kept["server"] and kept["server"].warning:
        typer.echo(f"warning: {kept['server'].warning}", err=True)
    with progress(not quiet and sys.stderr.isatty()) as bar:
        build_kb(home().index, bar, **kept)
    return Index.open(home().index, **kept)


@app.command()
def ui(
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond loopback a password is required.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
) -> None:
    """Serve the page."""
    from ui.app import serve

    with progress(sys.stderr.isatty()) as bar:
        serve(host, port, bar)


@app.command()
def search(
    question: Annotated[str | None, typer.Argument(help="What to look for.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="Passages to return.")] = 5,
    lang: Lang = None,
    source: Source = None,
    since: Since = None,
    as_json: Json = False,
    as_batch: Batch = False,
) -> None:
    """Find passages in the knowledge base and your documents."""
    from assistant import rerank
    from ui.home import home

    reranker = home().settings().reranker
    index = open_index(quiet=as_json or as_batch)

    def found(request: dict[str, Any]) -> list[Any]:
        count = number_of(request, "k", k)
        within = filtered(index, request, source, since)
        return rerank.search(within, text_of(request), count, request.get("lang") or lang, reranker)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        return {"hits": [hit_json(hit) for hit in found(request)]}

    if as_batch:
        batch(answer)
    elif as_json:
        emit(answer({"question": question}))
    else:
        from ui.terminal import print_hits

        print_hits(found({"question": question}))


@app.command()
def ask(
    question: Annotated[str | None, typer.Argument(help="What you want to know.")] = None,
    backend: Annotated[str, typer.Option(help="auto, ollama, openai, llamacpp or extract.")] = "auto",
    lang: Lang = None,
    source: Source = None,
    since: Since = None,
    as_json: Json = False,
    as_batch: Batch = False,
) -> None:
    """Answer a question from the library, each sentence cited."""
    from dataclasses import replace

    from assistant import answer as answering
    from ui.home import home

    settings = home().settings()
    if backend != "auto":
        settings = replace(settings, backend=backend)
    index = open_index(quiet=as_json or as_batch)

    def reply(request: dict[str, Any]):
        history = request.get("history") or ()
        within = filtered(index, request, source, since)
        return answering.ask(within, text_of(request), history, request.get("lang") or lang, settings)

    if as_batch:
        batch(lambda request: answering.to_json(reply(request)))
    elif as_json:
        emit(answering.to_json(reply({"question": question})))
    else:
        from ui.terminal import print_answer

        print_answer(reply({"question": question}))


@app.command()
def recommend(
    goal: Annotated[str | None, typer.Argument(help="The task in your own words.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Your data file; rows, labels and lengths are measured.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Kind of task, for example classification.")] = None,
    language: Annotated[str | None, typer.Option(help="Main language of the data.")] = None,
    rows: Annotated[int | None, typer.Option(min=0)] = None,
    preference_pairs: Annotated[int | None, typer.Option(min=0)] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="Number of GPUs; 0 for none.")] = None,
    vram: Annotated[float | None, typer.Option(min=0, help="Memory of one GPU, GiB.")] = None,
    gpu: Annotated[str | None, typer.Option(help="GPU name, for example RTX 4090.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Hub id, folder, or 'starter'.")] = None,
    situation: Annotated[str | None, typer.Option(help="Further situation keys as a JSON object.")] = None,
    test: Annotated[
        Path | None, typer.Option(help="A test file of your own; its labels are compared.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the run, with the reason of each value, to this YAML file.")
    ] = None,
    lang: Lang = None,
    as_json: Json = False,
    as_batch: Batch = False,
) -> None:
    """Recommend a decision and a run; every value with its reason and source."""
    from assistant import recommend as advice
    from trainer import calibration
    from ui.home import home

    if as_batch:
        batch(
            lambda request: advice.to_json(
                advice.recommend(advice.situation(request), lang=request.pop("lang", lang) or "en")
            )
        )
        return
    given = {
        "task": task, "language": language, "rows": rows, "preference_pairs": preference_pairs, "gpus": gpus,
        "gpu_vram_gb": vram, "gpu_name": gpu, "base_model": base_model, **parse_object(situation),
    }  # fmt: skip
    given = {key: value for key, value in given.items() if value is not None}
    if not (given or goal or data):
        raise UserError(
            "nothing to go by: describe the task, or give --data FILE, --task and --rows (tunesmith recommend --help)"
        )
    pairs = calibration.load(home().path)
    result = advice.from_inputs(
        given, text=goal, data=data, lang=lang or screen_lang(), pairs=pairs, test=test, home=home().path
    )
    if save:
        save_run(result.run, save, advice.to_json(result)["reasons"])
    if as_json:
        emit(advice.to_json(result))
    else:
        from ui.terminal import print_recommendation

        print_recommendation(result, lang or screen_lang())


@app.command()
def probe(as_json: Json = False) -> None:
    """Measure in two seconds what this machine computes; times are foretold by it from then on."""
    from trainer import rate
    from ui.home import home

    found = rate.measure_apart(home().path)
    if as_json:
        emit(found)
    else:
        typer.echo(f"{found['device']}: {found['flops'] / 1e12:.3g} TFLOP/s")


@kb_app.command("check")
def kb_check() -> None:
    """Check pages and tables; each fault as file:line, and what has not been read again for 180 days."""
    from kb.check import check, notes

    for note in notes():
        typer.echo(f"note: {note}", err=True)
    faults = check()
    for fault in faults:
        typer.echo(fault)
    if faults:
        raise typer.Exit(1)
    typer.echo("the knowledge base is sound")


@kb_app.command("render")
def kb_render() -> None:
    """Rewrite the tables in pages from the rows of kb/facts."""
    from kb.render import render

    for path in render(write=True):
        typer.echo(f"rendered {path}")


@kb_app.command("site")
def kb_site(
    out: Annotated[Path, typer.Argument(help="Folder for the site's sources and, with mkdocs, the site.")],
) -> None:
    """Write the knowledge base as a static site for mkdocs-material."""
    from importlib.util import find_spec

    from kb.site import write

    config = write(out)
    if find_spec("mkdocs") is None:
        typer.echo(
            f"wrote {config}; to build it: pip install 'tunesmith[site]', then mkdocs build -f {config}"
        )
        return
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--config-file", str(config)]
    if subprocess.run(command, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}).returncode:
        raise typer.Exit(1)
    typer.echo(f"built {out / 'site'}")


cli_runs.register(app)
cli_sweep.register(app)
cli_export.register(app)
app.command()(cli_library.ingest)
app.command()(cli_evaluate.eval_answers)
app.add_typer(cli_library.library_app, name="library")
app.add_typer(cli_runs.run_app, name="run")
DATA = (cli_made, cli_review, cli_import)  # each adds its commands to the one group of cli_data
app.add_typer(DATA[0].data_app, name="data")
app.add_typer(cli_conversations.conversations_app, name="conversations")
app.add_typer(kb_app, name="kb")


def text_of(request: dict[str, Any]) -> str:
    question = request.get("question")
    if not isinstance(question, str) or not question.strip():
        raise UserError('no question; give it as an argument, or as "question" in each line of --batch')
    return question


def number_of(request: dict[str, Any], key: str, default: int) -> int:
    value = request.get(key) or default
    if not isinstance(value, int) or not 1 <= value <= 100:
        raise UserError(f'"{key}" = {value!r}; give a whole number from 1 to 100')
    return value


def parse_object(text: str | None) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError as error:
        raise UserError(
            f"--situation: not valid JSON ({error}); write for example '{{\"rows\": 5000}}'"
        ) from None
    if not isinstance(value, dict):
        raise UserError("--situation: expected a JSON object such as '{\"rows\": 5000}'")
    return value


def hit_json(hit) -> dict[str, Any]:
    return {
        "id": hit.id, "page": hit.page, "heading": hit.heading, "lang": hit.lang, "text": hit.text,
        "score": round(hit.score, 4), "sources": hit.sources, "source": hit.source,
    }  # fmt: skip


def save_run(run: dict[str, Any] | None, path: Path, reasons: dict[str, Any]) -> None:
    from trainer import config

    if run is None:
        raise UserError("this decision trains nothing, so there is no run to save; see the reasons above")
    config.save(config.from_dict(run), path, reasons)


def main() -> None:
    """Entry point: a user's mistake is one line and status 2, never a traceback."""
    from typer.exceptions import Abort, Exit, TyperException

    try:
        status = app(standalone_mode=False)
    except Abort:
        status = 130
    except Exit as error:
        status = error.exit_code
    except TyperException as error:  # a wrong option, command or argument; bare `tunesmith` shows the help
        message = getattr(error, "format_message", error.__str__)()
        if message:
            typer.echo(f"tunesmith: {message} (see --help)", err=True)
        status = 2
    except UserError as error:
        typer.echo(f"tunesmith: {told(str(error), screen_lang())}", err=True)
        status = 2
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status or 0)


if __name__ == "__main__":
    main()
