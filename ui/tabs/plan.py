"""The Plan tab: data and task in, a recommended run with its reasons out, every value open to change, one button."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from assistant import dialogue, recommend, yours
from assistant.fit import fit
from kb import facts
from kb.errors import UserError
from trainer import calibration, rate, rehearse, runs
from trainer import config as run_config
from trainer.data.read import file_hash
from trainer.jobs import Jobs
from ui import form, render, render_plan
from ui.context import Context
from ui.i18n import Translate
from ui.start import check, start

SUFFIXES = [".jsonl", ".json", ".csv", ".tsv", ".txt"]
POLL_SECONDS = 1.0
NOTHING_TOLD: dict[str, Any] = {
    "values": {},
    "asked": [],
    "goal": "",
}  # slots filled by answers, and for which goal
MOST_FIXES = 5  # buttons that are made; more ways to make a run fit are not offered
FILES = ("train_file", "test_file", "eval_file", "task")  # named by the person in any case


def build(context: Context, lang: str, t: Translate) -> SimpleNamespace:
    page = SimpleNamespace()
    page.plan, page.told, page.fixes = gr.State(None), gr.State(NOTHING_TOLD), gr.State([])
    page.filled = gr.State(0)  # how often the form was filled by a plan
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
            page.rehearse = gr.Button(t("plan.rehearse"), elem_id="rehearse")
            page.where = gr.Dropdown(
                choices=[(t("plan.where_local"), "local"), (t("plan.where_ssh"), "ssh"), ("SLURM", "slurm")],
                value="local",
                label=t("plan.where"),
                info=t("plan.where_info"),
                allow_custom_value=True,
                elem_id="where",
            )
            page.start = gr.Button(t("plan.start"), variant="primary", elem_id="start")
            page.error = gr.HTML()
        with gr.Column(scale=7, min_width=420):
            page.rehearsal = gr.HTML(elem_classes="maybe-empty")
            page.profile = gr.HTML(elem_classes="maybe-empty")
            with gr.Column(visible=False, elem_id="plan-ask") as page.asking:
                page.question = gr.HTML()
                page.answer = gr.Textbox(
                    label=t("plan.answer"), placeholder=t("plan.answer"), show_label=False, container=False, lines=1,
                    elem_id="plan-answer",
                )  # fmt: skip
            page.choice = gr.Radio(
                choices=[(t("plan.preset." + name), name) for name in recommend.PLANS],
                label=t("plan.preset"), visible=False, elem_id="preset",
            )  # fmt: skip
            page.fit = gr.HTML(elem_id="plan-fit", elem_classes="maybe-empty")
            with gr.Row(elem_id="plan-fixes"):
                page.fix = [
                    gr.Button(visible=False, size="sm", elem_id=f"fix-{at}") for at in range(MOST_FIXES)
                ]
            page.yours = gr.HTML(elem_classes="maybe-empty")
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
    def advise(goal: str, file: str | None, path: str, test_path: str, base_model: str, told: dict[str, Any]):
        skip = [gr.skip()] * len(form.NAMES)
        try:
            data = data_path(context, file, path)
            plan, profile = advice(context, lang, goal, data, base_model, test_path, told)
        except UserError as fault:
            return [
                "",
                "",
                render.error(str(fault), lang),
                None,
                gr.skip(),
                gr.Column(visible=False),
                "",
                "",
                *skip,
            ]
        run = run_of(plan.run, data, test_path)
        described = render_plan.profile(profile, lang, t) if profile else ""
        choice = gr.Radio(value="recommended", visible=run is not None)
        asking = gr.Column(visible=plan.ask is not None)
        question = render.question(plan.ask, t)
        return [
            described, render.plan(plan, t, asks=False), "", plan, choice, asking, question, "",
            *(form.to_form(run) if run else skip),
        ]  # fmt: skip

    given = [page.goal, page.file, page.path, page.test_path, page.base_model]
    outputs = [
        page.profile, page.result, page.error, page.plan, page.choice, page.asking, page.question, page.answer,
        *page.fields.values(),
    ]  # fmt: skip

    def afresh(told: dict[str, Any], goal: str, *inputs: Any):
        """Answers belong to the goal that they were given for: another one starts anew."""
        told = told if told["goal"] == goal else {**NOTHING_TOLD, "goal": goal}
        return [told, *advise(goal, *inputs, told)]

    page.recommend.click(afresh, [page.told, *given], [page.told, *outputs], concurrency_limit=2)

    def answered(words: str, plan: Any, told: dict[str, Any], *inputs: Any):
        if plan is None or plan.ask is None or not words.strip():
            return [gr.skip()] * (1 + len(outputs))
        slot = plan.ask["slot"]
        filled = dialogue.fill(slot, words)
        if filled is None:
            said = render.question(plan.ask, t) + render.note(t("plan.answer_not_read"))
            return [gr.skip(), *(said if part is page.question else gr.skip() for part in outputs)]
        told = {**told, "values": told["values"] | filled, "asked": [*told["asked"], slot]}
        return [told, *advise(*inputs, told)]

    page.answer.submit(
        answered, [page.answer, page.plan, page.told, *given], [page.told, *outputs], concurrency_limit=2
    )

    connect_values(lang, t, page)
    connect_starting(context, lang, t, page, runs_page, tabs)


def connect_values(lang: str, t: Translate, page: Any) -> None:
    """The three plans fill the form; what is changed in it by hand is marked before the start."""

    def choose(name: str, plan: Any, *values: Any):
        """Fill the form with one of the three plans; the files and the task's name stay."""
        found = next((item for item in plan.plans if item["name"] == name), None) if plan else None
        if found is None:
            return [gr.skip()] * len(form.NAMES)
        kept = {field: value for field, value in form.from_form(values).items() if field in FILES}
        return form.to_form({**found["run"], **kept})

    fields = list(page.fields.values())
    shown = [page.yours, page.fit, page.fixes, *page.fix]

    def look(plan: Any, *values: Any):
        """What the person changed, whether the values fit, and a button for each change that would make them fit."""
        none = [gr.Button(visible=False)] * MOST_FIXES
        if plan is None or plan.run is None:
            return ["", "", [], *none]
        try:
            wanted = run_config.from_dict(filled_in(form.from_form(values)), t("tab.plan"))
        except UserError as fault:
            return [render.error(str(fault), lang), "", [], *none]
        found = fit(wanted, plan.facts, lang)
        fixes = found.fixes[:MOST_FIXES]
        buttons = [
            gr.Button(value=render_plan.fix_label(fixes[at], t), visible=True)
            if at < len(fixes)
            else none[at]
            for at in range(MOST_FIXES)
        ]
        return [render.yours(reasons_for(plan, wanted, lang), t), render_plan.fit(found, t), fixes, *buttons]

    page.choice.input(choose, [page.choice, page.plan, *fields], fields).then(
        look, [page.plan, *fields], shown, show_progress="hidden"
    )
    for at, button in enumerate(page.fix):

        def change(fixes: list[dict[str, Any]], *values: Any, at: int = at):
            if at >= len(fixes):
                return [gr.skip()] * len(form.NAMES)
            return form.to_form(form.from_form(values) | fixes[at]["change"])

        button.click(change, [page.fixes, *fields], fields).then(
            look, [page.plan, *fields], shown, show_progress="hidden"
        )

    # A value is looked at once it is typed, and once more whenever the form was filled anew.
    typed = [field.blur if isinstance(field, gr.Textbox) else field.input for field in fields]
    gr.on([*typed, page.filled.change], look, [page.plan, *fields], shown, show_progress="hidden")
    # The form has its new values only in the step after the one that brought the plan.
    page.plan.change(lambda count: count + 1, page.filled, page.filled, show_progress="hidden")


