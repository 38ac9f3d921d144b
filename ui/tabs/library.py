"""The Library tab: a shell into which the script of ui/library.js brings tree, pages and search results."""

from __future__ import annotations

from html import escape
from types import SimpleNamespace

import gradio as gr

from ui import library
from ui.context import Context
from ui.i18n import Translate


def build(context: Context, lang: str, t: Translate) -> SimpleNamespace:
    gr.HTML(
        f'<div class="library" data-lang="{lang}"><aside>'
        f'<input type="search" placeholder="{escape(t("library.search"))}" aria-label="{escape(t("library.search"))}">'
        f"{library.tree(lang)}</aside>"
        f'<section aria-live="polite"><p class="note">{t("library.empty")}</p></section></div>',
        elem_id="library",
    )
    return SimpleNamespace()
