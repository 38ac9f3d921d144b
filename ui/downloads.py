"""Files that the page hands out beside the Gradio apps: a person's ratings as training data."""

from __future__ import annotations

from fastapi import FastAPI, HTTPException
from fastapi.responses import Response

from assistant import preferences
from trainer import votes
from trainer.runs import TASK_NAME
from ui.context import Context


def routes(app: FastAPI, context: Context) -> None:
    """/preferences/kto.jsonl and /preferences/dpo.jsonl, as `tunesmith conversations export` writes them;
    /votes/TASK.jsonl, the blind votes of the Test tab as rows for DPO.
    """

    @app.get("/preferences/{kind}.jsonl")
    def rated(kind: str) -> Response:
        if kind not in preferences.KINDS:
            raise HTTPException(404)
        lines = preferences.as_lines(preferences.rows(context.home.conversations, kind))
        return Response(lines, media_type="application/jsonl; charset=utf-8")

    @app.get("/votes/{task}.jsonl")
    def voted(task: str) -> Response:
        if not TASK_NAME.fullmatch(task) or not (context.home.tasks / task).is_dir():
            raise HTTPException(404)
        lines = preferences.as_lines(votes.pairs(votes.read(context.home.tasks / task)))
        return Response(lines, media_type="application/jsonl; charset=utf-8")
