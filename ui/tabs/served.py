"""Models in Ollama, in the Test tab: what the server holds, and a button that removes one."""

from __future__ import annotations

from html import escape
from types import SimpleNamespace
from typing import Any

import gradio as gr

from kb.errors import UserError
from ui import render
from ui.context import Context
from ui.i18n import Translate


def build(context: Context, lang: str, t: Translate) -> SimpleNamespace:
    page = SimpleNamespace()
    with gr.Accordion(t("served.title"), open=False) as page.panel:
        page.table = gr.HTML("", elem_id="served-models")
        with gr.Row():
            page.model = gr.Dropdown(choices=[], label=t("served.model"), scale=4, elem_id="served-choose")
            page.refresh = gr.Button(t("served.refresh"), scale=0, min_width=130)
            page.remove = gr.Button(
                t("served.remove"), variant="stop", scale=0, min_width=110, elem_id="served-remove"
            )
        gr.Markdown(t("served.replaced"))
    return page


def connect(context: Context, lang: str, t: Translate, page: Any) -> None:
    shown = {"outputs": [page.table, page.model], "show_progress": "hidden"}
    page.panel.expand(lambda: look(context, lang, t), **shown)
    page.refresh.click(lambda: look(context, lang, t), **shown)
    page.remove.click(lambda name: remove(context, lang, t, name), page.model, **shown)


def look(context: Context, lang: str, t: Translate, told: str = "") -> list[Any]:
    """The server's models as a table, and their names to choose from."""
    server = _server(context, lang)
    try:
        models = server.models()
    except UserError as fault:
        return [render.error(str(fault), lang), gr.Dropdown(choices=[], value=None)]
    if not models:
        return [told + render.note(t("served.none", host=server.host)), gr.Dropdown(choices=[], value=None)]
    return [told + table(models, t), gr.Dropdown(choices=[model["name"] for model in models], value=None)]


def remove(context: Context, lang: str, t: Translate, name: str | None) -> list[Any]:
    if not name:
        return [gr.skip(), gr.skip()]
    try:
        _server(context, lang).delete(name)
    except UserError as fault:
        return [render.error(str(fault), lang), gr.skip()]
    return look(context, lang, t, render.note(t("served.removed", name=name)))


def table(models: list[dict[str, Any]], t: Translate) -> str:
    head = "".join(f"<th>{t('served.' + key)}</th>" for key in ("model", "size", "quantization", "changed"))
    body = "".join(
        f"<tr><td>{escape(str(model.get('name', '')))}</td><td>{model.get('size', 0) / 1e9:.2f} GB</td>"
        f"<td>{escape(str((model.get('details') or {}).get('quantization_level', '')))}</td>"
        f"<td>{escape(str(model.get('modified_at', ''))[:16].replace('T', ' '))}</td></tr>"
        for model in models
    )
    return f'<table class="runs"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _server(context: Context, lang: str) -> Any:
    from trainer.export.ollama import Ollama

    return Ollama(context.home.settings().ollama_host, lang)
