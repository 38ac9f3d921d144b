"""A bad answer → likely causes with what was seen of them, then a cited answer of the library. Part of the Test tab."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from assistant import answer as answering
from assistant.why import Case, question, signs
from kb.errors import UserError
from trainer import runs
from trainer.data.stage import thaw
from ui import render, render_test
from ui.context import Context
from ui.i18n import Translate

ANCHOR = 9000  # an answer's number on the page; the Ask tab's own are small


def explain(
    context: Context, lang: str, t: Translate, run_id: str, case: Case | None, page: str
) -> Iterator[str]:
    """HTML: at once what can be seen of the answer and its run, then what the library says."""
    if case is None or not run_id:
        yield render.note(t("why.no_answer"))
        return
    try:
        folder = runs.find(context.home.tasks, run_id)
        staged = thaw(folder.path / "data")
        labels, config = staged.card["labels"] if staged else None, folder.config()
        found = signs(case, config, labels, folder.scores(), report(folder, "parity"))
        shown = render.note(t("why.of", text=" ".join(case.answer.split())[:60] or "–")) + render_test.causes(found, lang, t)  # fmt: skip
        yield shown + render.note(t("why.asking"))
        asked = question(found, config, lang)
        said = answering.ask(context.index, asked, lang=lang, settings=context.home.settings())
        yield f'{shown}<div class="card"><p><b>{t("why.library")}</b> {asked}</p>{render.answer(said, ANCHOR, t)}</div>'
    except UserError as fault:
        yield render.error(str(fault), lang)


def report(folder: Any, name: str) -> dict[str, Any] | None:
    """A report of the export; None where there is none."""
    try:
        return json.loads((folder.path / "export" / f"{name}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
