"""Supervised fine-tuning and continued pre-training on TRL's SFTTrainer.

Rows are {"prompt", "completion"} messages, or {"text"}; TRL renders them with the model's chat template.
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
    config: RunConfig,
    model: Any,
    tokenizer: Any,
    train: list[Row],
    evaluation: list[Row],
    output: Path,
    device: str,
    callbacks: list[Any],
) -> Any:
    """An SFTTrainer ready to train. `train` and `evaluation` fit max_length already (see data/tokens.py)."""
    from datasets import Dataset
    from trl import SFTConfig

    if config.loss_on == "assistant" and config.method == "sft":
        _require_markers(tokenizer)
    arguments = SFTConfig(
        **training_arguments(config, output, device, len(evaluation)),
        max_length=config.max_length,
        packing=config.packing,
        completion_only_loss=config.loss_on == "completion" and config.method != "cpt",
        assistant_only_loss=config.loss_on == "assistant" and config.method != "cpt",
    )
    trainer = _trainer_class(device if not KINDS[config.peft].virtual else "")(
        model=model,
        args=arguments,
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([as_trl(row, config) for row in train]),
        eval_dataset=Dataset.from_list([as_trl(row, config) for row in evaluation]) if evaluation else None,
        peft_config=adapter_config(config),
        callbacks=[*callbacks, *early_stopping(config)],
    )
    if config.class_balance:
        balanced(trainer, [row["completion"][-1]["content"] for row in train], config)
    return finished(trainer, config)


def check(config: RunConfig) -> None:
    """Raise UserError for rows that are drawn by label and joined at once."""
    if config.class_balance and config.packing:
        raise UserError("class_balance draws single rows; set packing to false")
    if config.class_balance and config.method == "cpt":
        raise UserError("class_balance: plain text has no labels to balance; set it to 0")


def _require_markers(tokenizer: Any) -> None:
    """Raise UserError where neither the model's chat template nor TRL's for its family marks the answers."""
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    if has_generation_markers(tokenizer.chat_template):
        return
    try:
        get_training_chat_template(tokenizer)
    except ValueError:
        raise UserError(
            "loss_on = 'assistant': this model's chat template does not mark the assistant's words; "
            "set loss_on to completion or all"
        ) from None


def as_trl(row: Row, config: RunConfig) -> Row:
    """The row as the run's `loss_on` wants it: prompt and completion apart, or one list of messages."""
    if "text" in row or config.loss_on == "completion":
        return row
    rest = {name: value for name, value in row.items() if name not in ("prompt", "completion")}
    return {**rest, "messages": row["prompt"] + row["completion"]}


def _trainer_class(device: str) -> Any:
    """SFTTrainer, on a CPU with the output head applied where there is a label only.

    TRL's tiled head scores every position where there is no Triton; when only a short answer carries
    loss, that is most of a small model's work (tests/bench/training.py measures both). Not for virtual
    tokens, which stand outside the backbone: the trained prompt would never be seen.
    """
    import torch
    from trl import SFTTrainer

    if device != "cpu":
        return SFTTrainer

    class CpuSFTTrainer(SFTTrainer):
        _name = "SFT"

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            inner = self.accelerator.unwrap_model(model)
            inner = inner.get_base_model() if hasattr(inner, "get_base_model") else inner
            config = inner.config.get_text_config()
            labels = inputs["labels"][:, 1:]
            carries = labels != -100
            plain = config.model_type in PLAIN_HEADS and "attention_mask" in inputs
            small = int(carries.sum()) * config.vocab_size <= LARGEST_LOGITS
            if return_outputs or not plain or not small or self.accelerator.num_processes > 1:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            backbone = inner.base_model(
                input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
            )
            logits = inner.get_output_embeddings()(backbone.last_hidden_state[:, :-1][carries]).float()
            targets = labels[carries]
            count = max(int(carries.sum()) if num_items_in_batch is None else int(num_items_in_batch), 1)
            loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / count
            self._note_metrics(inputs, logits.detach(), targets)
            return loss

        def _note_metrics(self, inputs, logits, targets):
            mode = "train" if self.model.training else "eval"
            accuracy = (logits.argmax(-1) == targets).float().mean().item() if len(targets) else 0.0
            self._metrics[mode]["mean_token_accuracy"].append(accuracy)
            if mode == "train":
                self._total_train_tokens += int(inputs["attention_mask"].sum())
            self._metrics[mode]["num_tokens"] = [self._total_train_tokens]

    return CpuSFTTrainer


# Architectures whose logits are the head's output as it is: no scaling, no soft cap.
LARGEST_LOGITS = 64_000_000  # 256 MB in float32; beyond it TRL's tiles save memory
PLAIN_HEADS = ("qwen2", "qwen3", "llama", "mistral", "phi3")
