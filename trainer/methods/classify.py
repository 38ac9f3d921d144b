"""Classification head: the model ends in one output a label, trained by transformers' own Trainer.

Rows are {"prompt", "completion"} messages whose answers are labels; the head reads the prompt's plain text, so the
base may be an encoder without a chat template. Often the better answer for plain classification.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.config import RunConfig, UserError
from trainer.data.convert import Row
from trainer.methods.arguments import early_stopping, training_arguments
from trainer.methods.kinds import KINDS, adapter_config, finished
from trainer.methods.sampling import balanced


def build(
    config: RunConfig, model: Any, tokenizer: Any, train: list[Row], evaluation: list[Row],
    output: Path, device: str, callbacks: list[Any],
) -> Any:  # fmt: skip
    """A Trainer on a model whose config names the labels (base.load_model makes it for this method)."""
    from datasets import Dataset
    from peft import get_peft_model
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    model.config.pad_token_id = tokenizer.pad_token_id  # by which the head finds the last word of a row
    numbers = model.config.label2id
    if strange := {row["completion"][-1]["content"] for row in evaluation} - numbers.keys():
        raise UserError(f"eval_file: label {sorted(strange)[0]!r} is not in the training rows; mend the file")
    if KINDS[config.peft].configure:
        model = get_peft_model(model, adapter_config(config, "SEQ_CLS"))

    def tokens(rows: list[Row]) -> Any:
        made = tokenizer([text_of(row) for row in rows], truncation=True, max_length=config.max_length)
        labels = [numbers[row["completion"][-1]["content"]] for row in rows]
        return Dataset.from_dict({**made, "labels": labels})

    arguments = training_arguments(config, output, device, len(evaluation))
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**arguments),
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=tokens(train),
        eval_dataset=tokens(evaluation) if evaluation else None,
        processing_class=tokenizer,
        compute_metrics=_measures,
        callbacks=[*callbacks, *early_stopping(config)],
    )
    if config.class_balance:
        balanced(trainer, [row["completion"][-1]["content"] for row in train], config)
    return finished(trainer, config)


def text_of(row: Row) -> str:
    """What the head reads of a row: its messages' texts, without a chat template."""
    return "\n".join(message["content"] for message in row["prompt"])


def _measures(found: Any) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    predicted = found.predictions.argmax(-1)
    return {
        "accuracy": float(accuracy_score(found.label_ids, predicted)),
        "macro_f1": float(f1_score(found.label_ids, predicted, average="macro", zero_division=0)),
    }
