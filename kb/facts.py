"""The tables under kb/facts, typed: one row, one fact, each with where it comes from.

Pages render their tables from these rows and the advice decides by them, so that the two
cannot disagree. Read by ingest, trainer and assistant; checked by `tunesmith kb check`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

FACTS_DIR = Path(__file__).parent / "facts"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C parser is about ten times faster

Evidence = Literal["measured", "primary", "secondary", "heuristic"]


class Row(BaseModel):
    """Base of all rows: an unknown key is an error, so a typo cannot pass for a fact."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Text(Row):
    """One sentence or term in the two languages of the screen."""

    en: str
    zh_TW: str = Field(alias="zh-TW")

    def get(self, lang: str) -> str:
        return self.en if lang == "en" else self.zh_TW


class Source(Row):
    """Where a fact was read: `date` is the date of the copy that was read."""

    key: str
    name: str
    url: str
    date: date


class Rule(Row):
    """`when` all conditions hold, `set` these RunConfig or decision fields, `because`.

    `when` maps a fact (a Situation key, an already decided field, a property of the chosen
    model) to a value, a list of admitted values, or {min, max, lt, gt}. In `set`, a string
    that starts with "=" is arithmetic over facts, for example "=2*r". `range` is what the
    screen accepts without a warning. The highest `priority` wins; the losers are shown.
    """

    id: str
    when: dict[str, Any] = {}
    set: dict[str, Any]
    range: dict[str, list[float]] = {}
    priority: int = 0
    because: Text
    page: str
    sources: list[str]
    evidence: Evidence


class ModelCard(Row):
    """A base model with the sizes that memory arithmetic needs. Sizes are parameters in billions."""

    id: str
    name: str
    family: str
    architecture: str
    hub_id: str
    ollama_tag: str | None = None
    params_b: float
    active_b: float | None = None
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool
    experts: int = 0
    experts_per_token: int = 0
    expert_ffn: int = 0
    context: int
    licence: str
    languages: list[str]
    good_for: list[str]
    kind: Literal["base", "instruct", "hybrid", "reasoning"]
    thinking: Literal["none", "switchable", "always"] = "none"
    released: date
    gguf: bool = True
    superseded_by: str | None = None
    note: Text | None = None
    sources: list[str]


class Method(Row):
    """A training method: what data it needs and which library class runs it."""

    id: str
    name: Text
    needs: Text
    library: str
    status: Literal["stable", "experimental"]
    reference_model: bool
    page: str
    sources: list[str]


class Measure(Row):
    """A number that can be computed from a run folder; `source` is the file there that holds it."""

    id: str
    text: Text
    unit: str
    source: str = Field(alias="from")


class Signal(Row):
    """How a symptom shows. `when` holds conditions on measures, written as in Rule.when; all must hold."""

    text: Text
    when: dict[str, Any] = {}


class Symptom(Row):
    """What goes wrong in a run, why, and which RunConfig fields to change, best first."""

    id: str
    name: Text
    signals: list[Signal]
    causes: list[Text]
    remedies: list[Remedy]
    page: str
    sources: list[str]


class Remedy(Row):
    text: Text
    change: dict[str, Any] = {}
    effect: Literal["high", "medium", "low"]
    cost: Literal["high", "medium", "low"]


class Gpu(Row):
    """`memory_gb` as sold (GiB of the card), `bandwidth_gbs` in GB/s, `bf16_tflops` dense, null where absent."""

    id: str
    name: str
    memory_gb: float
    bandwidth_gbs: float
    bf16_tflops: float | None
    bf16: bool
    fp8: bool
    kind: Literal["consumer", "workstation", "datacenter"]
    sources: list[str]


class Dataset(Row):
    """A public data set: `rows` by split, `format` by the name that the data check gives it."""

    id: str
    name: str
    task: Literal[
        "classification", "ner", "extraction", "generation", "summarization", "translation", "chat", "style",
        "domain-knowledge", "code", "reasoning", "tool-use", "preference", "benchmark", "pretraining",
    ]  # fmt: skip
    languages: list[str]
    rows: dict[str, int]
    format: Literal[
        "alpaca", "sharegpt", "messages", "conversations", "prompt+completion", "text+label", "text+spans", "bio",
        "preference", "kto", "tool-calls", "question+answer", "multiple-choice", "text", "parallel",
    ]  # fmt: skip
    licence: str
    url: str
    hub_id: str | None = None
    note: Text | None = None
    sources: list[str]


class Licence(Row):
    """A base model's licence and what it asks of a model made from it that is handed on.

    `name_begins`: how that model's name must begin; `shows`: a line that must be seen; `notice`: the text of a
    NOTICE file; `passes_on`: use restrictions that bind the next one too; `commercial`: false where business use
    is ruled out. `also` holds other spellings, in lower case.
    """

    id: str
    name: str
    also: list[str] = []
    hub: str
    url: str
    name_begins: str | None = None
    shows: str | None = None
    notice: str | None = None
    passes_on: bool = False
    commercial: bool
    page: str
    sources: list[str]


class Term(Row):
    """A glossary entry. `also` holds other spellings that searchers use; `group` is its section of guides/glossary."""

    en: str
    zh_TW: str = Field(alias="zh-TW")
    zh_CN: str = Field(alias="zh-CN")
    also: list[str] = []
    group: Literal[
        "training", "adapters", "alignment", "architecture", "tokens", "data", "tasks", "evaluation", "rag", "inference",
        "quantization", "hardware", "tools", "computing",
    ]  # fmt: skip


TABLES: dict[str, type[Row]] = {
    "sources": Source,
    "rules": Rule,
    "models": ModelCard,
    "methods": Method,
    "measures": Measure,
    "symptoms": Symptom,
    "gpus": Gpu,
    "datasets": Dataset,
    "licences": Licence,
    "glossary": Term,
}
_LOADED: dict[tuple[str, Path], Mapping[str, Any]] = {}
ID = {"sources": "key", "glossary": "en"}  # the field that names a row; elsewhere it is `id`


def table(name: str, directory: Path = FACTS_DIR) -> tuple[Any, ...]:
    """All rows of one table, validated, read once. Raises pydantic.ValidationError on a bad row.

    `kb.check` tells the same faults with their lines.
    """
    return tuple(by_id(name, directory).values())


def by_id(name: str, directory: Path = FACTS_DIR) -> Mapping[str, Any]:
    """Rows of a table by their id (sources by key, glossary by the English term); read-only."""
    if (name, directory) not in _LOADED:
        values = parse((directory / f"{name}.yaml").read_text(encoding="utf-8"))[1] or []
        remember(name, directory, [TABLES[name].model_validate(value) for value in values])
    return _LOADED[name, directory]


def remember(name: str, directory: Path, rows: list[Any]) -> None:
    """Keep the rows of a table as read just now; `kb.check` does so too, hence never compares with old ones."""
    _LOADED[name, directory] = MappingProxyType({getattr(row, ID.get(name, "id")): row for row in rows})


def parse(text: str) -> tuple[yaml.Node | None, Any]:
    """YAML text read once, as nodes (which know their lines) and as values. Raises yaml.YAMLError."""
    loader = LOADER(text)
    try:
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()
