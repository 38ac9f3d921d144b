"""A model's answers to rows, and how probable it finds given ones: greedy, batched, on any device.

Used by evaluate.py. Rows are sorted by length, so that a batch holds little padding, and come back in order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trainer import base
from trainer.config import RunConfig, UserError
from trainer.data.convert import Row
from trainer.data.stage import CARD
from trainer.methods import METHODS
from trainer.runs import RunFolder

BATCH_TOKENS = 16_384  # padded tokens of one batch
BATCH_ROWS = 128


class Stopped(Exception):
    """The work was asked to stop; what was written before stays."""


def load_for_inference(folder: RunFolder, config: RunConfig, which: str) -> tuple[Any, Any, str]:
    """(model, tokenizer, device) of a run: "tuned" is RUN/model or RUN/adapter on its base, "base" the base alone.

    "tuned" has the head that the run trained; the base alone always writes words. Raises UserError where the run
    has no trained weights.
    """
    device = base.device_of(config)
    base_path = base.locate(config, folder.path)
    path: Path = base_path
    if which == "tuned":
        path = folder.path / ("model" if config.keeps_whole_model else "adapter")
        if not path.is_dir():
            raise UserError(f"{folder.id}: has no {path.name}/ yet; train the run to its end first")
    whole = path if config.keeps_whole_model else base_path
    labels = head_labels(folder, config) if which == "tuned" else None
    if labels and config.keeps_whole_model:
        labels = ()  # the folder names its own
    model = base.load_model(whole, config, device, training=False, labels=labels)
    if which == "tuned" and not config.keeps_whole_model:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, path)
    model.eval()
    classifier = which == "tuned" and METHODS[config.method].output == "labels"
    return model, base.load_tokenizer(path, chat=not classifier), device


def head_labels(folder: RunFolder, config: RunConfig) -> Sequence[str] | None:
    """What a run's head has outputs for: labels, one score, or None where it writes words. Raises UserError."""
    output = METHODS[config.method].output
    if output != "labels":
        return ("score",) if output == "score" else None
    card = json.loads((folder.path / "data" / CARD).read_text(encoding="utf-8"))
    if not card["labels"]:
        raise UserError(
            "method classify needs rows whose answers are labels (text, label); these answers are texts: use sft"
        )
    return card["labels"]


def answers(
    model: Any, tokenizer: Any, rows: list[Row], room: int, should_stop: Callable[[], bool] = lambda: False,
    thinking: bool = True,
) -> list[str]:  # fmt: skip
    """Greedy answers of at most `room` tokens to the rows' prompts, without special tokens, stripped.

    `thinking=False` asks a hybrid model's template for an answer without thoughts; others ignore it.
    """
    import torch
    from transformers import GenerationConfig

    options = {} if thinking else {"enable_thinking": False}
    prompts = [_prompt_ids(row, tokenizer, **options) for row in rows]
    pad = tokenizer.pad_token_id
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=room,
        pad_token_id=pad,
        eos_token_id=_stops(model, tokenizer),
        use_cache=True,
    )
    outputs = [""] * len(rows)
    for batch in batches([len(ids) + room for ids in prompts]):
        if should_stop():
            raise Stopped
        width = max(len(prompts[i]) for i in batch)
        ids = torch.tensor(
            [[pad] * (width - len(prompts[i])) + prompts[i] for i in batch], device=model.device
        )
        mask = torch.tensor(
            [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in batch], device=model.device
        )
        with torch.inference_mode():
            made = model.generate(input_ids=ids, attention_mask=mask, generation_config=settings)[:, width:]
        for i, text in zip(batch, tokenizer.batch_decode(made, skip_special_tokens=True), strict=True):
            outputs[i] = text.strip()
    return outputs


def answer_room(tokenizer: Any, labels: list[str]) -> int:
    """Tokens that the longest label takes in an answer: what the template puts around it counts as well."""
    prompt = [{"role": "user", "content": "?"}]
    empty = len(_render(tokenizer, prompt, add_generation_prompt=True))
    return max(
        len(_render(tokenizer, [*prompt, {"role": "assistant", "content": label}])) - empty
        for label in labels
    )


def logprobs(
    model: Any, tokenizer: Any, rows: list[Row], ending: str, should_stop: Callable[[], bool] = lambda: False
) -> list[tuple[float, int]]:
    """(summed log-probability in nats, tokens) of each row's `ending`: completion, chosen, rejected or text."""
    import torch

    whole, starts = [], []
    for row in rows:
        if ending == "text":
            whole.append(tokenizer(row["text"], verbose=False)["input_ids"] + [tokenizer.eos_token_id])
            starts.append(1)
        else:
            prompt = _prompt_ids(row, tokenizer)
            ids = _render(tokenizer, row["prompt"] + row[ending], _tools(row))
            whole.append(ids)
            starts.append(max(1, _shared(prompt, ids)))
    found: list[tuple[float, int]] = [(0.0, 1)] * len(rows)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    virtual = inner is not model and model.active_peft_config.is_prompt_learning
    for batch in batches([len(ids) for ids in whole]):
        if should_stop():
            raise Stopped
        width = max(len(whole[i]) for i in batch)
        ids = torch.tensor([whole[i] + [tokenizer.pad_token_id] * (width - len(whole[i])) for i in batch])
        mask = torch.tensor([[1] * len(whole[i]) + [0] * (width - len(whole[i])) for i in batch])
        with torch.inference_mode():
            given = {
                "input_ids": ids.to(model.device),
                "attention_mask": mask.to(model.device),
                "use_cache": False,
            }
            if virtual:  # trained tokens stand before the row, outside the backbone
                whole_logits = model(**given).logits[:, -width:]
            else:
                hidden = inner.base_model(**given).last_hidden_state
            for k, i in enumerate(batch):
                start, end = starts[i], len(whole[i])
                # The head row by row: logits of a whole batch over a large vocabulary would not fit.
                if virtual:
                    logits = whole_logits[k, start - 1 : end - 1].float()
                else:
                    logits = inner.get_output_embeddings()(hidden[k, start - 1 : end - 1]).float()
                targets = torch.tensor(whole[i][start:end], device=logits.device)
                total = -torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
                found[i] = (total, max(1, end - start))
    return found


def _prompt_ids(row: Row, tokenizer: Any, **options: Any) -> list[int]:
    return _render(tokenizer, row["prompt"], _tools(row), add_generation_prompt=True, **options)


def _render(tokenizer: Any, messages: list[dict[str, str]], tools: Any = None, **options: Any) -> list[int]:
    return tokenizer.apply_chat_template(messages, tools=tools, tokenize=True, return_dict=True, **options)[
        "input_ids"
    ]


def _tools(row: Row) -> Any:
    return json.loads(row["tools"]) if row.get("tools") else None


def _stops(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: the model's own list and the tokenizer's end mark."""
    own = model.generation_config.eos_token_id
    own = own if isinstance(own, list) else [own]
    return sorted({token for token in [*own, tokenizer.eos_token_id] if token is not None})


def _shared(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def batches(lengths: list[int]) -> Iterator[list[int]]:
    """Indices in batches of similar length, longest first: what does not fit in memory shows at once."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and ((len(batch) + 1) * lengths[batch[0]] > BATCH_TOKENS or len(batch) >= BATCH_ROWS):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
