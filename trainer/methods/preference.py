"""Training on pairs of answers: DPO on TRL's stable trainer, ORPO and SimPO on its experimental ones.

Rows are {"prompt", "chosen", "rejected"} messages.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from trainer.base import load_model
from trainer.config import RunConfig
from trainer.data.convert import Row
from trainer.methods.arguments import early_stopping, training_arguments
from trainer.methods.kinds import adapter_config, finished


def build_dpo(
    config: RunConfig, model: Any, tokenizer: Any, train: list[Row], evaluation: list[Row],
    output: Path, device: str, callbacks: list[Any],
) -> Any:  # fmt: skip
    """A DPOTrainer; `beta` pulls to the reference, which is the base model itself.

    TRL mixes losses as lists: DPO + SFT is ["sigmoid", "sft"] with weights (there is no `sft_weight` in it).
    """
    from trl import DPOConfig, DPOTrainer

    mixed = config.sft_weight > 0
    arguments = DPOConfig(
        **training_arguments(config, output, device, len(evaluation)),
        max_length=config.max_length,
        beta=config.beta,
        loss_type=[config.loss_type, "sft"] if mixed else [config.loss_type],
        loss_weights=[1.0, config.sft_weight] if mixed else None,
        label_smoothing=0.1 if config.loss_type == "robust" else 0.0,  # the share of swapped pairs it expects
    )
    more = {"ref_model": reference(config, model, device)}
    return _trainer(DPOTrainer, arguments, config, model, tokenizer, train, evaluation, callbacks, **more)


def reference(config: RunConfig, model: Any, device: str) -> Any:
    """The frozen base beside a model that is trained whole; None where an adapter is switched off instead.

    TRL would load it again in the dtype of the trained weights, float32: twice what it needs.
    """
    return (
        load_model(Path(model.config._name_or_path), config, device, training=False)
        if config.keeps_whole_model
        else None
    )


def build_orpo(
    config: RunConfig, model: Any, tokenizer: Any, train: list[Row], evaluation: list[Row],
    output: Path, device: str, callbacks: list[Any],
) -> Any:  # fmt: skip
    """An ORPOTrainer; its `beta` is the paper's lambda. No reference model."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    arguments = ORPOConfig(
        **training_arguments(config, output, device, len(evaluation)),
        max_length=config.max_length,
        beta=config.beta,
    )
    return _trainer(ORPOTrainer, arguments, config, model, tokenizer, train, evaluation, callbacks)


def build_simpo(
    config: RunConfig, model: Any, tokenizer: Any, train: list[Row], evaluation: list[Row],
    output: Path, device: str, callbacks: list[Any],
) -> Any:  # fmt: skip
    """SimPO: TRL's CPOTrainer with its loss and no imitation term. No reference model."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    arguments = CPOConfig(
        **training_arguments(config, output, device, len(evaluation)),
        max_length=config.max_length,
        beta=config.beta,
        loss_type="simpo",
        cpo_alpha=0.0,
        simpo_gamma=config.simpo_gamma,
    )
    return _trainer(CPOTrainer, arguments, config, model, tokenizer, train, evaluation, callbacks)


def _trainer(
    trainer_class: Any, arguments: Any, config: RunConfig, model: Any, tokenizer: Any,
    train: list[Row], evaluation: list[Row], callbacks: list[Any], **more: Any,
) -> Any:  # fmt: skip
    from datasets import Dataset

    trainer = trainer_class(
        model=model,
        args=arguments,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(evaluation) if evaluation else None,
        peft_config=adapter_config(config),
        callbacks=[*callbacks, *early_stopping(config)],
        **more,
    )
    return finished(trainer, config)
