"""The dialogue of the Ask tab with its stores: an answer that fills a slot, the next question under an ordinary answer.

What is asked and how words are read is in assistant/dialogue.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from assistant import conversations, dialogue, llm
from assistant.types import Answer
from kb.errors import UserError
from ui.context import Context


def slot_reply(
    context: Context, lang: str, before: conversations.Turns, question: str, settings: Any
) -> Answer | None:
    """The answer to words that answer the question which stands open; None where they do not."""
    state = dialogue.talk(before)
    if state.pending is None:
        return None
    backend = llm.pick(settings, lang) if settings.backend != "extract" else None
    filled = dialogue.fill(state.pending["slot"], question, backend)
    if filled is None:
        return None
    plan = dialogue.advised(dialogue.told(state, filled), context.hardware, lang)
    return dialogue.reply(filled, plan, lang)


def asking(context: Context, lang: str, before: conversations.Turns, question: str, answer: Answer) -> Answer:
    """An answer with the one question that a described task still needs, if there is one."""
    state = dialogue.talk([*before, (question, answer)])
    plan = dialogue.advised(state, context.hardware, lang)
    return replace(answer, ask=dialogue.next_question(state, question, plan))


def read_once_more(
    context: Context, lang: str, before: conversations.Turns, question: str, answer: Answer, settings: Any, conversation: str
) -> None:  # fmt: skip
    """Where a model answers it reads the description too: what the patterns missed is not asked for."""
    try:
        read = dialogue.described(question, llm.pick(settings, lang))
    except UserError:
        return
    if read:
        wiser = asking(context, lang, before, question, replace(answer, filled=read, ask=None))
        conversations.amend(context.home.conversations, conversation, wiser)
