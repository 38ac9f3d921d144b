"""METHODS: every training method, one entry a name; KINDS (kinds.py): which weights a run trains.

Adding a method is a file and a line. The file has a `build` with the parameters of those here; it makes the
trainer from `training_arguments(config, …)` and `adapter_config(config)` and ends with `finished(trainer, config)`,
so that every kind of adapter works with it. The line goes into METHODS: the builder, the shape of the rows that it
trains on (data/convert.py lists them), the class underneath, and how settled that class is. What a RunConfig must
not say of the method is told by a `check(config)` in the same file. Then the command line, the form, data staging,
scores and export know it. A row in kb/facts/methods.yaml tells readers when to use it (`tunesmith kb check` asks).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from trainer.config import RunConfig, UserError
from trainer.methods import classify, distillation, preference, reward, rl, sft, unpaired
from trainer.methods.arguments import LOW_RANK
from trainer.methods.kinds import KINDS, Kind

__all__ = ["KINDS", "METHODS", "Kind", "MethodEntry", "check", "require_trainable"]


@dataclass(frozen=True)
class MethodEntry:
    """`build(config, model, tokenizer, train, evaluation, output, device, callbacks)` gives a trainer.

    `shape` is what its rows look like (see data/convert.py), `status` how settled the library class is. `output`:
    what the trained model gives, "text", "labels" (a classification head) or "score" (a reward model's).
    `virtual`: whether prefix, prompt and P-tuning train with it. `reference`: compares with the base model.
    """

    build: Callable[..., Any]
    shape: str
    library: str
    status: str = "stable"
    output: str = "text"
    virtual: bool = True
    reference: bool = False
    check: Callable[[RunConfig], None] = lambda config: None


METHODS: dict[str, MethodEntry] = {
    "sft": MethodEntry(sft.build, "turns", "trl.SFTTrainer", check=sft.check),
    "cpt": MethodEntry(sft.build, "text", "trl.SFTTrainer", check=sft.check),
    "dpo": MethodEntry(preference.build_dpo, "pairs", "trl.DPOTrainer", reference=True),
    "orpo": MethodEntry(preference.build_orpo, "pairs", "trl.experimental.orpo.ORPOTrainer", "experimental", virtual=False),
    "kto": MethodEntry(unpaired.build, "verdicts", "trl.KTOTrainer", reference=True, check=unpaired.check),
    "simpo": MethodEntry(preference.build_simpo, "pairs", "trl.experimental.cpo.CPOTrainer", "experimental", virtual=False),
    "grpo": MethodEntry(rl.build_grpo, "prompts", "trl.GRPOTrainer", virtual=False, check=rl.check),
    "rloo": MethodEntry(rl.build_rloo, "prompts", "trl.RLOOTrainer", virtual=False, check=rl.check),
    "reward": MethodEntry(reward.build, "pairs", "trl.RewardTrainer", output="score", virtual=False),
    "distillation": MethodEntry(distillation.build, "prompts", "trl.DistillationTrainer", virtual=False, check=distillation.check),
    "classify": MethodEntry(classify.build, "turns", "transformers.AutoModelForSequenceClassification", output="labels", virtual=False),
}  # fmt: skip

# Other names under which runs and the advice may know them.
ALSO = {"classification": "classify", "lora+": "loraplus", "p-tuning": "ptuning"}


def known(field: str, name: str) -> str:
    """The key of METHODS or KINDS that `name` stands for. Raises ValueError that lists them."""
    table: dict[str, Any] = METHODS if field == "method" else KINDS
    name = ALSO.get(name, name)
    if name not in table:
        raise ValueError(f"unknown {field}; choose one of: {', '.join(table)}")
    return name


def require_trainable(name: str) -> MethodEntry:
    """The entry of a method. Raises UserError that lists what can be trained."""
    if name not in METHODS:
        raise UserError(f"method = {name!r}: unknown; choose one of: {', '.join(METHODS)}")
    return METHODS[name]


def check(config: RunConfig) -> MethodEntry:
    """The entry of a run's method. Raises UserError for values that do not go together, before anything is loaded."""
    entry, kind = require_trainable(config.method), KINDS[config.peft]
    entry.check(config)
    said = f"peft = {config.peft!r}"
    if kind.virtual and not entry.virtual:
        raise UserError(
            f"{said}: TRL trains method {config.method} without the virtual tokens; set peft to lora"
        )
    if kind.virtual and config.packing:
        raise UserError(
            f"{said}: virtual tokens stand before each row, packed rows share them; set packing to false"
        )
    if config.peft == "prefix" and config.gradient_checkpointing:
        raise UserError(f"{said}: fails with recomputed activations; set gradient_checkpointing to false")
    if kind.moves_base and (entry.reference or (config.method in ("grpo", "rloo") and config.beta)):
        raise UserError(
            f"{said}: the reference of method {config.method} is the base with the adapter switched off, which for "
            f"{config.peft} is another model; set peft to {'qlora' if config.peft == 'loftq' else 'lora'}"
        )
    if "lm_head" in config.target_modules and kind.configure and entry.output == "text":
        raise UserError(
            "target_modules: an adapter on lm_head is never trained, since TRL computes that layer itself; leave it out"
        )
    if config.optim in LOW_RANK:
        package = f"{config.optim.split('_')[0]}_torch"
        if config.peft != "full":
            raise UserError(
                f"optim = {config.optim!r}: projects the gradients of all weights; set peft to full, or optim to adamw_8bit"
            )
        if find_spec(package) is None:
            raise UserError(
                f"optim = {config.optim!r}: {package} is not installed; run: pip install 'tunesmith[optimizers]'"
            )
    if config.class_balance and config.method not in ("sft", "classify"):
        raise UserError(f"class_balance: method {config.method} has no labels to balance; set it to 0")
    return entry
