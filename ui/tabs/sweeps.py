"""The lower part of the Runs tab: sweeps with their table and plot, and the link to trackio's dashboard."""

from __future__ import annotations

from html import escape
from typing import Any

import gradio as gr
import pandas as pd

from kb.errors import UserError
from trainer import sweeps
from ui import render, render_sweep
from ui.context import Context
from ui.i18n import Translate

POLL_SECONDS = 5.0


def build(context: Context, t: Translate, page: Any) -> None:
    """Hidden until there is a sweep."""
    page.sweeps = gr.Column(visible=False)
    with page.sweeps:
        page.sweep = gr.Dropdown(choices=[], label=t("sweep.choose"), elem_id="sweep")
        with gr.Row():
            with gr.Column(scale=6, min_width=420):
                page.sweep_table = gr.HTML(elem_id="sweep-table")
            with gr.Column(scale=5, min_width=320):
                empty = pd.DataFrame({"x": [], "score": [], "series": []}).astype({"series": "str"})
                page.sweep_plot = gr.ScatterPlot(
                    empty, x="x", y="score", color="series", y_title=t("sweep.score"), height=280
                )
    with gr.Row():
        page.dashboard = gr.Button(t("runs.dashboard"), scale=0, min_width=180, elem_id="dashboard")
        page.dashboard_link = gr.HTML(elem_id="dashboard-link")
    page.sweep_timer = gr.Timer(POLL_SECONDS)


def connect(context: Context, lang: str, t: Translate, page: Any) -> None:
    shown = [page.sweeps, page.sweep, page.sweep_table, page.sweep_plot]

    def poll(wanted: str | None):
        return update(context, lang, t, wanted)

    page.sweep_timer.tick(poll, page.sweep, shown, show_progress="hidden", concurrency_limit=None)
    page.sweep.input(poll, page.sweep, shown, show_progress="hidden")
    page.dashboard.click(lambda: dashboard(context, lang, t), None, page.dashboard_link)


def update(context: Context, lang: str, t: Translate, wanted: str | None) -> list[Any]:
    """New values for the part, or skips where there is no sweep."""
    ids = sweeps.all_sweeps(context.home.tasks)
    if not ids:
        return [gr.skip()] * 4
    chosen = wanted if wanted in ids else ids[0]
    try:
        group = sweeps.load(context.home.tasks, chosen)
    except UserError as fault:
        return [
            gr.Column(visible=True),
            gr.Dropdown(choices=ids, value=chosen),
            render.error(str(fault), lang),
            gr.skip(),
        ]
    rows = sweeps.table(context.home.tasks, group)
    plot = gr.ScatterPlot(render_sweep.points(group, rows), x_title=group.fields[0])
    return [
        gr.Column(visible=True),
        gr.Dropdown(choices=ids, value=chosen),
        render_sweep.table(group, rows, t),
        plot,
    ]


def dashboard(context: Context, lang: str, t: Translate) -> str:
    """A link to trackio's dashboard, which is started on loopback first."""
    try:
        address = context.dashboard.open()
    except UserError as fault:
        return render.error(str(fault), lang)
    link = f'<a href="{escape(address)}" target="_blank" rel="noopener">{escape(address)}</a>'
    return render.note(f"{t('runs.dashboard')}: {link}")
