"""On-policy distillation on TRL's DistillationTrainer: the student answers, the teacher corrects each token.

Rows are {"prompt"} messages; answers in them are used for the scores only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer import base
from trainer.config import RunConfig, UserError
from trainer.data.convert import Row
from trainer.methods.arguments import early_stopping, training_arguments
from trainer.methods.kinds import adapter_config, finished


def build(
    config: RunConfig, model: Any, tokenizer: Any, train: list[Row], evaluation: list[Row],
    output: Path, device: str, callbacks: list[Any],
) -> Any:  # fmt: skip
    """A DistillationTrainer. Raises UserError for a teacher of another vocabulary."""
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer

    trainer = DistillationTrainer(
        model=model,
        teacher_model=teacher(config, model, tokenizer, device),
        args=DistillationConfig(
            **training_arguments(config, output, device, len(evaluation)),
            max_completion_length=config.max_new_tokens,
            temperature=config.temperature,
            beta=config.beta,
            chat_template_kwargs={"enable_thinking": False},  # as the run is scored
        ),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in train]),
        eval_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in evaluation])
        if evaluation
        else None,
        peft_config=adapter_config(config),
        callbacks=[*callbacks, *early_stopping(config)],
    )
    return finished(trainer, config)


def teacher(config: RunConfig, model: Any, tokenizer: Any, device: str) -> Any:
    """The teacher, frozen, in the device's own precision (TRL would load a name in float32)."""
    path = base.locate_named(config.teacher_model, "teacher_model")
    found = base.load_model(path, config, device, training=False, quantised=False)
    sizes = [one.config.get_text_config().vocab_size for one in (model, found)]
    if sizes[0] != sizes[1] or base.load_tokenizer(path).get_vocab() != tokenizer.get_vocab():
        raise UserError(
            f"teacher_model {config.teacher_model!r}: its vocabulary ({sizes[1]} entries) is not the student's "
            f"({sizes[0]}); take a teacher of the student's own family"
        )
    return found


def check(config: RunConfig) -> None:
    """Raise UserError without a teacher, and for a beta that is no share."""
    if not config.teacher_model:
        raise UserError("teacher_model is empty: method distillation needs a Hub id or folder of the teacher")
    if (config.beta or 0) > 1:
        raise UserError(
            f"beta = {config.beta:g}: in distillation it is between 0 (forward KL) and 1 (reverse KL)"
        )
