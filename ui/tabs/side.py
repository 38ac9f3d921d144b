"""Two models side by side in the Test tab: any two, one message to both, streamed, each answer with its times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import gradio as gr

from kb.errors import UserError
from ui import render, render_test
from ui.context import Context
from ui.i18n import Translate
from ui.speak import Spoken, named, prompted, speak
from ui.streams import newest
from ui.tabs import why
from ui.tabs.ask import as_said

SIDES = ("left", "right")
History = dict[
    str, Any
]  # pair: the two models; left, right: messages, an answer's with "spoken", "stopped", "error"
NOTHING_SAID: History = {"pair": None, "left": [], "right": []}


@dataclass(frozen=True)
class Asked:
    """A message to both models. task_prompt: put the task's own instruction and system message to it."""

    message: str
    run: str
    pair: dict[str, str]
    options: dict[str, Any]
    task_prompt: bool


def build(context: Context, lang: str, t: Translate) -> SimpleNamespace:
    page = SimpleNamespace()
    common = {"height": "42vh", "layout": "panel", "latex_delimiters": [], "feedback_options": None, "buttons": ["copy"]}  # fmt: skip
    page.models, page.chats, page.why = {}, {}, {}
    with gr.Row():
        for side, old in (("left", "base"), ("right", "tuned")):
            with gr.Column(min_width=300):
                page.models[side] = gr.Dropdown(
                    [], label=t("side." + side), allow_custom_value=True, elem_id=f"model-{side}"
                )
                page.chats[side] = gr.Chatbot(
                    show_label=False, elem_id=f"chat-{old}", placeholder=t("side.empty"), **common
                )
                page.why[side] = gr.Button(t("why.button"), size="sm", elem_id=f"why-{side}")
    with gr.Row():
        page.message = gr.Textbox(
            placeholder=t("test.message"), label=t("test.message"), show_label=False, scale=8, lines=1, max_lines=8, elem_id="test-message",
        )  # fmt: skip
        page.send = gr.Button(t("ask.send"), variant="primary", scale=0, min_width=110, elem_id="test-send")
        page.stop = gr.Button(t("ask.stop"), scale=0, min_width=90, elem_id="test-stop")
    with gr.Row(elem_id="test-options"):
        page.temperature = gr.Slider(0, 2, value=0, step=0.1, label=t("test.temperature"), min_width=130)
        page.top_p = gr.Slider(0.05, 1, value=1, step=0.05, label="top_p", min_width=130)
        page.max_tokens = gr.Slider(1, 2048, value=128, step=1, label=t("test.max_tokens"), min_width=150)
        page.seed = gr.Number(0, precision=0, label=t("side.seed"), min_width=110, elem_id="test-seed")
        page.task_prompt = gr.Checkbox(value=True, label=t("test.task_prompt"), min_width=170)
    page.causes = gr.HTML("", elem_id="test-why")
    page.history = gr.State(NOTHING_SAID)
    return page


def connect(context: Context, lang: str, t: Translate, page: Any, run: Any) -> None:
    outputs = [*page.chats.values(), page.message, page.history]
    options = [page.temperature, page.top_p, page.max_tokens, page.seed]

    def say(message, run_id, left, right, temperature, top_p, tokens, seed, task_prompt, history, request: gr.Request):  # fmt: skip
        if not (message or "").strip() or not run_id:
            yield [gr.skip()] * 4
            return
        pair = {"left": named(left or ""), "right": named(right or "")}
        asked = Asked(message, run_id, pair, options_of(temperature, top_p, tokens, seed), task_prompt)
        last = history
        with context.streams.begin(f"test {request.session_hash}") as stop:
            for last in newest(conversation(context, lang, t, asked, history), stop):
                yield [*views(last, t), "", last]
            if stop.wanted.is_set() and not stop.quiet:
                last = ended(last)
                yield [*views(last, t), "", last]

    inputs = [page.message, run, *page.models.values(), *options, page.task_prompt, page.history]
    for trigger in (page.send.click, page.message.submit):
        trigger(say, inputs, outputs, concurrency_limit=4, concurrency_id="test", show_progress="minimal")

    def stop(request: gr.Request) -> None:
        context.streams.end(f"test {request.session_hash}")

    page.stop.click(stop, show_progress="hidden")

    def leave(request: gr.Request):
        context.streams.end(f"test {request.session_hash}", quiet=True)
        return [[], [], NOTHING_SAID, ""]

    emptied = [*page.chats.values(), page.history, page.causes]
    for trigger in (
        run.input,
        *(model.input for model in page.models.values()),
    ):  # only a person's own choice
        trigger(leave, None, emptied, show_progress="hidden")
    for side in SIDES:

        def ask_why(run_id, history, request: gr.Request, side=side):
            yield from why.explain(context, lang, t, run_id, case_of(history, side), request.session_hash)

        page.why[side].click(ask_why, [run, page.history], page.causes, show_progress="minimal")


