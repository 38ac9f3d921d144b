"""The Ask tab: a cited conversation, and beside it a plan as soon as a question describes a task."""

from __future__ import annotations

from html import escape
from types import SimpleNamespace
from typing import Any

import gradio as gr

from assistant import answer as answering
from assistant import conversations, recommend
from assistant.types import Answer
from kb.errors import UserError
from ui import form, render
from ui.context import Context
from ui.i18n import Translate

# One key and secret for all starts: by default Gradio changes both, and the conversation would be lost.
STATE = {"storage_key": "tunesmith-conversation", "secret": "not-a-secret"}


def build(context: Context, lang: str, t: Translate) -> SimpleNamespace:
    page = SimpleNamespace()
    page.conversation = gr.BrowserState("", **STATE)
    page.goal = gr.State("")
    page.plan = gr.State(None)
    with gr.Row():
        with gr.Column(scale=7, min_width=420):
            page.chat = gr.Chatbot(
                height="62vh", show_label=False, container=False, layout="panel", placeholder=t("ask.empty"),
                latex_delimiters=[], group_consecutive_messages=False, autoscroll=False, buttons=["copy"], feedback_options=None,
                elem_id="conversation",
            )  # fmt: skip
            with gr.Row():
                page.question = gr.Textbox(
                    placeholder=t("ask.placeholder"), show_label=False, lines=1, max_lines=6, scale=8, autofocus=True,
                    elem_id="question",
                )  # fmt: skip
                page.send = gr.Button(t("ask.send"), variant="primary", scale=0, min_width=110)
            with gr.Row():
                page.stop = gr.Button(t("ask.stop"), scale=0, min_width=110, size="sm")
                page.new = gr.Button(t("ask.new"), scale=0, min_width=140, size="sm")
            examples = [[t(f"ask.example{number}")] for number in (1, 2, 3)]
            gr.Examples(examples, page.question, label=t("ask.examples"), api_visibility="private")
        with gr.Column(scale=4, min_width=300):
            gr.Markdown(f"**{t('ask.side')}**")
            page.card = gr.HTML(render.note(t("ask.side_empty")))
            page.use = gr.Button(t("ask.use_plan"), variant="primary", visible=False, elem_id="use-plan")
    return page


def connect(context: Context, lang: str, t: Translate, page: Any, plan_page: Any, tabs: Any) -> None:
    outputs = [page.chat, page.question, page.conversation, page.goal, page.plan, page.card, page.use]

    def respond(question: str, conversation: str):
        yield from answer_question(context, lang, t, question, conversation)

    asking = []
    for trigger in (page.send.click, page.question.submit):
        asking.append(
            trigger(
                respond,
                [page.question, page.conversation],
                outputs,
                concurrency_limit=4,
                concurrency_id="ask",
                show_progress="minimal",
            )
        )
    page.stop.click(None, cancels=asking)

    def reopen(conversation: str):
        chat, texts = shown(context, t, conversation)
        return chat, *plan_beside(context, lang, t, " ".join(texts))

    gr.on([page.chat.clear], lambda: "", None, page.conversation)
    page.new.click(
        lambda: ([], "", "", "", None, render.note(t("ask.side_empty")), gr.Button(visible=False)),
        None,
        outputs,
        show_progress="hidden",
    )
    gr.context.Context.root_block.load(
        reopen,
        page.conversation,
        [page.chat, page.goal, page.plan, page.card, page.use],
        show_progress="hidden",
    )

    def take(goal: str, plan: Any):
        if plan is None:
            return [gr.skip()] * (4 + len(form.NAMES))
        html = render.plan(plan, t)
        values = form.to_form(plan.run) if plan.run else [gr.skip()] * len(form.NAMES)
        return [gr.Tabs(selected="plan"), goal, html, plan, *values]

    page.use.click(
        take, [page.goal, page.plan], [tabs, plan_page.goal, plan_page.result, plan_page.plan, *plan_page.fields.values()],
        show_progress="hidden", js=None,
    )  # fmt: skip


def answer_question(context: Context, lang: str, t: Translate, question: str, conversation: str):
    """Stream an answer into the chat, keep it in the store, then look for a plan in what was said."""
    if not question.strip():
        yield [gr.skip()] * 7
        return
    store = context.home.conversations
    conversation = conversation or conversations.create(store)
    chat, texts = shown(context, t, conversation)
    chat.append({"role": "user", "content": as_said(question)})
    skip = [gr.skip()] * 4
    yield chat, "", conversation, *skip
    history = answering.turns(conversations.load(store, conversation))
    try:
        for part in answering.stream(context.index, question, history, None, context.home.settings()):
            if isinstance(part, Answer):
                conversations.append(store, conversation, question, part)
                html = render.answer(part, len(chat), t)
            else:
                html = render.partial(part.text)
            yield [*chat, {"role": "assistant", "content": html}], "", conversation, *skip
        final = [*chat, {"role": "assistant", "content": html}]
    except UserError as fault:
        final = [*chat, {"role": "assistant", "content": render.error(str(fault))}]
    yield final, "", conversation, *plan_beside(context, lang, t, " ".join([*texts, question]))


def shown(context: Context, t: Translate, conversation: str) -> tuple[list[dict[str, str]], list[str]]:
    """The stored conversation as chat messages, and the person's own words in it."""
    if not conversation:
        return [], []
    chat, texts = [], []
    for question, answer in conversations.load(context.home.conversations, conversation):
        chat.append({"role": "user", "content": as_said(question)})
        chat.append({"role": "assistant", "content": render.answer(answer, len(chat), t)})
        texts.append(question)
    return chat, texts


def as_said(text: str) -> str:
    """A person's words, exactly: no markdown, no HTML."""
    return f"<div>{escape(text.strip())}</div>".replace("\n", "<br>")


def plan_beside(context: Context, lang: str, t: Translate, text: str) -> tuple[Any, Any, Any, Any]:
    """(goal, plan, card, button) for what was said so far; empty when no task was described."""
    nothing = ("", None, render.note(t("ask.side_empty")), gr.Button(visible=False))
    if not text:
        return nothing
    situation = recommend.situation_from_text(text)
    if situation.task is None and situation.rows is None and situation.knowledge_update is None:
        return nothing
    plan = recommend.recommend(recommend.situation({"goal": text}), context.hardware, lang=lang)
    return text, plan, render.plan_card(plan, t), gr.Button(visible=True)