def filled_in(values: dict[str, Any]) -> dict[str, Any]:
    """Values that can be looked at before a file was named."""
    return {"task": "task", "train_file": "data.jsonl"} | {
        key: value for key, value in values.items() if value != ""
    }


def connect_starting(context: Context, lang: str, t: Translate, page: Any, runs_page: Any, tabs: Any) -> None:
    """A rehearsal of the form's values, and their run."""

    def wanted_run(values: Any) -> run_config.RunConfig:
        given = form.from_form(values)
        if not given.get("train_file"):
            raise UserError(t("plan.no_file"))
        return run_config.from_dict(given, t("tab.plan"))

    def try_out(*values: Any):
        try:
            wanted = wanted_run(values)
            check(wanted)
            for stage, found in rehearsal(context, wanted):
                if found is None:
                    doing = t("stage." + stage) if stage else t("state.starting")
                    yield render.note(t("plan.rehearsing", stage=doing)), ""
                else:
                    yield render_plan.rehearsal(found, lang, t), ""
        except UserError as fault:
            yield "", render.error(str(fault), lang)

    page.rehearse.click(
        try_out, list(page.fields.values()), [page.rehearsal, page.error], concurrency_limit=1
    )

    def begin(plan: Any, where: str, *values: Any):
        try:
            wanted = wanted_run(values)
            reasons = reasons_for(plan, wanted, lang)
            folder = start(context.home, context.jobs, wanted, reasons, (where or "local").strip())
        except UserError as fault:
            return render.error(str(fault), lang), gr.skip(), gr.skip()
        return render.note(t("plan.started", id=folder.id)), gr.Tabs(selected="runs"), folder.id

    page.start.click(
        begin, [page.plan, page.where, *page.fields.values()], [page.error, tabs, runs_page.wanted]
    )


