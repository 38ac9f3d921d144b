"""A blind comparison in the Test tab: two answers without names, sides by chance, a vote; votes become rows for DPO."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr

from kb.errors import UserError
from trainer import runs, votes
from trainer.data.stage import thaw
from ui import render, render_test
from ui.context import Context
from ui.i18n import Translate
from ui.speak import Spoken, named, prompted, speak, title
from ui.streams import newest
from ui.tabs.side import options_of

Round = dict[str, Any]  # a, b: models; order: who stands left; prompt, answers, options. Stays on the server.


def build(context: Context, lang: str, t: Translate) -> SimpleNamespace:
    page = SimpleNamespace()
    with gr.Accordion(t("blind.title"), open=False, elem_id="blind") as page.panel:
        gr.Markdown(t("blind.how"))
        with gr.Row():
            page.text = gr.Textbox(
                label=t("blind.text"), show_label=False, placeholder=t("blind.text"), lines=2, max_lines=8, scale=8, elem_id="blind-text",
            )  # fmt: skip
            page.draw = gr.Button(t("blind.draw"), scale=0, min_width=130, elem_id="blind-draw")
            page.go = gr.Button(t("blind.go"), variant="primary", scale=0, min_width=130, elem_id="blind-go")
            page.stop = gr.Button(t("ask.stop"), scale=0, min_width=90)
        page.told = gr.HTML("", elem_id="blind-told")
        with gr.Row():
            page.left = gr.HTML("", elem_id="blind-left")
            page.right = gr.HTML("", elem_id="blind-right")
        with gr.Row(visible=False, elem_id="blind-votes") as page.ballot:
            page.votes = {
                winner: gr.Button(t("blind." + winner), elem_id=f"vote-{winner}")
                for winner in ("first", "second", "tie", "bad")
            }
        page.tally = gr.HTML("", elem_id="blind-tally")
    page.round = gr.State(None)
    return page


def connect(context: Context, lang: str, t: Translate, page: Any, side: Any, run: Any) -> None:
    hidden = {"show_progress": "hidden"}
    options = [side.temperature, side.top_p, side.max_tokens, side.seed]
    parts = [page.told, page.left, page.right, page.ballot, page.round]

    def go(text, run_id, left, right, temperature, top_p, tokens, seed, task_prompt, request: gr.Request):
        if not (text or "").strip() or not run_id:
            yield [render.note(t("blind.no_text")), "", "", gr.Row(visible=False), None]
            return
        given = options_of(temperature, top_p, tokens, seed)
        made = {"a": named(left or ""), "b": named(right or ""), "order": random.sample("ab", 2), "options": given}  # fmt: skip
        made |= {"prompt": [{"role": "user", "content": text.strip()}]}
        yield [render.note(t("blind.writing")), "", "", gr.Row(visible=False), None]
        try:
            with context.streams.begin(f"blind {request.session_hash}") as stop:
                *_, last = [None, *newest(answers(context, lang, t, made, run_id, task_prompt), stop)]
                stopped = stop.wanted.is_set()
        except UserError as fault:
            yield [render.error(str(fault), lang), "", "", gr.Row(visible=False), None]
            return
        if stopped or last is None or len(last) < 2:
            yield [render.note(t("blind.stopped")), "", "", gr.Row(visible=False), None]
            return
        made |= {"answers": {name: spoken.text for name, spoken in last.items()}, "spoken": last}
        yield ["", *cards(made, t, False), gr.Row(visible=True), made]

    inputs = [page.text, run, *side.models.values(), *options, side.task_prompt]
    page.go.click(go, inputs, parts, concurrency_limit=2, concurrency_id="blind", **hidden)

    def stop(request: gr.Request) -> None:
        context.streams.end(f"blind {request.session_hash}")

    page.stop.click(stop, **hidden)
    page.draw.click(lambda run_id: draw(context, t, run_id), run, [page.text, page.told], **hidden)
    for winner, button in page.votes.items():

        def vote(made: Round | None, run_id: str, winner=winner) -> list[Any]:
            return cast(context, lang, t, made, run_id, winner)

        button.click(vote, [page.round, run], [*parts, page.tally], **hidden)
    for trigger in (page.panel.expand, run.change):
        trigger(lambda run_id: standing(context, lang, t, run_id), run, page.tally, **hidden)


def answers(context: Context, lang: str, t: Translate, made: Round, run_id: str, task_prompt: bool) -> Iterator[dict[str, Spoken]]:  # fmt: skip
    """Both whole answers; nothing is shown before, since their speed would tell who is who."""
    if made["a"] == made["b"]:
        raise UserError(t("blind.same"))
    found: dict[str, Spoken] = {}
    for name in ("a", "b"):
        messages = made["prompt"]
        if task_prompt:
            messages = prompted(context, made[name], run_id, messages)
        *_, found[name] = speak(context, lang, t, made[name], messages, made["options"])
        yield dict(found)


def cards(made: Round, t: Translate, revealed: bool) -> list[str]:
    """The two answers as they stand on the screen, after the vote with names and times."""
    found = []
    for place, name in zip(("A", "B"), made["order"], strict=True):
        label = f"{place} · {title(made[name], t)}" if revealed else place
        under = render_test.times(made["spoken"][name], t) if revealed else ""
        found.append(render_test.side(made["answers"][name], label, t, under))
    return found


def cast(context: Context, lang: str, t: Translate, made: Round | None, run_id: str, winner: str) -> list[Any]:  # fmt: skip
    """Keep a vote and show who was who."""
    if made is None:
        return [gr.skip()] * 6
    folder = runs.find(context.home.tasks, run_id)
    kept = {"first": made["order"][0], "second": made["order"][1]}.get(winner, winner)
    plain = {name: made[name] for name in ("a", "b", "prompt", "answers", "options")}
    votes.add(folder.path.parents[1], plain | {"winner": kept, "left": made["order"][0], "run": run_id})
    told = render.note(t("blind.kept"))
    return [told, *cards(made, t, True), gr.Row(visible=False), None, standing(context, lang, t, run_id)]


def standing(context: Context, lang: str, t: Translate, run_id: str | None) -> str:
    """Win rates of the run's task, and the votes to take away."""
    if not run_id:
        return ""
    task = runs.find(context.home.tasks, run_id).path.parents[1]
    cast_votes = votes.read(task)
    return render_test.tally(votes.tally(cast_votes), t) + render_test.votes_link(task.name, len(votes.pairs(cast_votes)), t)  # fmt: skip


def draw(context: Context, t: Translate, run_id: str) -> list[Any]:
    """A row that was held out for evaluation while training: test rows stay unseen, votes may be trained on."""
    try:
        folder = runs.find(context.home.tasks, run_id or "")
    except UserError:
        return ["", render.note(t("test.none"))]
    staged, config = thaw(folder.path / "data"), folder.config()
    rows = [
        votes.bare(config, row["prompt"]) for row in (staged.splits.eval if staged else []) if "prompt" in row
    ]
    single = [row[0]["content"] for row in rows if len(row) == 1]
    return [random.choice(single), ""] if single else [gr.skip(), render.note(t("blind.no_rows"))]
