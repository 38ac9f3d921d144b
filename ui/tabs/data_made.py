"""The lower half of the Data tab: split, rows from a local model and their review, the card. data.py is the upper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from kb.errors import UserError
from ui import models, render
from ui.context import Context
from ui.i18n import Translate

SHOWN = 40  # candidates on the page at once
KINDS = ("generate", "paraphrase", "pairs")


def build(context: Context, t: Translate) -> SimpleNamespace:
    page = SimpleNamespace()
    page.review_file = gr.State("")
    page.folder = gr.State("")
    with gr.Accordion(t("made.split"), open=False, visible=False, elem_id="room-split") as page.split_box:
        with gr.Row():
            page.test_share = gr.Number(
                0.1, label=t("made.test_share"), minimum=0, maximum=0.5, step=0.05, min_width=110
            )
            page.eval_share = gr.Number(
                0.05, label=t("made.eval_share"), minimum=0, maximum=0.5, step=0.05, min_width=110
            )
        with gr.Row():
            page.group = gr.Dropdown([], label=t("made.group"), info=t("made.group_info"), min_width=150)
            page.time = gr.Dropdown([], label=t("made.time"), info=t("made.time_info"), min_width=150)
        page.near = gr.Checkbox(True, label=t("made.near"))
        page.frozen = gr.Textbox(label=t("made.frozen"), info=t("made.frozen_info"), elem_id="room-frozen")
        page.split = gr.Button(t("made.do_split"), elem_id="room-do-split")
        page.split_said = gr.HTML()
        page.split_plan = gr.Button(t("made.plan"), visible=False, elem_id="room-split-plan")
    with gr.Accordion(t("made.write"), open=False, visible=False, elem_id="room-write") as page.write_box:
        gr.HTML(render.note(t("made.write_note")))
        page.kind = gr.Radio(
            [(t("made.kind." + kind), kind) for kind in KINDS], value="generate", show_label=False
        )
        with gr.Row():
            page.writer = gr.Dropdown([], label=t("made.model"), allow_custom_value=True, min_width=160)
            page.base = gr.Dropdown(
                [], label=t("made.base"), allow_custom_value=True, visible=False, min_width=160
            )
            page.rows = gr.Number(10, label=t("made.rows"), minimum=1, maximum=200, precision=0, min_width=90)
        page.write = gr.Button(t("made.do_write"), elem_id="room-do-write")
        page.write_said = gr.HTML()
        page.candidates = gr.CheckboxGroup(
            [], label=t("made.candidates"), visible=False, elem_id="room-candidates"
        )
        with gr.Row():
            page.accept = gr.Button(t("made.accept"), visible=False, elem_id="room-accept")
            page.reject = gr.Button(t("made.reject"), visible=False, elem_id="room-reject")
            page.swap = gr.Button(t("made.swap"), visible=False, elem_id="room-swap")
        page.add = gr.Button(t("made.add"), visible=False, variant="primary", elem_id="room-add")
    with gr.Accordion(t("made.card"), open=False, visible=False, elem_id="room-card") as page.card_box:
        page.licence = gr.Textbox(
            label=t("made.licence"), info=t("made.licence_info"), elem_id="room-licence"
        )
        page.write_card = gr.Button(t("made.do_card"), elem_id="room-do-card")
        page.card_said = gr.HTML()
        page.card_text = gr.Markdown(elem_classes="card dataset-card", visible=False)
    return page


def opened(page: Any) -> list[Any]:
    """What `offered` and `closed` fill."""
    return [
        page.split_box, page.write_box, page.card_box, page.group, page.time, page.licence, page.split_said,
        page.write_said, page.card_said, page.split_plan, page.card_text, page.candidates, page.accept, page.reject,
        page.swap, page.add, page.folder,
    ]  # fmt: skip


def offered(measured: Any) -> list[Any]:
    """The three parts for a checked file."""
    columns = ["", *measured.columns]
    boxes = [gr.Accordion(visible=True)] * 3
    fields = [
        gr.Dropdown(choices=columns, value=""),
        gr.Dropdown(choices=columns, value=""),
        measured.licence,
    ]
    # what stood there was of another file
    return [*boxes, *fields, "", "", "", *[gr.update(visible=False)] * 7, ""]


def closed() -> list[Any]:
    return (
        [gr.update(visible=False)] * 3
        + [gr.skip()] * 3
        + ["", "", ""]
        + [gr.update(visible=False)] * 7
        + [""]
    )


def work_folder(context: Context, data: Path) -> Path:
    """Where what is made of a file goes, with its data_source.yaml: a folder of its own under HOME/data."""
    import hashlib

    kept = context.home.path / "data"
    if data.is_relative_to(kept):
        return data.parent
    return kept / f"{data.stem}-{hashlib.sha256(str(data).encode()).hexdigest()[:6]}"


@dataclass(frozen=True)
class Room:
    """What the lower half needs of the upper: `look(file, against, said)` checks a file and fills `shown`."""

    context: Context
    lang: str
    t: Translate
    page: Any
    current: Any
    against: Any
    look: Callable[..., list[Any]]
    shown: list[Any]
    plan_page: Any
    tabs: Any


def connect(room: Room) -> None:
    _connect_split(room)
    _connect_writing(room)
    _connect_adding(room)
    _connect_card(room)


def _connect_split(room: Room) -> None:
    """The split, and on to the plan with its parts."""
    context, lang, page = room.context, room.lang, room.page

    def split(data: str, test: float, evaluation: float, group: str, time: str, near: bool, frozen: str):
        from trainer.data import split_file

        folder = work_folder(context, Path(data))
        held = Path(frozen.strip()).expanduser() if frozen.strip() else None
        try:
            said = split_file(
                Path(data),
                folder,
                test or 0,
                evaluation or 0,
                42,
                near,
                group or "",
                time or "",
                frozen=held,
                lang=lang,
            )
        except UserError as fault:
            return render.error(str(fault), lang), gr.Button(visible=False), ""
        return lines(said), gr.Button(visible=True), str(folder)

    fields = [room.current, page.test_share, page.eval_share, page.group, page.time, page.near, page.frozen]
    page.split.click(split, fields, [page.split_said, page.split_plan, page.folder], concurrency_limit=1)
    onward = lambda folder: (f"{folder}/train.jsonl", f"{folder}/test.jsonl", gr.Tabs(selected="plan"))
    page.split_plan.click(onward, [page.folder], [room.plan_page.path, room.plan_page.test_path, room.tabs])


def reviewed(page: Any) -> list[Any]:
    return [page.write_said, page.candidates, page.accept, page.reject, page.swap, page.add, page.review_file]


def _connect_writing(room: Room) -> None:
    """The model that writes, and the person who judges."""
    context, lang, t, page = room.context, room.lang, room.t, room.page

    def listed():
        menu = [
            pair
            for pair in models.choices(context.home, "", t)
            if pair[1] not in (models.AUTO, models.EXTRACT)
        ]
        menu += [
            (Path(file).name, str(file)) for file in sorted(context.home.tasks.glob("*/runs/*/export/*.gguf"))
        ]
        first = menu[0][1] if menu else ""
        return gr.Dropdown(choices=menu, value=first), gr.Dropdown(choices=menu, value=first)

    page.write_box.expand(listed, None, [page.writer, page.base])
    page.kind.change(lambda kind: gr.Dropdown(visible=kind == "pairs"), [page.kind], [page.base])

    def write(data: str, kind: str, model: str, base: str, rows: float, progress: Any = gr.Progress()):
        review = work_folder(context, Path(data)) / f"{Path(data).stem}-{kind}.review.jsonl"
        told = lambda done, wanted: progress((done, wanted))
        try:
            found = written(
                context, Path(data), review, kind, (model or "", base or ""), int(rows or 1), lang, told
            )
        except UserError as fault:
            return [render.error(str(fault), lang), *[gr.skip()] * (len(reviewed(page)) - 1)]
        said = [t("data.proposed", n=found.made, review=review.name)]
        said += [t("data.thrown." + name, n=count) for name, count in found.thrown.items()]
        return shown_review(str(review), t, "\n".join(said))

    def judged(status: str, swap: bool, review: str, chosen: list[int]) -> list[Any]:
        from trainer.data.review import judge

        try:
            if not chosen:
                raise UserError(t("made.choose"))
            judge(Path(review), chosen, status, swap)
        except UserError as fault:
            return [render.error(str(fault), lang), *[gr.skip()] * (len(reviewed(page)) - 1)]
        return shown_review(review, t)

    asked = [room.current, page.kind, page.writer, page.base, page.rows]
    page.write.click(write, asked, reviewed(page), concurrency_limit=1)
    for button, status, swap in (
        (page.accept, "accepted", False),
        (page.reject, "rejected", False),
        (page.swap, "accepted", True),
    ):
        button.click(
            lambda review, chosen, s=status, turned=swap: judged(s, turned, review, chosen),
            [page.review_file, page.candidates], reviewed(page),
        )  # fmt: skip


def shown_review(review: str, t: Translate, said: str = "") -> list[Any]:
    """What `reviewed` holds: the counts, the candidates that wait, the buttons for them."""
    from trainer.data.review import read_review

    found = read_review(Path(review)) if review and Path(review).is_file() else []
    waiting = [one for one in found if one["status"] == "waiting"]
    accepted = sum(one["status"] == "accepted" for one in found)
    counts = t(
        "data.reviewed",
        waiting=len(waiting),
        accepted=accepted,
        rejected=len(found) - accepted - len(waiting),
    )
    menu = [(brief(one), one["id"]) for one in waiting[:SHOWN]]
    any_left, pairs = bool(waiting), any("chosen" in one["record"] for one in waiting)
    buttons = [gr.Button(visible=any_left), gr.Button(visible=any_left), gr.Button(visible=pairs)]
    group = gr.CheckboxGroup(choices=menu, value=[], visible=any_left)
    return [lines(f"{said}\n{counts}".strip()), group, *buttons, gr.Button(visible=accepted > 0), review]


def _connect_adding(room: Room) -> None:
    """What was accepted joins the file."""
    context, lang, page = room.context, room.lang, room.page

    def add(data: str, review: str, held_out: str):
        from trainer.data import make

        pairs = review.endswith("-pairs.review.jsonl")
        out = work_folder(context, Path(data)) / f"{Path(data).stem}-{'pairs' if pairs else 'more'}.jsonl"
        try:
            source, options = (Path(review), {}) if pairs else (Path(data), {"reviewed": review})
            said = make("add", source, out, options, lang)
        except UserError as fault:
            return [gr.skip(), render.error(str(fault), lang), *[gr.skip()] * (len(room.shown) - 2)]
        return room.look(out, held_out, lines(said))

    page.add.click(add, [room.current, page.review_file, room.against], room.shown, concurrency_limit=1)


def _connect_card(room: Room) -> None:
    """The card of the file, or of its parts."""
    context, t, page = room.context, room.t, room.page

    def card(data: str, folder: str, licence: str):
        from trainer.data import write_card

        parts = Path(folder) if folder and (Path(folder) / "train.jsonl").is_file() else None
        target = work_folder(context, Path(data)) / "README.md"
        try:
            path = write_card(parts or Path(data), licence or "", target)
        except UserError as fault:
            return render.error(str(fault), room.lang), gr.Markdown(visible=False)
        front, _, body = path.read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")
        return lines(t("made.card_made", path=path)), gr.Markdown(
            f"```yaml\n{front}\n```\n{body}", visible=True
        )

    page.write_card.click(
        card, [room.current, page.folder, page.licence], [page.card_said, page.card_text], concurrency_limit=1
    )


def written(context: Context, data: Path, review: Path, kind: str, chosen: tuple[str, str], rows: int, lang: str, told: Any) -> Any:  # fmt: skip
    """What the model wrote. Raises UserError."""
    from trainer.data import propose
    from ui.writing import writer

    def one(name: str) -> Any:
        bare = name if name.endswith(".gguf") and not name.startswith("llamacpp:") else ""
        return writer(models.settings(context.home, "" if bare else name), bare, lang)

    ask, model = one(chosen[0])
    if kind == "pairs":
        base, other = one(chosen[1])
        return propose.preference_pairs(data, review, ask, base, (model, other), rows, told=told)
    if kind == "paraphrase":
        return propose.paraphrase(data, review, ask, model, rows, told=told)
    return propose.generate(data, review, ask, model, most=rows, told=told)


def brief(candidate: dict[str, Any]) -> str:
    """A candidate in a line: its texts, what is noted of it."""
    texts = [" ".join(text.split())[:220] for text in _texts(candidate["record"])]
    notes = f"  ⚠ {', '.join(candidate['notes'])}" if candidate.get("notes") else ""
    return f"{candidate['id']}. {' → '.join(texts)}{notes}"


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        kept = {name: one for name, one in value.items() if name not in ("role", "from")}
        return [text for one in kept.values() for text in _texts(one)]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [str(value)] if value not in (None, "") else []


def lines(text: str) -> str:
    return '<p class="note">' + "<br>".join(escape(line) for line in text.splitlines()) + "</p>"