def rehearsal(context: Context, wanted: run_config.RunConfig) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """(stage, None) while a rehearsal of the run goes on, then ("", its report)."""
    folder = rehearse.begin(context.home.path, wanted)
    board = Jobs(context.home.path / "rehearsals")
    while (status := folder.status())["state"] in runs.ACTIVE:
        yield status["stage"], None
        time.sleep(POLL_SECONDS)
        board.dispatch()
    yield "", rehearse.report(folder)


def data_path(context: Context, file: str | None, path: str) -> Path | None:
    """The data file: an upload is kept under its content's hash, a path is taken as it is."""
    if path.strip():
        return Path(path.strip()).expanduser().absolute()
    if not file:
        return None
    source = Path(file)
    kept = context.home.uploads / f"{file_hash(source)[:12]}-{source.name}"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        building = kept.with_suffix(kept.suffix + ".part")
        shutil.copyfile(source, building)
        building.rename(kept)
    return kept


def advice(
    context: Context, lang: str, goal: str, data: Path | None, base_model: str, test_path: str = "",
    told: dict[str, Any] | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """(recommendation, profile of the data file or None). `told`: slots that were filled by answers."""
    told = told or NOTHING_TOLD
    given = {"base_model": base_model} if base_model else {}
    if not (goal.strip() or data or given):
        raise UserError(
            "描述任務，或提供資料檔。" if lang == "zh-TW" else "Describe the task, or give a data file."
        )
    if goal.strip():
        given["goal"] = goal
    given |= told["values"]
    given["asked"] = told["asked"]
    test = Path(test_path.strip()).expanduser().absolute() if test_path.strip() else None
    home = context.home.path
    return recommend.on_file(
        recommend.situation(given), context.hardware, data, lang, calibration.load(home), test,
        rate.known(home, context.hardware),
    )  # fmt: skip


def run_of(run: dict[str, Any] | None, data: Path | None, test_path: str) -> dict[str, Any] | None:
    """The recommended run with this person's files and a task name in it."""
    if run is None:
        return None
    changes: dict[str, Any] = {"train_file": str(data) if data else ""}
    if test_path.strip():
        changes["test_file"] = str(Path(test_path.strip()).expanduser().absolute())
    if data:
        changes["task"] = task_name(data) or run["task"]
    return {**run, **changes}


def task_name(data: Path) -> str:
    """A task's name from its file: reviews.csv → reviews; reviews/train.csv → reviews, since every task has a train."""
    stem = re.sub(r"^[0-9a-f]{12}-", "", data.stem)
    name = data.parent.name if stem.lower() in ("train", "training", "data", "dataset") else stem
    return re.sub(r"[^\w-]+", "-", name).strip("-_")[:64]


def reasons_for(plan: Any, wanted: run_config.RunConfig, lang: str) -> dict[str, Any]:
    """The advice's reasons as they are frozen with the run; a value changed by the person is theirs.

    A value of the safe or the best plan is that plan's, with its rule.
    """
    if plan is None:
        return {}
    values = wanted.model_dump()
    reasons = recommend.to_json(plan)["reasons"]
    own = yours.yours(values, plan, lang)
    for other in plan.plans:
        if all(values[name] == reason["value"] for name, reason in other["changes"].items()):
            reasons |= other["changes"]
            own = {name: reason for name, reason in own.items() if name not in other["changes"]}
    return reasons | {name: reason for name, reason in own.items() if name not in FILES}
