"""The Runs tab: every run from its folder, live: state, curve, scores, log; cancel and resume."""

from __future__ import annotations

from functools import partial
from html import escape
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pandas as pd

from kb.errors import UserError
from trainer import repeat, runs, watch
from trainer.memory import ADJUSTED
from ui import render, render_runs, render_sweep
from ui.context import Context
from ui.i18n import Translate
from ui.tabs import side, sweeps

POLL_SECONDS = 1.5
SELECTED = {"storage_key": "tunesmith-run", "secret": "not-a-secret"}
LOG_LINES = 40
RESUMABLE = ("cancelled", "failed", "lost", "oom", "timeout")
SHOWN = 15  # components that a poll writes


def build(context: Context, lang: str, t: Translate) -> SimpleNamespace:
    page = SimpleNamespace()
    page.wanted = gr.BrowserState("", **SELECTED)  # the run that is shown
    page.seen = gr.State(())  # what the last poll showed, so that an unchanged page is not sent again
    with gr.Row():
        page.run = gr.Dropdown(choices=[], label=t("runs.choose"), scale=4, elem_id="run")
        page.cancel = gr.Button(t("runs.cancel"), scale=0, min_width=120, elem_id="cancel")
        page.repeat = gr.Button(t("runs.repeat"), scale=0, min_width=120, elem_id="repeat")
        page.resume = gr.Button(t("runs.resume"), scale=0, min_width=120, elem_id="resume")
        page.test = gr.Button(t("runs.test"), variant="primary", scale=0, min_width=160, elem_id="test-run")
    page.status = gr.HTML(render.note(t("runs.none", button=t("plan.start"))), elem_id="run-status")
    page.live = gr.HTML(elem_id="live")
    page.flags = gr.HTML(elem_id="flags")
    page.message = gr.HTML()
    with gr.Row():
        with gr.Column(scale=7, min_width=420):
            page.curve = gr.LinePlot(
                curve([], t), x="step", y="value", color="series", x_title=t("runs.steps"), y_title=t("runs.loss"), height=320,
                colors_in_legend=[t("runs.loss"), t("runs.eval_loss")], elem_id="curve",
            )  # fmt: skip
            with gr.Accordion(t("runs.measure"), open=False):
                page.measure = gr.Dropdown(
                    choices=[(t("runs." + name), name) for name in render_runs.MORE], value="learning_rate",
                    show_label=False, elem_id="measure",
                )  # fmt: skip
                page.more = gr.LinePlot(
                    curve([], t), x="step", y="value", color="series", x_title=t("runs.steps"), y_title=" ", height=240,
                )  # fmt: skip
        with gr.Column(scale=5, min_width=320):
            page.scores = gr.HTML(elem_id="scores")
    with gr.Accordion(t("runs.log"), open=False):
        page.log = gr.Textbox(
            lines=14, max_lines=14, show_label=False, interactive=False, elem_classes="log", autoscroll=True
        )
    with gr.Accordion(t("runs.values"), open=False):
        page.values = gr.HTML()
    page.table = gr.HTML()
    sweeps.build(context, t, page)
    page.timer = gr.Timer(POLL_SECONDS)
    return page


def connect(context: Context, lang: str, t: Translate, page: Any, test_page: Any, tabs: Any) -> None:
    shown = [page.seen, page.run, page.status, page.curve, page.scores, page.log, page.values, page.table]
    shown += [page.cancel, page.resume, page.test, page.live, page.flags, page.more, page.repeat]

    def poll(wanted: str, seen: tuple, measure: str):
        return update(context, lang, t, wanted, seen, measure)

    root = gr.context.Context.root_block
    polling = {
        "inputs": [page.wanted, page.seen, page.measure],
        "outputs": shown,
        "show_progress": "hidden",
        "concurrency_limit": None,
    }
    page.timer.tick(poll, **polling)
    root.load(poll, **polling)
    page.wanted.change(poll, **polling)
    page.measure.change(poll, **polling)
    page.run.input(lambda run_id: run_id, page.run, page.wanted, show_progress="hidden")

    def act(action, text: str):
        def handler(wanted: str):
            if not wanted:
                return ""
            try:
                action(wanted)
            except UserError as fault:
                return render.error(str(fault), lang)
            return render.note(t(text, id=wanted))

        return handler

    page.cancel.click(act(context.jobs.cancel, "runs.cancelled"), page.wanted, page.message)
    page.resume.click(act(context.jobs.resume, "runs.resumed"), page.wanted, page.message)
    page.repeat.click(partial(again, context, lang, t), page.wanted, [page.message, page.wanted])
    sweeps.connect(context, lang, t, page)
    page.test.click(
        lambda wanted: (gr.Tabs(selected="test"), wanted, [], [], side.NOTHING_SAID),
        page.wanted,
        [tabs, test_page.wanted, *test_page.side.chats.values(), test_page.side.history],
        show_progress="hidden",
    )


