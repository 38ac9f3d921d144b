"""RunConfig: the one definition of a run.

From it come run.yaml, the command-line check, the form on the screen, the target of a
recommendation and the worker's input. A field is documented here once, with unit and range.
Importing this costs no torch.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from kb.errors import UserError

Method = Literal["sft", "cpt", "dpo", "orpo", "kto", "simpo", "grpo", "rloo", "reward", "distillation", "classification"]
Peft = Literal["full", "lora", "qlora", "dora"]
STARTER = "starter"
TASK_NAME = re.compile(r"[^\W_][\w-]{0,63}")


class RunConfig(BaseModel):
    """Everything that a training run depends on. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    # what
    task: str = Field(description="task name: letters, digits, - and _; the folder under tasks/")
    method: Method = Field("sft", description="training method")
    peft: Peft = Field("lora", description="which weights are trained: all (full) or adapters")
    base_model: str = Field(description="Hub id, local folder, or 'starter' for a small model made from scratch")
    seed: int = Field(42, ge=0, description="seed of shuffling, initialisation and dropout")

    # starter model, read only when base_model is 'starter'
    starter_hidden_size: int = Field(128, ge=32, le=2048, multiple_of=32, description="hidden size of the starter model")
    starter_layers: int = Field(2, ge=1, le=32, description="transformer blocks of the starter model")
    starter_vocab_size: int = Field(2000, ge=300, le=64000, description="tokenizer entries of the starter model")

    # data
    train_file: str = Field(description="path of the training rows")
    eval_file: str | None = Field(None, description="rows for evaluation while training; None: split from train_file")
    test_file: str | None = Field(None, description="held-out rows for the final score; None: split from train_file")
    eval_fraction: float = Field(0.05, ge=0, le=0.5, description="share of rows split off for evaluation")
    test_fraction: float = Field(0.1, ge=0, le=0.5, description="share of rows split off and frozen for the test")
    system_prompt: str = Field("", description="system message put before every row; empty for none")
    instruction: str = Field("", description="put before the text of text+label rows; empty for none")

    # tokens
    max_length: int = Field(1024, ge=8, le=1_048_576, description="tokens a row; the user's text is cut so that the answer stays")
    loss_on: Literal["completion", "assistant", "all"] = Field(
        "completion", description="tokens that carry loss: the last answer, all assistant turns, or everything"
    )
    packing: bool = Field(False, description="fill rows up to max_length with several examples")

    # optimisation
    learning_rate: float = Field(2e-4, gt=0, le=1, description="peak learning rate")
    lr_scheduler: Literal["linear", "cosine", "constant", "inverse_sqrt"] = Field("linear", description="learning-rate schedule")
    warmup_ratio: float = Field(0.05, ge=0, le=0.5, description="share of the steps in which the rate rises")
    epochs: float = Field(2.0, gt=0, le=1000, description="passes over the training rows")
    max_steps: int = Field(-1, ge=-1, description="optimizer steps; -1 follows epochs")
    batch_size: int = Field(4, ge=1, le=4096, description="rows a step on one device")
    gradient_accumulation: int = Field(4, ge=1, le=4096, description="steps whose gradients are added before an update")
    weight_decay: float = Field(0.0, ge=0, le=1, description="decoupled weight decay")
    max_grad_norm: float = Field(1.0, ge=0, le=1000, description="gradient clipping; 0 for none")
    optim: Literal["adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_8bit"] = Field(
        "adamw_torch_fused", description="optimizer"
    )
    neftune_noise_alpha: float | None = Field(None, ge=0, le=100, description="noise on embeddings while training; None for none")
    gradient_checkpointing: bool = Field(True, description="recompute activations in the backward pass to save memory")
    precision: Literal["auto", "bf16", "fp32"] = Field("auto", description="auto: bf16 where the device has it")

    # adapters, read only when peft is not 'full'
    r: int = Field(16, ge=1, le=1024, description="rank of the adapters")
    lora_alpha: int = Field(32, ge=1, le=4096, description="scale of the adapters; the update is multiplied by alpha / r")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout on the adapters' input")
    target_modules: str | list[str] = Field("all-linear", description="layers that get adapters")
    use_rslora: bool = Field(False, description="scale by alpha / sqrt(r) instead of alpha / r")

    # preference methods
    beta: float = Field(0.1, ge=0, le=100, description="dpo, kto: strength of the pull to the reference; orpo: lambda; simpo: beta")
    simpo_gamma: float = Field(0.5, ge=0, le=10, description="simpo: target margin")

    # evaluation and saving
    eval_steps: int = Field(0, ge=0, description="updates between evaluations; 0: once an epoch")
    save_steps: int = Field(0, ge=0, description="updates between checkpoints; 0: once an epoch")
    save_total_limit: int = Field(2, ge=1, le=100, description="checkpoints kept")
    early_stopping_patience: int = Field(0, ge=0, le=100, description="evaluations without improvement before stopping; 0: never")
    logging_steps: int = Field(5, ge=1, description="updates between points of the curve")
    max_new_tokens: int = Field(32, ge=1, le=32768, description="tokens generated for each test row")

    # where
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="device of the worker")
    threads: int = Field(0, ge=0, le=1024, description="CPU threads of the worker; 0: all cores")

    @field_validator("task")
    @classmethod
    def _task_is_a_folder_name(cls, value: str) -> str:
        if not TASK_NAME.fullmatch(value):
            raise ValueError(
                f"task name {value[:40]!r} must be 1 to 64 letters, digits, '-' or '_', starting with a letter or digit"
            )
        return value

    @model_validator(mode="after")
    def _fields_fit_together(self) -> RunConfig:
        if self.base_model == STARTER and self.peft == "qlora":
            raise ValueError("peft 'qlora' needs a pretrained base_model; the starter model is trained in full")
        return self


def from_dict(values: dict[str, Any], where: str = "run") -> RunConfig:
    """Validate a mapping. Raises UserError that names the field, the value and what is admitted."""
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """First fault of a pydantic error in one line; the number of further ones after it."""
    faults = error.errors()
    first = faults[0]
    name = ".".join(str(part) for part in first["loc"]) or "run"
    if first["type"] == "extra_forbidden":
        text = f"unknown field {name!r}; the fields are: {', '.join(RunConfig.model_fields)}"
    elif first["type"] == "missing":
        text = f"{name} is missing; give it a value"
    else:
        shown = repr(first.get("input"))[:60]
        text = f"{name} = {shown}: {first['msg'].removeprefix('Value error, ')}"
    return text + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else "")


def load(path: Path) -> RunConfig:
    """Read run.yaml. Raises UserError for a missing file, broken YAML (with its line) or a bad value."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `tunesmith runs` lists the runs, `tunesmith new` makes a task") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise UserError(f"{path}:{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}:1: expected `field: value` lines, found {type(values).__name__}")
    # PyYAML reads 1e-4 as text; pydantic turns it into a number by the field's type.
    return from_dict(values, str(path))


def save(config: RunConfig, path: Path) -> None:
    """Write run.yaml in one piece: readers see the old file or the new one, never half."""
    write_atomic(path, yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True))


def write_atomic(path: Path, text: str, sync: bool = True) -> None:
    """Write a text file through a temporary one in the same folder and rename it into place.

    `sync=False` skips the flush to disk, for what is rewritten every second: a reader still sees a whole
    file, only a power cut may lose the last one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
