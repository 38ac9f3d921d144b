"""The Data tab: a file in, every fault named with its remedy as a button, the tokens that are trained shown."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from kb.errors import UserError
from ui import render, render_data
from ui.context import Context
from ui.i18n import Translate
from ui.tabs import data_import
from ui.tabs.plan import base_models, data_path

PREVIEWED = 3
# button → what a finding's command must hold for the button to be offered
FIXES = {"repair": "data repair", "dedupe": "data dedupe", "redact": "data redact", "traditional": "--script"}


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
            page.fixes = {
                name: gr.Button(t("data." + name), visible=False, elem_id=f"room-{name}") for name in FIXES
            }
            page.model = gr.Dropdown(
                choices=base_models(t)[1:], value="starter", label=t("data.model"), allow_custom_value=True, visible=False
            )  # fmt: skip
            page.preview = gr.Button(t("data.preview"), visible=False, elem_id="room-preview")
            page.plan = gr.Button(t("data.plan"), visible=False, elem_id="room-plan")
            page.bring = data_import.build(context, lang, t)
        with gr.Column(scale=7, min_width=420):
            page.error = gr.HTML()  # at the top: below the buttons it would be out of sight
            page.made = gr.HTML()
            page.result = gr.HTML(render.note(t("data.empty")))
            page.tokens = gr.HTML()
    return page


def connect(context: Context, lang: str, t: Translate, page: Any, plan_page: Any, tabs: Any) -> None:
    shown = [
        page.result,
        page.error,
        page.made,
        page.tokens,
        page.current,
        *page.fixes.values(),
        page.model,
        page.preview,
        page.plan,
    ]

    def look(data: Path | None, against: str, said: str = "", progress: Any = None) -> list[Any]:
        """What stands on the page once a file is checked."""
        try:
            if data is None:
                raise UserError(t("data.none"))
            measured = examine(data, against, progress)
        except UserError as fault:
            # what stood there was of another file
            hidden = [gr.update(visible=False)] * (len(shown) - 5)
            return ["", render.error(str(fault)), "", "", "", *hidden]
        offered = [gr.Button(visible=fits(name, measured)) for name in FIXES]
        rest = [gr.Dropdown(visible=True), gr.Button(visible=True), gr.Button(visible=True)]
        return [render_data.checked(measured, lang, t), "", said, "", str(data), *offered, *rest]

    def check(file: str | None, path: str, against: str, progress: Any = gr.Progress()):
        return look(data_path(context, file, path), against, progress=progress)

    inputs = [page.file, page.path, page.against]
    page.check.click(check, inputs, shown, concurrency_limit=1)
    page.file.upload(check, inputs, shown, concurrency_limit=1)

    def brought(made: str, against: str):
        return look(Path(made), against) if made else [gr.skip()] * len(shown)

    data_import.connect(context, lang, t, page.bring).then(brought, [page.bring.made, page.against], shown)

    def fix(name: str, current: str, against: str):
        try:
            made = mend(name, Path(current), context.home.uploads, against)
        except UserError as fault:
            return [gr.skip(), render.error(str(fault)), *[gr.skip()] * (len(shown) - 2)]
        return look(made, against, render.note(t("data.made", name=made.name)))

    for name, button in page.fixes.items():
        button.click(
            lambda current, against, n=name: fix(n, current, against), [page.current, page.against], shown
        )

    def preview(current: str, model: str):
        try:
            return render_data.masks(tokens_of(Path(current), model), t), ""
        except UserError as fault:
            return "", render.error(str(fault))

    page.preview.click(preview, [page.current, page.model], [page.tokens, page.error], concurrency_limit=1)
    onward = lambda current, against: (current, against, gr.Tabs(selected="plan"))
    page.plan.click(onward, [page.current, page.against], [plan_page.path, plan_page.test_path, tabs])


def examine(data: Path, against: str, progress: Any = None) -> Any:
    """The checked file; `progress` is told the share that was read."""
    from trainer.data import check

    size, done = data.stat().st_size if data.is_file() else 1, 0

    def seen(read: int) -> None:
        nonlocal done
        done += read
        if progress is not None:
            progress(done / max(size, 1))

    held_out = Path(against.strip()).expanduser() if against.strip() else None
    return check(data, held_out, seen=seen)


def fits(name: str, measured: Any) -> bool:
    """Whether some finding's command is what the button does."""
    return any(FIXES[name] in (finding.command or "") for finding in measured.findings)


def mend(name: str, data: Path, folder: Path, against: str) -> Path:
    """The new file; what was done stands in data_source.yaml beside it."""
    from trainer.data import convert_file, dedupe_file, redact_file, repair_file

    out = folder / f"{data.stem}-{name}.jsonl"
    if name == "repair":
        repair_file(data, out)
    elif name == "dedupe":
        dedupe_file(
            data, out, near=True, against=Path(against.strip()).expanduser() if against.strip() else None
        )
    elif name == "redact":
        redact_file(data, out)
    else:
        convert_file(data, out, "traditional")
    return out


def tokens_of(data: Path, model: str) -> dict[str, Any]:
    """The first rows as the run's own trainer feeds them."""
    from trainer.config import RunConfig
    from trainer.data.masks import masked
    from trainer.data.steps import usual_method

    config = RunConfig(
        task="preview", base_model=model or "starter", train_file=str(data), method=usual_method(data)
    )
    return masked(data, config, PREVIEWED)
