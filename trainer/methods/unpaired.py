"""KTO: training on single answers that a person called good or bad, on TRL's KTOTrainer.

Rows are {"prompt", "completion"} messages with a "label", true or false.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.config import RunConfig, UserError
from trainer.data.convert import Row
from trainer.methods.arguments import early_stopping, training_arguments
from trainer.methods.kinds import adapter_config, finished
from trainer.methods.preference import reference


def build(
    config: RunConfig, model: Any, tokenizer: Any, train: list[Row], evaluation: list[Row],
    output: Path, device: str, callbacks: list[Any],
) -> Any:  # fmt: skip
    """A KTOTrainer whose weights balance thumbs up and down."""
    from datasets import Dataset
    from trl import KTOConfig, KTOTrainer

    good, bad = class_weights(train)
    arguments = KTOConfig(
        **training_arguments(config, output, device, len(evaluation)),
        max_length=config.max_length,
        beta=config.beta,
        desirable_weight=good,
        undesirable_weight=bad,
    )
    trainer = KTOTrainer(
        model=model,
        ref_model=reference(config, model, device),
        args=arguments,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(train),
        eval_dataset=Dataset.from_list(evaluation) if evaluation else None,
        peft_config=adapter_config(config),
        callbacks=[*callbacks, *early_stopping(config)],
    )
    return finished(trainer, config)


def check(config: RunConfig) -> None:
    """The loss compares a batch's answers with shuffled prompts of the same batch, so one row is not enough."""
    if config.batch_size < 2:
        raise UserError(
            "batch_size = 1: method kto compares rows of a batch; set batch_size to 2 or more (4 is usual)"
        )


def class_weights(rows: list[Row]) -> tuple[float, float]:
    """Weights of good and bad answers, of which the larger is what makes both sides count alike.

    KTO (arXiv 2402.01306, section 4.2): weight × number of both sides between 1:1 and 4:3.
    """
    good = sum(row["label"] for row in rows)
    bad = len(rows) - good
    if not good or not bad or 3 * max(good, bad) <= 4 * min(good, bad):
        return 1.0, 1.0
    return (bad / good, 1.0) if good < bad else (1.0, good / bad)
