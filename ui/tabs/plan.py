"""The Plan tab: data and task in, a recommended run with its reasons out, every value open to change, one button."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from assistant import recommend
from kb import facts
from kb.errors import UserError
from trainer import config as run_config
from ui import form, render
from ui.context import Context
from ui.i18n import Translate
from ui.start import start

SUFFIXES = [".jsonl", ".json", ".csv", ".tsv", ".txt"]


def build(context: Context, lang: str, t: Translate) -> SimpleNamespace:
    page = SimpleNamespace()
    page.plan = gr.State(None)
    with gr.Row():
        with gr.Column(scale=4, min_width=320):
            page.goal = gr.Textbox(label=t("plan.goal"), lines=3, elem_id="goal")
            page.file = gr.File(
                label=t("plan.file"), file_types=SUFFIXES, type="filepath", height=120, elem_id="data-file"
            )
            page.path = gr.Textbox(label=t("plan.path"), elem_id="data-path")
            page.test_path = gr.Textbox(label=t("plan.test_path"), elem_id="test-path")
            page.base_model = gr.Dropdown(
                choices=base_models(t),
                value="",
                label=t("plan.base_model"),
                allow_custom_value=True,
                elem_id="base-model",
            )
            gr.Markdown(f"{t('plan.hardware')}: {machine(context, t)}")
            page.recommend = gr.Button(t("plan.recommend"), elem_id="recommend")
            page.start = gr.Button(t("plan.start"), variant="primary", elem_id="start")
            page.error = gr.HTML()
        with gr.Column(scale=7, min_width=420):
            page.profile = gr.HTML()
            page.result = gr.HTML(render.note(t("plan.empty", button=t("plan.recommend"))))
    with gr.Accordion(t("plan.values"), open=False):
        page.fields = form.build(lang, t)
    return page


def base_models(t: Translate) -> list[tuple[str, str]]:
    """Choices of the base model: let Tunesmith choose, the starter model, then the table's models by size."""
    cards = sorted(
        (card for card in facts.table("models") if not card.superseded_by), key=lambda card: card.params_b
    )
    return [
        (t("plan.base_auto"), ""),
        (t("plan.base_starter"), run_config.STARTER),
        *((f"{card.name} ({card.params_b:g} B)", card.hub_id) for card in cards),
    ]


def machine(context: Context, t: Translate) -> str:
    hardware = context.hardware
    gpus = ", ".join(f"{gpu.name} {gpu.memory_gb:.0f} GB" for gpu in hardware.gpus) or t("no_gpu")
    return t(
        "hardware",
        gpus=gpus,
        cores=hardware.cpu_cores,
        ram=round(hardware.ram_gb),
        disk=round(hardware.disk_free_gb),
    )


def connect(context: Context, lang: str, t: Translate, page: Any, runs_page: Any, tabs: Any) -> None:
    def advise(goal: str, file: str | None, path: str, test_path: str, base_model: str):
        skip = [gr.skip()] * len(form.NAMES)
        try:
            data = data_path(context, file, path)
            plan, profile = advice(context, lang, goal, data, base_model)
        except UserError as fault:
            return ["", "", render.error(str(fault)), None, *skip]
        run = run_of(plan, goal, data, test_path)
        described = render.profile(profile, lang, t) if profile else ""
        return [described, render.plan(plan, t), "", plan, *(form.to_form(run) if run else skip)]

    inputs = [page.goal, page.file, page.path, page.test_path, page.base_model]
    outputs = [page.profile, page.result, page.error, page.plan, *page.fields.values()]
    page.recommend.click(advise, inputs, outputs, concurrency_limit=2)

    def begin(plan: Any, *values: Any):
        try:
            given = form.from_form(values)
            if not given.get("train_file"):
                raise UserError(t("plan.no_file"))
            wanted = run_config.from_dict(given, t("tab.plan"))
            folder = start(context.home, context.jobs, wanted, reasons_for(plan, wanted))
        except UserError as fault:
            return render.error(str(fault)), gr.skip(), gr.skip()
        return render.note(t("plan.started", id=folder.id)), gr.Tabs(selected="runs"), folder.id

    page.start.click(begin, [page.plan, *page.fields.values()], [page.error, tabs, runs_page.wanted])


def data_path(context: Context, file: str | None, path: str) -> Path | None:
    """The data file: an upload is kept under its content's hash, a path is taken as it is."""
    if path.strip():
        return Path(path.strip()).expanduser().absolute()
    if not file:
        return None
    source = Path(file)
    with source.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()[:12]
    kept = context.home.uploads / f"{digest}-{source.name}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        building = kept.with_suffix(kept.suffix + ".part")
        shutil.copyfile(source, building)
        building.rename(kept)
    return kept


def advice(context: Context, lang: str, goal: str, data: Path | None, base_model: str) -> tuple[Any, Any]:
    """(recommendation, profile of the data file or None)."""
    given = {"base_model": base_model} if base_model else {}
    if not (goal.strip() or data or given):
        raise UserError(
            "描述任務，或提供資料檔。" if lang == "zh-TW" else "Describe the task, or give a data file."
        )
    profile = None
    if data:
        from trainer.data import profile as measure

        profile = measure(data)
    if goal.strip():
        given["goal"] = goal
    return recommend.recommend(recommend.situation(given), context.hardware, profile, lang), profile


def run_of(plan: Any, goal: str, data: Path | None, test_path: str) -> dict[str, Any] | None:
    """The recommended run with this person's files and a task name in it."""
    if plan.run is None:
        return None
    changes: dict[str, Any] = {"train_file": str(data) if data else ""}
    if test_path.strip():
        changes["test_file"] = str(Path(test_path.strip()).expanduser().absolute())
    if data:
        changes["task"] = task_name(data) or plan.run["task"]
    return {**plan.run, **changes}


def task_name(data: Path) -> str:
    """A task's name from its file: reviews.csv → reviews; reviews/train.csv → reviews, since every task has a train."""
    stem = re.sub(r"^[0-9a-f]{12}-", "", data.stem)
    name = data.parent.name if stem.lower() in ("train", "training", "data", "dataset") else stem
    return re.sub(r"[^\w-]+", "-", name).strip("-_")[:64]


def reasons_for(plan: Any, wanted: run_config.RunConfig) -> dict[str, Any]:
    """The advice's reasons as they are frozen with the run; a value changed by the person is theirs."""
    if plan is None:
        return {}
    reasons = recommend.to_json(plan)["reasons"]
    for name, reason in reasons.items():
        value = getattr(wanted, name, None)
        advised = (plan.run or {}).get(name)
        if name in form.NAMES and value != advised:
            reasons[name] = {
                "rule": "user",
                "because": f"set by the user; advised was {advised}",
                "citation": reason["citation"],
            }
    return reasons
