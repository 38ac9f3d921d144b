"""RunConfig as form fields: one component a field, made from its type, limits and description.

The form is a view; what is started is always validated as a RunConfig again.
"""

from __future__ import annotations

import re
import types
import typing
from typing import Any

import gradio as gr

from trainer.config import RunConfig
from trainer.methods import KINDS, METHODS
from ui.i18n import Translate
from ui.render import value_text

GROUPS: dict[str, tuple[str, str]] = {  # group: its first and last field, in RunConfig's order
    "what": ("task", "seed"),
    "starter": ("starter_hidden_size", "starter_vocab_size"),
    "data": ("train_file", "instruction"),
    "tokens": ("max_length", "class_balance"),
    "optimisation": ("learning_rate", "precision"),
    "adapters": ("r", "trained_layers"),
    "preference": ("beta", "simpo_gamma"),
    "sampling": ("rewards", "teacher_model"),
    "evaluation": ("eval_steps", "time_limit_hours"),
    "where": ("device", "offload"),
}
NAMES = list(RunConfig.model_fields)
LISTS = ("rewards", "report_to")


def fields_of(group: str) -> list[str]:
    first, last = GROUPS[group]
    return NAMES[NAMES.index(first) : NAMES.index(last) + 1]


def build(lang: str, t: Translate) -> dict[str, Any]:
    """Make the form inside the current Blocks. Returns {field: component} in RunConfig's order."""
    components: dict[str, Any] = {}
    for group in GROUPS:
        with gr.Accordion(t("group." + group), open=group == "what"), gr.Row(equal_height=True):
            for name in fields_of(group):
                components[name] = component(name, lang)
    return components


def description(name: str, lang: str) -> str:
    field = RunConfig.model_fields[name]
    return field.description or "" if lang == "en" else field.json_schema_extra["zh-TW"]


def component(name: str, lang: str) -> Any:
    """A dropdown for a choice, a checkbox for yes or no, a text box for the rest."""
    field = RunConfig.model_fields[name]
    common = {
        "label": name,
        "info": description(name, lang),
        "elem_id": f"field-{name}-{lang}",
        "min_width": 240,
    }
    default = None if field.is_required() else field.default
    if field.annotation is bool:
        return gr.Checkbox(value=default, **common)
    if found := choices(name, lang):
        return gr.Dropdown(choices=found, value=default, **common)
    # Numbers are typed as text: a browser's number field rounds 2e-4 and has no empty state.
    return gr.Textbox(value=to_text(default), lines=2 if name in LISTS else 1, **common)


def choices(name: str, lang: str) -> list[tuple[str, str]]:
    """(what is shown, value) of a field with a few admitted values, experimental ones marked; [] for free text."""
    mark = {"en": " (experimental)", "zh-TW": "（實驗性）"}[lang]
    if table := {"method": METHODS, "peft": KINDS}.get(name):
        return [(key + mark if entry.status == "experimental" else key, key) for key, entry in table.items()]
    annotation = RunConfig.model_fields[name].annotation
    if typing.get_origin(annotation) is not typing.Literal:
        return []
    return [(value, value) for value in typing.get_args(annotation)]


def to_text(value: Any) -> str:
    """A list is shown one entry a line: a pattern among the rewards may hold a comma."""
    if value is None:
        return ""
    return "\n".join(value) if isinstance(value, list) else value_text(value)


def to_form(run: dict[str, Any]) -> list[Any]:
    """Values for the components, in order, from a run's values."""
    shown = []
    for name, field in RunConfig.model_fields.items():
        value = run.get(name, None if field.is_required() else field.default)
        is_choice = field.annotation is bool or bool(choices(name, "en"))
        shown.append(value if is_choice else to_text(value))
    return shown


def from_form(values: typing.Sequence[Any]) -> dict[str, Any]:
    """A run's values from the components' values; an empty box means the default (None where admitted)."""
    run: dict[str, Any] = {}
    for (name, field), value in zip(RunConfig.model_fields.items(), values, strict=True):
        if isinstance(value, str):
            value = value.strip()
            if value == "" and not _keeps_empty(field.annotation):
                continue
            if name in LISTS or (name == "target_modules" and re.search(r"[,\n]", value)):
                parts = re.split(r"\n" if name in LISTS else r"[,\n]", value)
                value = [part.strip() for part in parts if part.strip()]
        run[name] = value
    return run


def _keeps_empty(annotation: Any) -> bool:
    """Only plain text fields take an empty string as a value; elsewhere it means "not given"."""
    return annotation is str and not isinstance(annotation, types.UnionType)
