"""The Test tab: export with proof, then base and trained model side by side, in llama.cpp or Ollama."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr

from kb.errors import UserError
from trainer import runs
from trainer.methods import METHODS
from ui import render, render_runs, render_verify
from ui.chat import judged, ollama_chat, task_messages
from ui.context import Context
from ui.i18n import Translate
from ui.tabs import served
from ui.tabs.ask import as_said

POLL_SECONDS = 1.5
SELECTED = {"storage_key": "tunesmith-test", "secret": "not-a-secret"}
NOTHING_SAID: dict[str, Any] = {"run": None, "base": [], "tuned": []}


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
    with gr.Row():
        common = {
            "height": "42vh",
            "layout": "panel",
            "latex_delimiters": [],
            "feedback_options": None,
            "buttons": ["copy"],
        }
        page.base = gr.Chatbot(label=t("test.base"), elem_id="chat-base", **common)
        page.tuned = gr.Chatbot(label=t("test.tuned"), elem_id="chat-tuned", **common)
    with gr.Row():
        page.message = gr.Textbox(
            placeholder=t("test.message"),
            show_label=False,
            scale=8,
            lines=1,
            max_lines=8,
            elem_id="test-message",
        )
        page.send = gr.Button(t("ask.send"), variant="primary", scale=0, min_width=110, elem_id="test-send")
        page.stop = gr.Button(t("ask.stop"), scale=0, min_width=90)
    with gr.Row():
        page.temperature = gr.Slider(0, 2, value=0, step=0.1, label=t("test.temperature"))
        page.max_tokens = gr.Slider(1, 2048, value=128, step=1, label=t("test.max_tokens"))
        page.task_prompt = gr.Checkbox(value=True, label=t("test.task_prompt"))
    page.served = served.build(context, lang, t)
    page.history = gr.State(NOTHING_SAID)
    page.timer = gr.Timer(POLL_SECONDS)
    return page


def connect(context: Context, lang: str, t: Translate, page: Any) -> None:
    shown = [page.seen, page.run, page.status]
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
    # Only a person's choice empties the chats. An event of `wanted` may come late, over an answer that is there.
    page.run.input(
        lambda run_id: (run_id, [], []),
        page.run,
        [page.wanted, page.base, page.tuned],
        show_progress="hidden",
    )

    def export(run_id: str, engine: str):
        return submit(context, lang, run_id, to="ollama" if engine == "ollama" else "gguf")

    def verify(run_id: str):
        return submit(context, lang, run_id, to="verify")

    outputs = [page.status, page.seen]
    page.export.click(export, [page.run, page.engine], outputs, show_progress="hidden")
    page.verify.click(verify, page.run, outputs, show_progress="hidden")
    served.connect(context, lang, t, page.served)

    def say(message, run_id, engine, temperature, max_tokens, task_prompt, history):
        options = {"temperature": temperature, "max_tokens": int(max_tokens)}
        yield from converse(context, lang, t, message, run_id, engine, options, task_prompt, history)

    inputs = [
        page.message,
        page.run,
        page.engine,
        page.temperature,
        page.max_tokens,
        page.task_prompt,
        page.history,
    ]
    outputs = [page.base, page.tuned, page.message, page.history]
    saying = [
        trigger(say, inputs, outputs, concurrency_limit=4)
        for trigger in (page.send.click, page.message.submit)
    ]
    page.stop.click(None, cancels=saying)


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
    """The finished runs, and how the chosen one's export stands."""
    finished = [folder for folder in runs.all_runs(context.home.tasks) if folder.status()["state"] == "done"]
    if not finished:
        return [(), gr.Dropdown(choices=[], value=None), render.note(t("test.none"))]
    ids = [folder.id for folder in finished]
    chosen = wanted if wanted in ids else ids[0]
    folder = finished[ids.index(chosen)]
    status, parity = folder.status("export"), report_of(folder, "parity")
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
        return [gr.skip()] * 3
    if status["state"]:
        html = render_runs.status(chosen, status, t)
        if status["state"] == "done":
            html += render_runs.parity(parity, lang, t)
            costs = render_verify.cost_lines(report_of(folder, "quantized"), t)
            html += "".join(render.note(line) for line in costs)
    elif METHODS[folder.config().method].output != "text":
        html = render.note(t("test.classifier"))
    else:
        html = render.note(t("test.not_exported", button=t("test.export")))
    return [now, gr.Dropdown(choices=ids, value=chosen), html]


def report_of(folder: Any, name: str) -> dict[str, Any] | None:
    try:
        return json.loads((folder.path / "export" / f"{name}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def converse(context, lang, t, message, run_id, engine, options, task_prompt, history) -> Iterator[list[Any]]:
    """Put one message to both models and stream their answers, the trained one first."""
    if not (message or "").strip() or not run_id:
        yield [gr.skip()] * 4
        return
    if history["run"] != run_id:  # another model knows nothing of what was said to the last one
        history = NOTHING_SAID
    said = {"role": "user", "content": message}
    history = {"run": run_id, **{side: [*history[side], said] for side in ("base", "tuned")}}
    view = {side: bubbles(history[side]) for side in ("base", "tuned")}
    yield [view["base"], view["tuned"], "", gr.skip()]
    for side in ("tuned", "base"):
        text = ""
        try:
            folder = runs.find(context.home.tasks, run_id)
            words = (
                METHODS[folder.config().method].output == "text"
            )  # a head puts the run's instruction there itself
            messages = task_messages(folder, history[side]) if task_prompt and words else history[side]
            for piece in talk(context, t, folder, side, engine, messages, options):
                text += piece
                view[side] = bubbles([*history[side], {"role": "assistant", "content": text}])
                yield [view["base"], view["tuned"], "", gr.skip()]
            history[side] = [*history[side], {"role": "assistant", "content": text}]
            view[side] = bubbles(history[side])
        except UserError as fault:
            view[side] = [
                *bubbles(history[side]),
                {"role": "assistant", "content": render.error(str(fault), lang)},
            ]
            history[side] = history[side][:-1]
        yield [view["base"], view["tuned"], "", history]


def talk(
    context: Context, t: Translate, folder: Any, side: str, engine: str, messages: list, options: dict
) -> Iterator[str]:
    """Stream one model's answer. The base always runs in llama.cpp; Ollama holds only what was exported to it."""
    if METHODS[folder.config().method].output != "text":
        if side == "base":
            raise UserError(t("test.head_base"))
        yield judged(folder, messages[-1]["content"])
        return
    if engine == "ollama" and side == "tuned":
        from trainer.export.ollama import Ollama

        server = Ollama(context.home.settings().ollama_host)
        if server.version() is None:
            raise UserError(t("test.ollama_missing", host=server.host))
        yield from ollama_chat(server, folder.id.replace("/", ":"), messages, **options)
        return
    gguf = folder.path / "export" / ("model.gguf" if side == "tuned" else "base.gguf")
    if not gguf.exists():
        raise UserError(
            t("test.not_exported", button=t("test.export")) if side == "tuned" else t("test.base_missing")
        )
    yield from context.engines.get(gguf).chat(messages, **options)


def bubbles(history: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{"role": message["role"], "content": as_said(message["content"])} for message in history]
