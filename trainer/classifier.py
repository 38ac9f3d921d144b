"""What a trained head says: probabilities of labels for a text, scores of answers. For classify and reward runs.

Used by evaluate.py and by whoever shows a classifier (tunesmith chat, the Test tab). Needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trainer.data.convert import Row
from trainer.generate import Stopped, batches
from trainer.methods.classify import text_of
from trainer.runs import RunFolder


class Classifier:
    """The trained classifier of a run, loaded; `probabilities(text)` is {label: share}, the likeliest first.

    Raises UserError where the run has no trained weights.
    """

    def __init__(self, folder: RunFolder) -> None:
        from transformers.utils.logging import disable_progress_bar

        from trainer.generate import load_for_inference

        disable_progress_bar()
        self.config = folder.config()
        self.model, self.tokenizer, _ = load_for_inference(folder, self.config, "tuned")

    def probabilities(self, text: str) -> dict[str, float]:
        config = self.config
        text = f"{config.instruction}\n{text}" if config.instruction else text
        text = f"{config.system_prompt}\n{text}" if config.system_prompt else text
        logits = outputs(self.model, self.tokenizer, [text], config.max_length)[0]
        shares = dict(zip(labels_of(self.model), logits.softmax(-1).tolist(), strict=True))
        return dict(sorted(shares.items(), key=lambda item: -item[1]))


def labels_of(model: Any) -> list[str]:
    """The labels in the order of a head's outputs."""
    names = model.config.id2label
    return [names[number] for number in sorted(names)]


def predict(
    model: Any, tokenizer: Any, rows: Sequence[Row], max_length: int, should_stop: Callable[[], bool]
) -> list[str]:
    """The likeliest label of each row."""
    logits = outputs(model, tokenizer, [text_of(row) for row in rows], max_length, should_stop)
    names = labels_of(model)
    return [names[int(row.argmax())] for row in logits]


def scores(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    ending: str,
    max_length: int,
    should_stop: Callable[[], bool],
) -> list[float]:
    """A reward model's score of each row's `ending`, "chosen" or "rejected"."""
    from trainer.data.tokens import render

    texts = [render(row, row["prompt"] + row[ending], tokenizer) for row in rows]
    return [float(row[0]) for row in outputs(model, tokenizer, texts, max_length, should_stop, plain=False)]


def outputs(
    model: Any, tokenizer: Any, texts: Sequence[str], max_length: int,
    should_stop: Callable[[], bool] = lambda: False, plain: bool = True,
) -> list[Any]:  # fmt: skip
    """The head's float32 outputs [labels] for each text. `plain`: not rendered, so that special tokens are added."""
    import torch

    model.config.pad_token_id = tokenizer.pad_token_id
    ids = tokenizer(list(texts), truncation=True, max_length=max_length, add_special_tokens=plain)[
        "input_ids"
    ]
    found: list[Any] = [None] * len(texts)
    for batch in batches([len(one) for one in ids]):
        if should_stop():
            raise Stopped
        padded = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            logits = model(**padded).logits.float().cpu()
        for i, row in zip(batch, logits, strict=True):
            found[i] = row
    return found
