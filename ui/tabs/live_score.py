"""The test set through a served model, counted while it runs; stoppable. Part of the Test tab."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gradio as gr

from assistant.why import Case
from kb.errors import UserError
from trainer import runs, served_score
from trainer.served_score import Count
from ui import render, render_test
from ui.context import Context
from ui.i18n import Translate
from ui.speak import has_head, named, speak
from ui.streams import newest
from ui.tabs import why


def build(context: Context, lang: str, t: Translate) -> SimpleNamespace:
    page = SimpleNamespace()
    with gr.Accordion(t("score.title"), open=False, elem_id="score") as page.panel:
        with gr.Row():
            page.side = gr.Radio(
                [(t("side.left"), "left"), (t("side.right"), "right")],
                value="right",
                label=t("score.model"),
                scale=4,
            )
            page.go = gr.Button(t("score.go"), variant="primary", scale=0, min_width=140, elem_id="score-go")
            page.stop = gr.Button(t("ask.stop"), scale=0, min_width=90, elem_id="score-stop")
        page.live = gr.HTML("", elem_id="score-live")
        page.wrong = gr.HTML("", js_on_load=render_test.WHY, apply_default_css=False, elem_id="score-wrong")
        page.causes = gr.HTML("", elem_id="score-why")
        page.earlier = gr.HTML("")
    page.rows = gr.State([])
    return page


def connect(context: Context, lang: str, t: Translate, page: Any, run: Any, models: dict[str, Any]) -> None:
    hidden = {"show_progress": "hidden"}

    def go(run_id: str, side: str, left: str, right: str, request: gr.Request) -> Iterator[list[Any]]:
        model = named({"left": left, "right": right}[side] or "")
        counted = None
        try:
            folder = runs.find(context.home.tasks, run_id or "")
            with context.streams.begin(f"score {request.session_hash}") as stop:
                for counted in newest(counting(context, lang, t, folder, model), stop):
                    yield shown(counted, model, t, True)
        except UserError as fault:
            yield [render.error(str(fault), lang), "", "", "", []]
            return
        if counted is not None:
            served_score.keep(folder, model, counted)
            yield shown(counted, model, t, False)

    outputs = [page.live, page.wrong, page.causes, page.earlier, page.rows]
    inputs = [run, page.side, models["left"], models["right"]]
    page.go.click(go, inputs, outputs, concurrency_limit=2, concurrency_id="score", **hidden)

    def stop(request: gr.Request) -> None:
        context.streams.end(f"score {request.session_hash}")

    page.stop.click(stop, **hidden)

    def ask_why(event: gr.EventData, run_id: str, rows: list, request: gr.Request) -> Iterator[str]:
        one = rows[int(event._data["why"])]
        case = Case(one["prompt"][-1]["content"], one["found"], one["expected"])
        yield from why.explain(context, lang, t, run_id, case, request.session_hash)

    page.wrong.click(ask_why, [run, page.rows], page.causes, show_progress="minimal")

    def before(run_id: str) -> str:
        try:
            folder = runs.find(context.home.tasks, run_id or "")
        except UserError:
            return ""
        return render_test.earlier_scores(served_score.kept(folder), t)

    page.panel.expand(before, run, page.earlier, **hidden)


def counting(context: Context, lang: str, t: Translate, folder: Any, model: str) -> Iterator[Count]:
    rows, labels = served_score.rows_of(folder)
    head = has_head(folder) and model == f"run:{folder.id}"
    yield Count(len(rows))  # while the model is loaded

    def ask(messages: list[dict[str, str]], room: int) -> str:
        *_, last = speak(context, lang, t, model, messages, {"temperature": 0.0, "max_tokens": room})
        return last.text.split("  ")[0] if head else last.text  # a head lists its labels, the likeliest first

    for counted in served_score.count(rows, labels, ask, folder.config().max_new_tokens):
        yield replace(counted, wrong=list(counted.wrong))


def shown(counted: Count, model: str, t: Translate, running: bool) -> list[Any]:
    """Live score, wrong rows, causes, earlier scores, and the wrong rows themselves."""
    html = render_test.score(counted, model, t, running)
    causes = gr.skip() if running and counted.n else ""
    return [html, render_test.wrong(counted, t), causes, gr.skip() if running else "", counted.wrong]
