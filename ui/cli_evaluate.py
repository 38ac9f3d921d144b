"""`tunesmith eval-answers`: how good the answers are, on a set of questions; part of the command line in ui/cli.py."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from kb.errors import UserError

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "assistant" / "golden.yaml"


def eval_answers(
    questions: Annotated[
        str,
        typer.Option(
            "--set",
            metavar="golden|FILE",
            help='"golden", the questions of the source checkout about the knowledge base, or your own: .yaml (a list) '
            'or .jsonl, a row {q, lang, kind, gold, id}; only q is needed. kind "unanswerable": to be refused; '
            "gold: a regular expression that the answer must hold.",
        ),
    ] = "golden",
    backend: Annotated[str, typer.Option(help="auto, ollama, openai, llamacpp or extract.")] = "auto",
    limit: Annotated[int, typer.Option(min=0, help="Ask only so many, spread over the set; 0 for all.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document, each row in it.")] = False,
) -> None:
    """Measure the answers: citations, facts, refusals and seconds on a set of questions."""
    from assistant import evaluate
    from ui.cli import emit, open_index, progress
    from ui.home import home
    from ui.i18n import screen_lang

    asked = evaluate.load(_file(questions))
    if limit:
        asked = asked[:: max(1, -(-len(asked) // limit))]
    settings = home().settings()
    if backend != "auto":
        settings = replace(settings, backend=backend)
    index = open_index(quiet=as_json)
    with progress(sys.stderr.isatty()) as bar:
        found = {"set": questions, **evaluate.evaluate(index, asked, settings, bar)}
    if as_json:
        emit(found)
    else:
        from ui.terminal import print_answer_scores

        print_answer_scores(found, screen_lang())


def _file(questions: str) -> Path:
    if questions != "golden":
        return Path(questions).expanduser()
    if not GOLDEN.is_file():
        raise UserError(
            f"--set golden: {GOLDEN} is not there, it comes with the source checkout only; give --set FILE with your own"
        )
    return GOLDEN
