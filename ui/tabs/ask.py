"""The Ask tab: a cited conversation; beside it a plan as soon as a task is described, and earlier conversations.

What an answer and its neighbours look like is in ui/render.py and ui/render_chat.py, who answers in ui/models.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from html import escape
from types import SimpleNamespace
from typing import Any

import gradio as gr

from assistant import answer as answering
from assistant import conversations, dialogue, llm, preferences
from assistant.types import Answer
from kb.errors import UserError
from ui import form, models, questions, render, render_chat
from ui.context import Context
from ui.i18n import Translate
from ui.streams import Stop, newest

# One key and secret for all starts: by default Gradio changes both, and the conversation would be lost.
NONE = "none"  # no conversation yet; an empty text would not be written over the last one
STATE = {"storage_key": "tunesmith-conversation", "secret": "not-a-secret"}
CHOICE = {"storage_key": "tunesmith-model", "secret": "not-a-secret"}
THUMBS = {True: "Like", False: "Dislike"}  # as Gradio's chat names them
SHOWN_EVERY = 0.3  # seconds between two looks at a download

Changes = dict[Any, Any]  # component: its new value; what is not in it stays


def build(context: Context, lang: str, t: Translate) -> SimpleNamespace:
    page = SimpleNamespace()
    page.conversation = gr.BrowserState(NONE, **STATE)
    page.choice = gr.BrowserState(models.AUTO, **CHOICE)
    page.asked, page.goal, page.plan = gr.State(""), gr.State(""), gr.State(None)
    page.rated = gr.State(None)  # (conversation, turn, liked) that a reason would belong to
    with gr.Row():
        with gr.Column(scale=7, min_width=320):
            build_talk(page, t)
        with gr.Column(scale=4, min_width=300, elem_id="beside"):
            build_side(page, t)
    return page


def build_talk(page: SimpleNamespace, t: Translate) -> None:
    page.chat = gr.Chatbot(
        height="62vh", show_label=False, container=False, layout="panel", placeholder=t("ask.empty"),
        latex_delimiters=[], group_consecutive_messages=False, autoscroll=False, buttons=[],
        feedback_options=tuple(THUMBS.values()), elem_id="conversation",
    )  # fmt: skip
    with gr.Row(visible=False, elem_id="reason") as page.reasons:
        page.reason = gr.Textbox(
            label=t("ask.reason"), show_label=False, container=False, lines=1, max_lines=3, scale=8
        )
        page.keep = gr.Button(t("ask.reason_save"), scale=0, min_width=90)
    with gr.Row():
        page.question = gr.Textbox(
            label=t("ask.placeholder"), placeholder=t("ask.placeholder"), show_label=False, container=False, lines=1, max_lines=6,
            scale=8, autofocus=True,
            elem_id="question",
        )  # fmt: skip
        page.send = gr.Button(t("ask.send"), variant="primary", scale=0, min_width=110)
    with gr.Row(elem_id="answering"):
        menu = models.at_once(models.AUTO, t)
        page.model = gr.Dropdown(
            menu,
            value=models.AUTO,
            label=t("ask.model"),
            container=False,
            scale=6,
            min_width=200,
            elem_id="model",
        )
        page.stop = gr.Button(t("ask.stop"), scale=0, min_width=90, size="sm")
        page.new = gr.Button(t("ask.new"), scale=0, min_width=120, size="sm")
    examples = [[t(f"ask.example{number}")] for number in (1, 2, 3)]
    gr.Examples(examples, page.question, label=t("ask.examples"), api_visibility="private")


def build_side(page: SimpleNamespace, t: Translate) -> None:
    gr.Markdown(f"**{t('ask.side')}**")
    page.card = gr.HTML(render.note(t("ask.side_empty")))
    page.use = gr.Button(t("ask.use_plan"), variant="primary", visible=False, elem_id="use-plan")
    gr.Markdown(f"**{t('ask.earlier')}**")
    page.earlier = gr.HTML(
        render_chat.earlier([], "", t),
        js_on_load=render_chat.CHOOSE,
        apply_default_css=False,
        elem_id="earlier",
    )
    page.preferences = gr.HTML("")
    with gr.Accordion(t("ask.pull"), open=False, elem_id="pull"):
        page.wanted = gr.Textbox(
            label=t("ask.pull_name"),
            placeholder=t("ask.pull_name"),
            show_label=False,
            container=False,
            lines=1,
        )
        with gr.Row():
            page.fetch = gr.Button(t("ask.pull_start"), size="sm", min_width=90)
            page.give_up = gr.Button(t("ask.stop"), size="sm", min_width=90)
        page.fetched = gr.HTML("")


def connect(context: Context, lang: str, t: Translate, page: Any, plan_page: Any, tabs: Any) -> None:
    show = lambda conversation: scene(context, lang, t, page, conversation)
    connect_asking(context, lang, t, page)
    parts = [
        page.chat, page.conversation, page.asked, page.rated, page.reasons, page.goal, page.plan, page.card, page.use,
        page.earlier, page.preferences,
    ]  # fmt: skip
    hidden = {"show_progress": "hidden"}

    def leave(request: gr.Request) -> Changes:
        context.streams.end(request.session_hash, quiet=True)
        return show(NONE)

    for trigger in (page.new.click, page.chat.clear):
        trigger(leave, None, parts, **hidden)

    def choose(event: gr.EventData, conversation: str, request: gr.Request) -> Changes:
        opened, dropped = event._data.get("open"), event._data.get("drop")
        if dropped:
            conversations.delete(context.home.conversations, dropped)
            if dropped != conversation:
                return {
                    page.earlier: listed(context, t, conversation),
                    page.preferences: downloads(context, t),
                }
        context.streams.end(request.session_hash, quiet=True)
        return show(opened or NONE)

    page.earlier.click(choose, page.conversation, parts, **hidden)

    def reopen(conversation: str) -> Changes:
        # The browser's own note of which conversation is open stays: this may come late, after a new one began.
        return {part: value for part, value in show(conversation).items() if part is not page.conversation}

    loaded = [part for part in parts if part is not page.conversation]
    gr.context.Context.root_block.load(reopen, page.conversation, loaded, **hidden)
    connect_votes(context, lang, t, page)
    connect_models(context, lang, t, page)

    def take(goal: str, plan: Any, conversation: str):
        if plan is None:
            return [gr.skip()] * (6 + len(form.NAMES))
        state = dialogue.talk(conversations.load(context.home.conversations, conversation))
        told = {"values": state.values, "asked": state.asked, "goal": goal}
        values = form.to_form(plan.run) if plan.run else [gr.skip()] * len(form.NAMES)
        choice = gr.Radio(value="recommended", visible=plan.run is not None)
        return [gr.Tabs(selected="plan"), goal, render.plan(plan, t), plan, told, choice, *values]

    page.use.click(
        take, [page.goal, page.plan, page.conversation],
        [tabs, plan_page.goal, plan_page.result, plan_page.plan, plan_page.told, plan_page.choice, *plan_page.fields.values()],
        show_progress="hidden", js=None,
    )  # fmt: skip


def connect_asking(context: Context, lang: str, t: Translate, page: Any) -> None:
    """Send, Enter and "answer again", and what stops them."""

    def respond(question: str, conversation: str, chosen: str, request: gr.Request) -> Iterator[Changes]:
        with context.streams.begin(request.session_hash) as stop:
            yield from answer_question(context, lang, t, page, question, conversation, chosen, stop)

    outputs = [
        page.chat, page.question, page.conversation, page.asked, page.goal, page.plan, page.card, page.use, page.earlier,
    ]  # fmt: skip
    for trigger, asked in (
        (page.send.click, page.question),
        (page.question.submit, page.question),
        (page.chat.retry, page.asked),
    ):
        trigger(
            respond, [asked, page.conversation, page.model], outputs, concurrency_limit=4, concurrency_id="ask",
            show_progress="minimal",
        )  # fmt: skip

    def stop(request: gr.Request) -> None:
        context.streams.end(request.session_hash)

    page.stop.click(stop, show_progress="hidden")


def connect_votes(context: Context, lang: str, t: Translate, page: Any) -> None:
    """A thumb is kept at once; a reason, when one is given, is put beside it."""
    store = context.home.conversations

    def rate(event: gr.LikeData, conversation: str) -> Changes:
        number = event.index // 2 + 1
        liked = event.liked if isinstance(event.liked, bool) else None  # "" takes a thumb back
        if not conversations.vote(store, conversation, number, liked):
            gr.Info(t("ask.not_kept"))
            liked = None
        ask_why = t("ask.liked" if liked else "ask.disliked")
        return {
            page.chat: gr.Chatbot(feedback_value=thumbs(context, conversation)),
            page.rated: None if liked is None else (conversation, number, liked),
            page.reasons: gr.Row(visible=liked is not None),
            page.reason: gr.Textbox(value="", placeholder=ask_why),
            page.preferences: downloads(context, t),
        }

    outputs = [page.chat, page.rated, page.reasons, page.reason, page.preferences]
    page.chat.like(rate, page.conversation, outputs, show_progress="hidden")

    def explain(reason: str, rated: tuple[str, int, bool] | None) -> Any:
        if rated:
            conversations.vote(store, *rated, reason)
        return gr.Row(visible=False)

    for trigger in (page.keep.click, page.reason.submit):
        trigger(explain, [page.reason, page.rated], page.reasons, show_progress="hidden")


def connect_models(context: Context, lang: str, t: Translate, page: Any) -> None:
    """The menu of those who can answer, kept across refreshes, and a download that adds to it."""

    def menu(chosen: str) -> Iterator[Any]:
        yield gr.Dropdown(models.at_once(chosen, t), value=chosen)
        yield gr.Dropdown(models.choices(context.home, chosen, t))  # a server may be slow; the value stays

    gr.context.Context.root_block.load(menu, page.choice, page.model, show_progress="hidden")
    page.model.input(lambda chosen: chosen, page.model, page.choice, show_progress="hidden")

    def pull(name: str, request: gr.Request) -> Iterator[Changes]:
        try:
            with context.streams.begin(f"pull {request.session_hash}") as stop:
                for progress in newest(llm.pull(context.home.settings(), name, lang), stop):
                    yield {page.fetched: render_chat.download(progress)}
                    time.sleep(SHOWN_EVERY)
                if stop.wanted.is_set():
                    yield {page.fetched: render.note(t("ask.pull_stopped"))}
                    return
        except UserError as fault:
            yield {page.fetched: render.error(str(fault), lang)}
            return
        choices = models.choices(context.home, "", t)
        chosen = models.pulled(choices, name)
        done = f'<div class="ok">{escape(t("ask.pull_done", name=name.strip()))}</div>'
        yield {page.fetched: done, page.model: gr.Dropdown(choices, value=chosen), page.choice: chosen}

    for trigger in (page.fetch.click, page.wanted.submit):
        trigger(
            pull, page.wanted, [page.fetched, page.model, page.choice], concurrency_limit=4, concurrency_id="pull",
            show_progress="hidden",
        )  # fmt: skip

    def give_up(request: gr.Request) -> None:
        context.streams.end(f"pull {request.session_hash}")

    page.give_up.click(give_up, show_progress="hidden")


def answer_question(
    context: Context,
    lang: str,
    t: Translate,
    page: Any,
    question: str,
    conversation: str,
    chosen: str,
    stop: Stop,
) -> Iterator[Changes]:
    """Stream an answer into the chat, keep it in the store, then look for a plan in what was said.

    A stopped answer stays on the screen, unless something else is there by now; it is not kept.
    """
    if not question.strip():
        yield {page.question: ""}
        return
    store = context.home.conversations
    conversation = conversations.create(store) if conversation in ("", NONE) else conversation
    turns = conversations.load(store, conversation)
    chat = [*bubbles(turns, t), {"role": "user", "content": as_said(question)}]
    yield {page.chat: chat, page.question: "", page.conversation: conversation, page.asked: question}
    before = conversations.before(turns, question)
    html, part = "", None
    try:
        settings = models.settings(context.home, chosen)
        if (said := questions.slot_reply(context, lang, before, question, settings)) is not None:
            conversations.append(store, conversation, question, said)
            html = render.answer(said, len(chat), t)
        else:
            for part in newest(
                answering.stream(context.index, question, answering.turns(before), None, settings), stop
            ):
                if isinstance(part, Answer):
                    part = questions.asking(context, lang, before, question, part)
                    conversations.append(store, conversation, question, part)
                    html = render.answer(part, len(chat), t)
                else:
                    html = render.partial(part.text)
                yield {page.chat: [*chat, {"role": "assistant", "content": html}]}
            if not isinstance(part, Answer):
                html += render.note(t("ask.stopped"))
    except UserError as fault:
        html = render.error(str(fault), lang)
    if not stop.quiet:
        yield {page.chat: [*chat, {"role": "assistant", "content": html}]}
    if isinstance(part, Answer) and part.model and dialogue.tells_a_task(question):
        questions.read_once_more(context, lang, before, question, part, settings, conversation)
        html = render.answer(conversations.load(store, conversation)[-1][1], len(chat), t)
    stored = conversations.load(store, conversation)
    if not stored or stored[-1][0] != question:  # stopped or failed: a task was described all the same
        stored = [*before, (question, Answer("", [], True, "", 0.0, lang))]
    beside = plan_beside(context, lang, t, page, stored)
    if not stop.quiet:
        shown = {page.chat: [*chat, {"role": "assistant", "content": html}]}
        yield shown | beside | {page.earlier: listed(context, t, conversation)}


def scene(context: Context, lang: str, t: Translate, page: Any, conversation: str) -> Changes:
    """All of the tab that belongs to a conversation, as it is stored; nothing for NONE."""
    turns = conversations.load(context.home.conversations, conversation)
    asked = [question for question, _ in turns]
    return {
        page.chat: gr.Chatbot(value=bubbles(turns, t), feedback_value=thumbs(context, conversation)),
        page.conversation: conversation,
        page.asked: asked[-1] if asked else "",
        page.rated: None,
        page.reasons: gr.Row(visible=False),
        page.earlier: listed(context, t, conversation),
        page.preferences: downloads(context, t),
        **plan_beside(context, lang, t, page, turns),
    }


def bubbles(turns: conversations.Turns, t: Translate) -> list[dict[str, str]]:
    """Stored turns as chat messages."""
    chat: list[dict[str, str]] = []
    for question, answer in turns:
        chat.append({"role": "user", "content": as_said(question)})
        chat.append({"role": "assistant", "content": render.answer(answer, len(chat), t)})
    return chat


def thumbs(context: Context, conversation: str) -> list[str | None]:
    """The thumb of each answer in Gradio's words, None where there is none."""
    given = conversations.votes(context.home.conversations, conversation)
    return [THUMBS[given[n].liked] if n in given else None for n in range(1, max(given, default=0) + 1)]


def listed(context: Context, t: Translate, conversation: str) -> str:
    return render_chat.earlier(conversations.recent(context.home.conversations), conversation, t)


def downloads(context: Context, t: Translate) -> str:
    counts = [len(preferences.rows(context.home.conversations, kind)) for kind in preferences.KINDS]
    return render_chat.preferences(*counts, t)


def as_said(text: str) -> str:
    """A person's words, exactly: no markdown, no HTML."""
    return f"<div>{escape(text.strip())}</div>".replace("\n", "<br>")


def plan_beside(context: Context, lang: str, t: Translate, page: Any, turns: conversations.Turns) -> Changes:
    """Goal, plan, card and button for what was told so far; empty when no task was described."""
    state = dialogue.talk(turns)
    plan = dialogue.advised(state, context.hardware, lang)
    if plan is None:
        empty = render.note(t("ask.side_empty"))
        return {page.goal: "", page.plan: None, page.card: empty, page.use: gr.Button(visible=False)}
    return {
        page.goal: state.words,
        page.plan: plan,
        page.card: render.plan_card(plan, t, asks=state.pending is None),
        page.use: gr.Button(visible=True),
    }
