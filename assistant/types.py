"""What the assistant's functions hand to each other and to the screen. Data only, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Task = Literal[
    "classification", "ner", "extraction", "generation", "summarization", "translation", "chat", "style",
    "domain-knowledge", "code", "reasoning", "tool-use", "preference",
]  # fmt: skip
Decision = Literal["prompt", "collect_data", "rag", "finetune", "rag+finetune"]


@dataclass(frozen=True)
class Hit:
    """A passage found for a question. `score` is the fused one, in 0..1; `sources` are {name, url, date}."""

    id: str
    page: str
    heading: str
    lang: str
    text: str
    score: float
    sources: list[dict[str, str]]
    anchor: str = ""
    source: str = "kb"  # "kb", or the path of the user's own file
    asked: str = ""  # questions that the passage answers, where these were what was found
    parts: list[Hit] = field(
        default_factory=list
    )  # sections of a passage that was widened (passages.py), in reading order


@dataclass(frozen=True)
class Citation:
    """Marker [n] of an answer, the passage it points to and the words that carry the claim.

    `support` is in 0..1: how much of the sentence the passage holds (see citations.py).
    """

    marker: int
    id: str
    page: str
    heading: str
    quote: str
    support: float
    sources: list[dict[str, str]] = field(default_factory=list)
    anchor: str = ""
    lang: str = ""


@dataclass(frozen=True)
class Answer:
    """`text` carries [n] markers, each in `citations`. `unsupported` are sentences that nothing carries."""

    text: str
    citations: list[Citation]
    refused: bool
    backend: str
    seconds: float
    lang: str
    unsupported: list[str] = field(default_factory=list)
    nearest: list[Hit] = field(default_factory=list)
    thinking: str = ""
    unsupported_share: float = 0.0  # of the sentences that claim something, 0 to 1
    error: str = ""  # why a model's answer broke off, or was not to be had; `text` is what there is
    model: str = ""  # name of the model that wrote it
    ask: dict[str, Any] | None = None  # the question put at its end, {"slot", "question", "rule", "citation"}
    filled: dict[str, Any] | None = (
        None  # situation keys that the turn's words filled; None where they were none
    )


class Situation(BaseModel):
    """What a person has and wants. All optional; what is missing is asked for or assumed with a warning."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    task: Task | None = Field(None, description="kind of task")
    language: str | None = Field(
        None, description="main language of the data: zh, zh-TW, zh-CN, en, mixed, …"
    )
    rows: int | None = Field(None, ge=0, description="labelled examples, in rows")
    preference_pairs: int | None = Field(None, ge=0, description="chosen/rejected pairs")
    thumbs_up: int | None = Field(None, ge=0)
    thumbs_down: int | None = Field(None, ge=0)
    verifier_prompts: int | None = Field(None, ge=0, description="prompts whose answer a program can check")
    docs: int | None = Field(None, ge=0, description="documents that hold the knowledge")
    knowledge_update: Literal["static", "weekly", "daily"] | None = None
    avg_tokens: float | None = Field(None, gt=0, description="tokens a row, prompt and completion")
    avg_completion_tokens: float | None = Field(None, gt=0)
    class_ratio: float | None = Field(None, gt=0, description="largest class over smallest class")
    has_cot: bool | None = Field(None, description="answers carry a chain of thought")
    sft_done: bool | None = Field(None, description="the base is already instruction-tuned on this task")
    sensitive: bool | None = Field(None, description="data must not leave the machine")
    gpus: int | None = Field(None, ge=0)
    gpu_vram_gb: float | None = Field(None, ge=0, description="memory of one GPU, GiB")
    gpu_name: str | None = None
    bf16: bool | None = None
    base_model: str | None = Field(None, description="model in use, Hub id, folder, or 'starter'")
    base_model_b: float | None = Field(None, gt=0, description="its size, billions of parameters")
    wanted_model: str | None = None
    wanted_model_b: float | None = Field(None, gt=0)
    wanted_r: int | None = Field(None, ge=1)
    goal: str | None = Field(None, description="free text")
    metric: Literal["accuracy", "macro-f1", "f1", "bleu", "rouge", "exact-match", "perplexity"] | None = (
        Field(None, description="what the result is judged by")
    )
    metric_target: float | None = Field(
        None, gt=0, le=1, description="the score that must be reached, 0 to 1"
    )
    latency_ms: float | None = Field(None, gt=0, description="longest wait for an answer, milliseconds")
    serve_on: Literal["gpu", "cpu", "phone"] | None = Field(None, description="what will serve the result")
    serve_gb: float | None = Field(None, gt=0, description="memory that serving may take, GiB")
    licence: Literal["any", "commercial", "permissive"] | None = Field(
        None, description="commercial: the result is sold; permissive: Apache-2.0 or MIT only"
    )
    deadline_hours: float | None = Field(None, gt=0, description="hours in which the training must end")
    asked: list[str] | None = Field(None, description="keys that were asked for already: not asked again")


@dataclass(frozen=True)
class Reason:
    """Why a field has its value: the rule, its sentence, and where it can be read."""

    field: str
    value: Any
    rule: str
    because: str
    citation: dict[str, Any]  # {"page", "anchor", "sources": [{name, url, date}], "evidence"}
    overruled: list[dict[str, Any]] = field(default_factory=list)  # the losing rules: {rule, value, because}


@dataclass(frozen=True, eq=False)  # told apart by identity: the screen keeps one and asks whether it changed
class Recommendation:
    """A decision and, where it is to train, a run that says why at each field."""

    decision: Decision
    run: dict[str, Any] | None  # a RunConfig as a dict; None when nothing is to be trained
    reasons: dict[str, Reason]
    estimate: dict[str, Any] | None
    warnings: list[str]
    alternatives: list[dict[str, Any]]
    model_b: float | None = None
    memory_gb: float | None = None
    plans: list[dict[str, Any]] = field(default_factory=list)  # safe, recommended, best: what each costs
    ask: dict[str, Any] | None = None  # the one question whose answer would change most
    fixes: list[dict[str, Any]] = field(
        default_factory=list
    )  # where it does not fit: changes that make it fit (fit.py)
    facts: dict[str, Any] = field(
        default_factory=dict, repr=False
    )  # what the rules read, for questions asked later
