"""The Data tab: a file in, every fault named with its remedy as a button, the tokens that are trained shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from kb.errors import UserError
from ui import render, render_data
from ui.context import Context
from ui.i18n import Translate, translator
from ui.tabs import data_import, data_made
from ui.tabs.data_import import still_wanted, work_of
from ui.tabs.plan import base_models, data_path

PREVIEWED = 3
OPTIONS = ("--labels", "--no-think")
# button → (its step, the step's options, whether a finding's command is what it does)
FIXES: dict[str, tuple[str, dict[str, Any], Callable[[str], bool]]] = {
    "repair": ("repair", {}, lambda c: c.startswith("tunesmith data repair") and not c.endswith(OPTIONS)),
    "labels": ("repair", {"labels": True}, lambda c: c.endswith("--labels")),
    "no_think": ("repair", {"no_think": True}, lambda c: c.endswith("--no-think")),
    "dedupe": ("dedupe", {"near": True}, lambda c: c.startswith("tunesmith data dedupe")),
    "redact": ("redact", {}, lambda c: c.startswith("tunesmith data redact")),
    "traditional": ("convert", {"script": "traditional"}, lambda c: c.endswith("--script traditional")),
    "balance": ("balance", {"ratio": 10, "seed": 42}, lambda c: c.startswith("tunesmith data balance")),
}


def build(context: Context, lang: str, t: Translate) -> SimpleNamespace:
    from trainer.data.read import SUFFIXES

    page = SimpleNamespace()
    page.current = gr.State("")
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            page.file = gr.File(
                label=t("data.file"),
                file_types=list(SUFFIXES),
                type="filepath",
                height=120,
                elem_id="room-file",
            )
            page.path = gr.Textbox(label=t("data.path"), elem_id="room-path")
            page.against = gr.Textbox(label=t("data.against"), elem_id="room-against")
            page.check = gr.Button(t("data.check"), variant="primary", elem_id="room-check")
            page.stop = gr.Button(t("ask.stop"), size="sm", visible=False, elem_id="room-stop")
            page.fixes = {
                name: gr.Button(t("data." + name), visible=False, elem_id=f"room-{name}") for name in FIXES
            }
            page.kinds = gr.CheckboxGroup([], label=t("data.kinds"), visible=False, elem_id="room-kinds")
            page.drop = gr.Button(t("data.drop"), visible=False, elem_id="room-drop")
            page.model = gr.Dropdown(
                choices=base_models(t)[1:], value="starter", label=t("data.model"), allow_custom_value=True, visible=False
            )  # fmt: skip
            page.preview = gr.Button(t("data.preview"), visible=False, elem_id="room-preview")
            page.plan = gr.Button(t("data.plan"), visible=False, elem_id="room-plan")
            page.bring = data_import.build(context, lang, t, page.stop)
        with gr.Column(scale=7, min_width=420):
            page.error = gr.HTML()  # at the top: below the buttons it would be out of sight
            page.made = gr.HTML()
            page.result = gr.HTML(render.note(t("data.empty")))
            page.tokens = gr.HTML()
            page.lower = data_made.build(context, t)
    return page


def connect(context: Context, lang: str, t: Translate, page: Any, plan_page: Any, tabs: Any) -> None:
    shown = _shown(page)

    def look(
        data: Path | None, against: str, said: str = "", progress: Any = None, stop: Any = None
    ) -> list[Any]:
        """What stands on the page once a file is checked."""
        try:
            if data is None:
                raise UserError(t("data.none"))
            measured = examine(data, against, progress, stop and partial(still_wanted, stop, t))
        except UserError as fault:
            # what stood there was of another file
            hidden = [gr.update(visible=False)] * (len(FIXES) + 5)
            return ["", render.error(str(fault), lang), "", "", "", *hidden, *data_made.closed()]
        offered = [gr.Button(visible=fits(name, measured)) for name in FIXES]
        kinds = droppable(measured, lang)
        rest = [
            gr.CheckboxGroup(choices=kinds, value=[], visible=bool(kinds)),
            gr.Button(visible=bool(kinds)),
        ]
        rest += [gr.Dropdown(visible=True), gr.Button(visible=True), gr.Button(visible=True)]
        found = render_data.checked(measured, lang, t)
        return [found, "", said, "", str(data), *offered, *rest, *data_made.offered(measured)]

    _connect_check(context, page, look, shown)

    def brought(made: str, against: str):
        return look(Path(made), against) if made else [gr.skip()] * len(shown)

    data_import.connect(context, lang, t, page.bring).then(brought, [page.bring.made, page.against], shown)

    _connect_fixes(context, lang, t, page, look, shown)
    data_made.connect(
        data_made.Room(context, lang, t, page.lower, page.current, page.against, look, shown, plan_page, tabs)
    )

    _connect_preview(lang, t, page)
    onward = lambda current, against: (current, against, gr.Tabs(selected="plan"))
    page.plan.click(onward, [page.current, page.against], [plan_page.path, plan_page.test_path, tabs])


def _shown(page: Any) -> list[Any]:
    """What a check changes on the page, in the order in which `look` gives it."""
    return [
        page.result,
        page.error,
        page.made,
        page.tokens,
        page.current,
        *page.fixes.values(),
        page.kinds,
        page.drop,
        page.model,
        page.preview,
        page.plan,
        *data_made.opened(page.lower),
    ]


def _connect_check(context: Context, page: Any, look: Any, shown: list[Any]) -> None:
    def check(file: str | None, path: str, against: str, request: gr.Request, progress: Any = gr.Progress()):
        with context.streams.begin(work_of(request)) as stop:
            return look(data_path(context, file, path), against, progress=progress, stop=stop)

    inputs = [page.file, page.path, page.against]
    showing, hiding = (lambda: gr.Button(visible=True)), (lambda: gr.Button(visible=False))
    for begun in (page.check.click, page.file.upload):
        begun(showing, None, page.stop, show_progress="hidden")
        begun(check, inputs, shown, concurrency_limit=1).then(hiding, None, page.stop, show_progress="hidden")

    def end(request: gr.Request) -> None:
        context.streams.end(work_of(request))

    page.stop.click(end, show_progress="hidden")


def _connect_preview(lang: str, t: Translate, page: Any) -> None:
    def preview(current: str, model: str):
        try:
            return render_data.masks(tokens_of(Path(current), model), t), ""
        except UserError as fault:
            return "", render.error(str(fault), lang)

    page.preview.click(preview, [page.current, page.model], [page.tokens, page.error], concurrency_limit=1)


def _connect_fixes(context: Context, lang: str, t: Translate, page: Any, look: Any, shown: list[Any]) -> None:
    """The buttons that make a better file, which is then looked at."""

    def fix(name: str, current: str, against: str, kinds: list[str]):
        data = Path(current)
        out = data_made.work_folder(context, data) / f"{data.stem}-{name}.jsonl"
        try:
            said = mend(name, data, out, against, kinds, lang)
        except UserError as fault:
            return [gr.skip(), render.error(str(fault), lang), *[gr.skip()] * (len(shown) - 2)]
        return look(out, against, data_made.lines(t("data.made", name=out.name) + "\n" + said))

    for name, button in {**page.fixes, "drop": page.drop}.items():
        button.click(
            lambda current, against, kinds, n=name: fix(n, current, against, kinds),
            [page.current, page.against, page.kinds], shown, concurrency_limit=1,
        )  # fmt: skip


def examine(data: Path, against: str, progress: Any = None, wanted: Callable[[], None] | None = None) -> Any:
    """The checked file; `progress` is told the share that was read, `wanted` raises where it is to end."""
    from trainer.data import check

    size, done = data.stat().st_size if data.is_file() else 1, 0

    def seen(read: int) -> None:
        nonlocal done
        done += read
        if wanted is not None:
            wanted()
        if progress is not None:
            progress(done / max(size, 1))

    held_out = Path(against.strip()).expanduser() if against.strip() else None
    return check(data, held_out, seen=seen)


def fits(name: str, measured: Any) -> bool:
    """Whether some finding's command is what the button does."""
    return any(FIXES[name][2](finding.command or "") for finding in measured.findings)


def droppable(measured: Any, lang: str) -> list[tuple[str, str]]:
    """(message, kind) of the findings whose rows can be left out."""
    found = [one for one in measured.findings if (one.command or "").startswith("tunesmith data drop")]
    return [(render.localised(one.message, lang), one.kind) for one in found]


def mend(name: str, data: Path, out: Path, against: str, kinds: list[str], lang: str) -> str:
    """Make the new file and say what was done; data_source.yaml beside it says so too. Raises UserError."""
    from trainer.data import make

    if name == "drop":
        if not kinds:
            raise UserError(translator(lang)("data.choose_kinds"))
        return make("drop", data, out, {"kinds": kinds}, lang)
    step, options, _ = FIXES[name]
    if name == "dedupe" and against.strip():
        options = options | {"against": str(Path(against.strip()).expanduser())}
    return make(step, data, out, options, lang)


def tokens_of(data: Path, model: str) -> dict[str, Any]:
    """The first rows as the run's own trainer feeds them."""
    from trainer.config import RunConfig
    from trainer.data.masks import masked
    from trainer.data.steps import usual_method

    config = RunConfig(
        task="preview", base_model=model or "starter", train_file=str(data), method=usual_method(data)
    )
    return masked(data, config, PREVIEWED)
