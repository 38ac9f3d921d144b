"""Upload to the Hub from the Test tab: the list of files and the card first, then a job that outlives the page."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr

from kb.errors import UserError
from trainer import runs
from trainer.export import hub
from ui import render, render_test
from ui.context import Context
from ui.i18n import Translate


def build(context: Context, lang: str, t: Translate) -> SimpleNamespace:
    page = SimpleNamespace()
    with gr.Accordion(t("push.title"), open=False, elem_id="push"):
        with gr.Row():
            page.repo = gr.Textbox(
                label=t("push.repo"), placeholder="me/reviews", scale=3, elem_id="push-repo"
            )
            page.licence = gr.Textbox(
                label=t("push.licence"), placeholder="apache-2.0", scale=2, elem_id="push-licence"
            )
        with gr.Row():
            page.what = gr.Radio(
                [(t("push.what_" + what), what) for what in hub.WHATS],
                value="adapter",
                label=t("push.what"),
                scale=5,
            )
            page.public = gr.Checkbox(label=t("push.make_public"), scale=2, min_width=220)
            page.list = gr.Button(t("push.list"), scale=0, min_width=220, elem_id="push-list")
        page.shown = gr.HTML("", elem_id="push-shown")
        page.go = gr.Button(t("push.go"), variant="primary", visible=False, elem_id="push-go")
    return page


def connect(context: Context, lang: str, t: Translate, page: Any, run: Any) -> None:
    inputs = [run, page.repo, page.what, page.public, page.licence]
    outputs = [page.shown, page.go]
    hidden = {"show_progress": "hidden"}

    def look(run_id: str, repo: str, what: str, public: bool, licence: str) -> list[Any]:
        try:
            folder = runs.find(context.home.tasks, run_id or "")
            made = hub.plan(folder, (repo or "").strip(), what, public, (licence or "").strip())
        except UserError as fault:
            return [render.error(str(fault), lang), gr.Button(visible=False)]
        return [render_test.push(made, t), gr.Button(visible=True)]

    def go(run_id: str, repo: str, what: str, public: bool, licence: str) -> list[Any]:
        from huggingface_hub import get_token

        if not get_token():
            return [render.error(t("push.no_token"), lang), gr.Button(visible=True)]
        wanted = {"repo": repo.strip(), "what": what, "public": public, "licence": (licence or "").strip()}
        try:
            folder = runs.find(context.home.tasks, run_id or "")
            context.jobs.submit(folder, "export", {"to": "hub", "hub": wanted})
        except UserError as fault:
            return [render.error(str(fault), lang), gr.Button(visible=False)]
        return [render.note(t("push.started")), gr.Button(visible=False)]

    page.list.click(look, inputs, outputs, **hidden)
    page.go.click(go, inputs, outputs, **hidden)
    for changed in (
        page.repo,
        page.what,
        page.public,
        page.licence,
        run,
    ):  # a list of something else is no list
        changed.input(lambda: ["", gr.Button(visible=False)], None, outputs, **hidden)
