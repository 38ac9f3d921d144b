"""Reward model: a scalar head that learns to score the better answer higher, on TRL's RewardTrainer.

Rows are {"prompt", "chosen", "rejected"} messages. TRL drops pairs longer than max_length; ours are cut before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.config import RunConfig
from trainer.data.convert import Row
from trainer.methods.arguments import early_stopping, training_arguments
from trainer.methods.kinds import adapter_config, finished


def build(
    config: RunConfig, model: Any, tokenizer: Any, train: list[Row], evaluation: list[Row],
    output: Path, device: str, callbacks: list[Any],
) -> Any:  # fmt: skip
    """A RewardTrainer on a model with one output (base.load_model makes it for this method)."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    model.config.pad_token_id = tokenizer.pad_token_id  # by which the head finds the last word of a row
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            **training_arguments(config, output, device, len(evaluation)), max_length=config.max_length
        ),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(evaluation) if evaluation else None,
        peft_config=adapter_config(config, "SEQ_CLS"),
        callbacks=[*callbacks, *early_stopping(config)],
    )
    return finished(trainer, config)