def options_of(temperature: float, top_p: float, max_tokens: float, seed: float | None) -> dict[str, Any]:
    found = {"temperature": temperature, "top_p": top_p, "max_tokens": int(max_tokens)}
    return found if seed is None else found | {"seed": int(seed)}


def conversation(context: Context, lang: str, t: Translate, asked: Asked, history: History) -> Iterator[History]:  # fmt: skip
    """The history with both answers as they grow, the right one first. Every yield is a history of its own."""
    if history["pair"] != asked.pair:  # another model knows nothing of what was said to the last one
        history = {**NOTHING_SAID, "pair": asked.pair}
    said = {"role": "user", "content": asked.message}
    history = {**history, **{side: [*history[side], said] for side in SIDES}}
    yield history
    for side in reversed(SIDES):
        before = history[side]
        try:
            messages = sendable(before)
            if asked.task_prompt:
                messages = prompted(context, asked.pair[side], asked.run, messages)
            for spoken in speak(context, lang, t, asked.pair[side], messages, asked.options):
                answer = {
                    "role": "assistant",
                    "content": spoken.text,
                    "spoken": spoken,
                    "limit": asked.options["max_tokens"],
                }
                history = {**history, side: [*before, answer]}
                yield history
        except UserError as fault:
            told = {"role": "assistant", "content": "", "error": render.error(str(fault), lang)}
            history = {**history, side: [*before, told]}
            yield history


def sendable(messages: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What a model is to know: no question that failed, nothing but role and text."""
    found: list[dict[str, str]] = []
    for message in messages:
        if message.get("error") or (message["role"] == "assistant" and not message["content"]):
            found.pop()
        else:
            found.append({"role": message["role"], "content": message["content"]})
    return found


def ended(history: History) -> History:
    """A history that a person stopped: what had arrived stays, and is marked."""
    found = {**history}
    for side in SIDES:
        if not history[side]:
            continue
        *before, last = history[side]
        if last["role"] == "user":
            nothing = {"role": "assistant", "content": "", "spoken": Spoken(), "limit": 1, "stopped": True}
            found[side] = [*before, last, nothing]
        elif "spoken" in last and not last["spoken"].whole:
            found[side] = [*before, {**last, "stopped": True}]
    return found


def views(history: History, t: Translate) -> list[list[dict[str, str]]]:
    """Both sides as chat messages."""
    return [[bubble(message, t) for message in history[side]] for side in SIDES]


def bubble(message: dict[str, Any], t: Translate) -> dict[str, str]:
    html = message.get("error") or as_said(message["content"])
    stopped = message.get("stopped", False)
    if (spoken := message.get("spoken")) and (spoken.whole or stopped):
        html += render_test.times(spoken, t, stopped)
    return {"role": message["role"], "content": html}


def case_of(history: History, side: str) -> Any:
    """The last answer of a side as a case for the diagnosis; None where there is none."""
    from assistant.why import Case

    other = "left" if side == "right" else "right"
    answers = {one: next((m for m in reversed(history[one]) if "spoken" in m), None) for one in SIDES}
    answer = answers[side]
    if answer is None:
        return None
    asked = next((m["content"] for m in reversed(history[side]) if m["role"] == "user"), "")
    spoken = answer["spoken"]
    cut = (spoken.tokens or 0) >= answer["limit"]
    return Case(asked, answer["content"], other=answers[other]["content"] if answers[other] else None, cut=cut)  # fmt: skip