def update(context: Context, lang: str, t: Translate, wanted: str, seen: tuple, measure: str) -> list[Any]:
    """New values for the page, or skips where nothing changed since `seen`."""
    folders = runs.all_runs(context.home.tasks)
    ids = [folder.id for folder in folders]
    if not ids:
        return [()] + [gr.skip()] * (SHOWN - 1)
    chosen = wanted if wanted in ids else ids[0]
    folder = folders[ids.index(chosen)]
    now = (chosen, measure, tuple((item.id, item.status()["state"]) for item in folders), *footprint(folder))
    if now == tuple(seen):
        return [gr.skip()] * SHOWN
    state = folder.status()["state"]
    rows = [summary(item) for item in folders]
    choices = [(f"{row['id']}  ·  {t('state.' + row['state'])}", row["id"]) for row in rows]
    fault = folder.fault()
    values = (
        render.error(fault, lang)
        if fault
        else render_runs.values(folder.config().model_dump(), folder.reasons(), t)
    )
    metrics = folder.metrics()
    return [
        now,
        gr.Dropdown(choices=choices, value=chosen),
        render_runs.status(chosen, folder.status(), t),
        curve(metrics, t),
        render_runs.scores(folder.scores(), t),
        folder.log_tail(LOG_LINES),
        values,
        render_runs.runs_table(rows, t),
        gr.Button(interactive=state in runs.ACTIVE),
        gr.Button(interactive=state in RESUMABLE),
        gr.Button(interactive=state == "done"),
        render_runs.live(metrics, t) + repeated(context, folder, t),
        render_runs.flags(watch.flags(folder), folder.lineage().get(ADJUSTED) or [], lang, t),
        curve(metrics, t, (measure,)),
        gr.Button(interactive=state == "done"),
    ]


def repeated(context: Context, folder: Any, t: Translate) -> str:
    found = repeat.comparison(context.home.tasks, folder)
    return render.note(escape(render_sweep.repeat_text(found, t))) if found else ""


def again(context: Context, lang: str, t: Translate, wanted: str) -> tuple[str, str]:
    """Queue a run's repetition: what to say, and the run to show."""
    try:
        child = repeat.begin(context.home.tasks, runs.find(context.home.tasks, wanted))
        context.jobs.submit(child)
    except UserError as fault:
        return render.error(str(fault), lang), wanted
    return render.note(t("runs.repeated", id=child.id, of=wanted)), child.id


def footprint(folder: Any) -> tuple:
    """Sizes and times of the files that the page shows: unchanged means nothing new to draw."""
    marks = []
    for name in ("status.json", "metrics.jsonl", "log.txt", "eval/metrics.json"):
        try:
            stat = (folder.path / name).stat()
            marks.append((stat.st_size, stat.st_mtime_ns))
        except FileNotFoundError:
            marks.append(None)
    return tuple(marks)


def summary(folder: Any) -> dict[str, Any]:
    status = folder.status()
    row = {
        "id": folder.id,
        "state": status["state"],
        "submitted": status.get("submitted"),
        "method": "",
        "peft": "",
        "base_model": "",
    }
    if not folder.fault():
        config = folder.config()
        row |= {"method": config.method, "peft": config.peft, "base_model": config.base_model}
    return row | {"accuracy": (folder.scores().get("tuned") or {}).get("accuracy")}


def curve(
    metrics: list[dict[str, Any]], t: Translate, names: tuple[str, ...] = ("loss", "eval_loss")
) -> pd.DataFrame:
    """Rows (step, value, series). Typed even when empty: an object column would make the axes categories."""
    points = [
        (row["step"], row[key], t("runs." + key))
        for row in metrics
        for key in names
        if isinstance(row.get(key), int | float)
    ]
    frame = pd.DataFrame(points, columns=["step", "value", "series"])
    return frame.astype({"step": "int64", "value": "float64", "series": "str"})
