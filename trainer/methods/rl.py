"""Training on rewards: GRPO and RLOO on TRL's stable trainers. The model answers, `rewards` judge the answers.

Rows are {"prompt"} messages, with the right answer as "completion" where there is one (see rewards.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.base import uses_bf16
from trainer.config import RunConfig, UserError
from trainer.data.convert import Row
from trainer.methods import rewards
from trainer.methods.arguments import early_stopping, training_arguments
from trainer.methods.kinds import adapter_config, finished


def build_grpo(
    config: RunConfig, model: Any, tokenizer: Any, train: list[Row], evaluation: list[Row],
    output: Path, device: str, callbacks: list[Any],
) -> Any:  # fmt: skip
    """A GRPOTrainer; with beta 0, TRL's default, no reference model is loaded."""
    from trl import GRPOConfig, GRPOTrainer

    return _build(
        GRPOConfig, GRPOTrainer, config, model, tokenizer, train, evaluation, output, device, callbacks
    )


def build_rloo(
    config: RunConfig, model: Any, tokenizer: Any, train: list[Row], evaluation: list[Row],
    output: Path, device: str, callbacks: list[Any],
) -> Any:  # fmt: skip
    """An RLOOTrainer: each answer against the mean of the others to its prompt."""
    from trl import RLOOConfig, RLOOTrainer

    return _build(
        RLOOConfig, RLOOTrainer, config, model, tokenizer, train, evaluation, output, device, callbacks
    )


def check(config: RunConfig) -> None:
    """Raise UserError for a batch that holds no whole groups of answers, and for rewards that cannot be computed."""
    together = config.batch_size * config.gradient_accumulation
    if together % config.num_generations:
        raise UserError(
            f"num_generations = {config.num_generations}: batch_size × gradient_accumulation is {together}, which must "
            f"be a multiple of it; set gradient_accumulation or num_generations"
        )
    rewards.parse(config.rewards)


def _build(
    config_class: Any, trainer_class: Any, config: RunConfig, model: Any, tokenizer: Any,
    train: list[Row], evaluation: list[Row], output: Path, device: str, callbacks: list[Any],
) -> Any:  # fmt: skip
    from datasets import Dataset

    judges = rewards.parse(config.rewards)
    rewards.require_references(judges, [*train, *evaluation])
    group = config.num_generations
    arguments = training_arguments(config, output, device, len(evaluation))
    arguments["per_device_eval_batch_size"] = max(1, config.batch_size // group) * group
    if config.keeps_whole_model and uses_bf16(config, device):
        # For the reference alone, which TRL would load in the dtype of the trained weights, float32.
        arguments["model_init_kwargs"] = {"dtype": "bfloat16"}
    trainer = trainer_class(
        model=model,
        reward_funcs=[judge.for_trl(rewards.labels_of(train)) for judge in judges],
        args=config_class(
            **arguments,
            num_generations=group,
            max_completion_length=config.max_new_tokens,
            temperature=config.temperature,
            beta=config.beta,
            reward_weights=[judge.weight for judge in judges],
            chat_template_kwargs={"enable_thinking": False},  # as the run is scored
        ),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([_as_trl(row) for row in train]),
        eval_dataset=Dataset.from_list([_as_trl(row) for row in evaluation]) if evaluation else None,
        peft_config=adapter_config(config),
        callbacks=[*callbacks, *early_stopping(config)],
    )
    return finished(trainer, config)


def _as_trl(row: Row) -> Row:
    return {"prompt": row["prompt"], "reference": rewards.reference_of(row)}
