"""The Test tab: export with proof; then any two models side by side, the test set, a blind vote, the Hub.

This file is the run and its export; side.py, live_score.py, blind.py, push.py and served.py are its parts.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr

from kb.errors import UserError
from trainer import runs
from trainer.export import hub
from trainer.methods import METHODS
from ui import render, render_runs, render_verify, speak
from ui.context import Context
from ui.i18n import Translate
from ui.tabs import blind, live_score, push, served, side, why

POLL_SECONDS = 1.5
SELECTED = {"storage_key": "tunesmith-test", "secret": "not-a-secret"}


def build(context: Context, lang: str, t: Translate) -> SimpleNamespace:
    page = SimpleNamespace()
    page.wanted = gr.BrowserState("", **SELECTED)
    page.seen = gr.State(())
    with gr.Row():
        page.run = gr.Dropdown(choices=[], label=t("runs.choose"), scale=4, elem_id="test-choose")
        page.engine = gr.Radio(
            [(t("test.llamacpp"), "llamacpp"), (t("test.ollama"), "ollama")],
            value="llamacpp",
            label=t("test.engine"),
            scale=3,
            min_width=320,
        )
        page.export = gr.Button(t("test.export"), variant="primary", scale=0, min_width=160, elem_id="export")
        page.verify = gr.Button(t("test.verify"), scale=0, min_width=120, elem_id="verify")
    page.status = gr.HTML(render.note(t("test.none")), elem_id="export-status")
    page.note = gr.HTML("", elem_id="test-note")
    page.side = side.build(context, lang, t)
    page.score = live_score.build(context, lang, t)
    page.blind = blind.build(context, lang, t)
    page.push = push.build(context, lang, t)
    page.served = served.build(context, lang, t)
    page.timer = gr.Timer(POLL_SECONDS)
    return page


def connect(context: Context, lang: str, t: Translate, page: Any) -> None:
    shown = [page.seen, page.run, page.status, *page.side.models.values()]
    polling = {
        "inputs": [page.wanted, page.seen],
        "outputs": shown,
        "show_progress": "hidden",
        "concurrency_limit": None,
    }

    def poll(wanted: str, seen: tuple):
        return update(context, lang, t, wanted, seen)

    page.timer.tick(poll, **polling)
    gr.context.Context.root_block.load(poll, **polling)
    page.wanted.change(poll, **polling)
    # Only a person's choice changes what is open. An event of `wanted` may come late, over an answer that is there.
    page.run.input(lambda run_id: run_id, page.run, page.wanted, show_progress="hidden")

    def export(run_id: str, engine: str):
        note = missing(context, lang, t, engine)
        to = "ollama" if engine == "ollama" and not note else "gguf"
        return [*submit(context, lang, run_id, to=to), note]

    def verify(run_id: str):
        return submit(context, lang, run_id, to="verify")

    outputs = [page.status, page.seen]
    page.export.click(export, [page.run, page.engine], [*outputs, page.note], show_progress="hidden")
    page.engine.input(
        lambda engine: missing(context, lang, t, engine), page.engine, page.note, show_progress="hidden"
    )
    page.verify.click(verify, page.run, outputs, show_progress="hidden")
    side.connect(context, lang, t, page.side, page.run)
    live_score.connect(context, lang, t, page.score, page.run, page.side.models)
    blind.connect(context, lang, t, page.blind, page.side, page.run)
    push.connect(context, lang, t, page.push, page.run)
    served.connect(context, lang, t, page.served)


def missing(context: Context, lang: str, t: Translate, engine: str) -> str:
    """How to get Ollama, where it was chosen and does not answer; "" otherwise. The same file runs in llama.cpp."""
    if engine != "ollama":
        return ""
    from trainer.export.ollama import Ollama

    try:
        server = Ollama(context.home.settings().ollama_host, lang)
        there = server.version() is not None
    except UserError as fault:
        return render.error(str(fault), lang)
    return "" if there else render.note(t("test.install_ollama", host=server.host))


def submit(context: Context, lang: str, run_id: str, **arguments: str) -> tuple[Any, Any]:
    """Queue an export job; returns what the status and what was seen become."""
    try:
        folder = runs.find(context.home.tasks, run_id or "")
        if arguments["to"] != "gguf":
            arguments["host"] = context.home.settings().ollama_host
        context.jobs.submit(folder, "export", arguments)
    except UserError as fault:
        return render.error(str(fault), lang), ()
    return gr.skip(), ()


def update(context: Context, lang: str, t: Translate, wanted: str, seen: tuple) -> list[Any]:
    """The finished runs, how the chosen one's export stands, and the models to talk to."""
    finished = [folder for folder in runs.all_runs(context.home.tasks) if folder.status()["state"] == "done"]
    if not finished:
        empty = gr.Dropdown(choices=[], value=None)
        return [(), empty, render.note(t("test.none")), gr.skip(), gr.skip()]
    ids = [folder.id for folder in finished]
    chosen = wanted if wanted in ids else ids[0]
    folder = finished[ids.index(chosen)]
    status, parity = folder.status("export"), why.report(folder, "parity")
    now = (
        chosen,
        tuple(ids),
        status["state"],
        status.get("stage"),
        status.get("step"),
        status.get("message"),
        parity and parity["seconds"],
    )
    if now == tuple(seen):
        return [gr.skip()] * 5
    if status["state"]:
        html = exported(folder, status, parity, lang, t)
    elif METHODS[folder.config().method].output != "text":
        html = render.note(t("test.classifier"))
    else:
        html = render.note(t("test.not_exported", button=t("test.export")))
    models = [gr.skip()] * 2
    if now[:4] != tuple(seen)[:4]:  # asked of Ollama too, so not at every step of an export
        models = chosen_models(context, folder, finished, t, fresh=not seen or seen[0] != chosen)
    return [now, gr.Dropdown(choices=ids, value=chosen), html, *models]


def exported(folder: Any, status: dict[str, Any], parity: Any, lang: str, t: Translate) -> str:
    """The export job, and once it is done what was proven, what it cost and what is on the Hub."""
    html = render_runs.status(folder.id, status, t)
    pushes = (status.get("args") or {}).get("to") == "hub"  # what was proven before still holds
    if status["state"] != "done" and not pushes:
        return html
    html += render_runs.parity(parity, lang, t)
    html += "".join(
        render.note(line) for line in render_verify.cost_lines(why.report(folder, "quantized"), t)
    )
    gone = hub.pushed(folder)
    return html + "".join(render.note(t("push.done", address=one["address"], tag=one["tag"])) for one in gone.values())  # fmt: skip


def chosen_models(context: Context, folder: Any, finished: list[Any], t: Translate, fresh: bool) -> list[Any]:
    """Both menus; of another run than before the base stands left, and the run right."""
    menu = speak.menu(context, folder, finished, t)
    if not fresh:
        return [gr.Dropdown(choices=menu), gr.Dropdown(choices=menu)]
    return [gr.Dropdown(choices=menu, value=f"{kind}:{folder.id}") for kind in ("base", "run")]
