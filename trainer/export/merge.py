"""A run's weights as one ordinary model folder, RUN/export/merged: first stage of every export.

A full run's model is linked. An adapter is added into its base in the base's own precision, saved, loaded
again and compared with base + adapter, because a merge can go wrong without a word (LoRA on tied
embeddings does). Needs torch.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer import base
from trainer.atomic import assembled
from trainer.config import RunConfig, UserError, write_atomic
from trainer.data.stage import read_rows
from trainer.generate import head_labels
from trainer.methods import KINDS, METHODS
from trainer.methods.classify import text_of
from trainer.runs import RunFolder

# Mean |difference| of the logits over their standard deviation. Measured on tiny and small models: float32
# 1e-7 to 1e-6; bfloat16, whose rounding of the merged weights is no fault, up to 0.02; a wrong merge 0.5 and more.
TOLERANCE = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.1}
ROWS = 4
TOKENS = 256  # of each compared row
EXTRA = ("generation_config.json",)


def merge(folder: RunFolder) -> Path:
    """Make RUN/export/merged and RUN/export/merge.json, which says how; returns the folder.

    What a run has merged stays as long as its weights do. Raises UserError when there are no weights, or when
    the merged model does not compute what base + adapter compute.
    """
    config = folder.config()
    weights = folder.path / ("model" if config.keeps_whole_model else "adapter")
    if not weights.is_dir():
        raise UserError(f"{folder.id}: has no {weights.name}/ yet; train the run to its end first")
    if not KINDS[config.peft].merges:
        raise UserError(
            f"{folder.id}: {config.peft} trains tokens that stand before the prompt, which cannot be merged into the "
            f"weights; use {weights} with PEFT on the base model, or train again with peft lora"
        )
    merged = folder.path / "export" / "merged"
    if (merged / "config.json").is_file() and merged.stat().st_mtime >= weights.stat().st_mtime:
        return merged
    with assembled(merged) as building:
        if config.keeps_whole_model:
            _link(weights, building)
            report: dict[str, Any] = {
                "method": config.peft,
                "note": "all weights were trained: nothing to merge",
            }
        else:
            report = _merge_adapter(folder, config, weights, building)
    write_atomic(folder.path / "export" / "merge.json", json.dumps(report, indent=1))
    return merged


def _link(source: Path, target: Path) -> None:
    """The files of a model folder, without a second copy on disk where the file system can."""
    for file in source.iterdir():
        if not file.is_file():
            continue
        try:
            os.link(file, target / file.name)
        except OSError:
            shutil.copy2(file, target / file.name)


def _merge_adapter(folder: RunFolder, config: RunConfig, adapter: Path, out: Path) -> dict[str, Any]:
    import torch
    from peft import PeftModel

    base_path = base.locate(config, folder.path)
    output = METHODS[config.method].output
    labels = head_labels(folder, config)
    tokenizer = base.load_tokenizer(adapter, chat=output != "labels")
    if config.peft == "loftq":  # the adapter makes up for what 4 bits lost: it belongs on the 4-bit weights
        model = base.load_model(base_path, config, "cpu", training=False, labels=labels).dequantize()
        model = model.to(getattr(torch, stored_dtype(base_path)))
    else:
        model = load_model(base_path, stored_dtype(base_path), labels)
    dtype = str(model.dtype).removeprefix("torch.")
    tied = bool(getattr(model.config, "tie_word_embeddings", False)) and output == "text"
    model = PeftModel.from_pretrained(model, adapter).eval()
    rows = _rows(folder, tokenizer)
    expected = [_logits(model, ids) for ids in rows]
    merged = model.merge_and_unload(safe_merge=True)
    _save(merged, tokenizer, base_path, out)
    del model, merged
    gc.collect()
    difference = _proven(out, dtype, rows, expected, None if labels is None else ())
    if not difference <= TOLERANCE[dtype]:  # a NaN is a difference too
        raise UserError(_refusal(folder, adapter, difference, dtype, tied))
    report = {"method": config.peft, "base": config.base_model, "dtype": dtype, "torch": torch.__version__}
    report |= {"logit_difference": difference, "tolerance": TOLERANCE[dtype], "rows": len(rows)}
    if config.peft == "qlora":
        report["note"] = (
            "trained on 4-bit weights, merged into the full-precision base: close to what was trained, not equal"
        )
    return report


def combine(parts: list[tuple[RunFolder, float]], out: Path) -> dict[str, Any]:
    """One model folder `out` of several runs' LoRA adapters on their common base, each times its weight.

    Exact: the update of every projection is the weighted sum of the adapters' updates (PEFT's "cat"). Returns
    what merge.json says of it. Raises UserError for runs that share no base or are not plain LoRA.
    """
    import torch
    from peft import PeftModel

    first, config = parts[0][0], parts[0][0].config()
    for folder, _ in parts:
        own = folder.config()
        if own.peft not in ("lora", "qlora") or not (folder.path / "adapter").is_dir():
            raise UserError(
                f"{folder.id}: peft {own.peft} has no LoRA adapter to combine; choose lora or qlora runs"
            )
        if own.base_model != config.base_model:
            raise UserError(
                f"{folder.id}: its base is {own.base_model}, {first.id}'s {config.base_model}; use one base"
            )
    base_path = base.locate(config, first.path)
    tokenizer = base.load_tokenizer(first.path / "adapter")
    model = load_model(base_path, stored_dtype(base_path))
    dtype = str(model.dtype).removeprefix("torch.")
    names = [f"part{index}" for index in range(len(parts))]
    model = PeftModel.from_pretrained(model, first.path / "adapter", adapter_name=names[0])
    for name, (folder, _) in zip(names[1:], parts[1:], strict=True):
        model.load_adapter(folder.path / "adapter", adapter_name=name)
    model.add_weighted_adapter(names, [weight for _, weight in parts], "sum", combination_type="cat")
    model.set_adapter("sum")
    rows = _rows(first, tokenizer)
    expected = [_logits(model.eval(), ids) for ids in rows]
    merged = model.merge_and_unload(safe_merge=True, adapter_names=["sum"])
    with assembled(out) as building:
        _save(merged, tokenizer, base_path, building)
        del model, merged
        gc.collect()
        difference = _proven(building, dtype, rows, expected)
        if not difference <= TOLERANCE[dtype]:
            raise UserError(_refusal(first, first.path / "adapter", difference, dtype, False))
    report = {"method": "combined", "base": config.base_model, "dtype": dtype, "torch": torch.__version__}
    report["parts"] = {folder.id: weight for folder, weight in parts}
    report |= {"logit_difference": difference, "tolerance": TOLERANCE[dtype], "rows": len(rows)}
    write_atomic(out.with_name(f"{out.name}.merge.json"), json.dumps(report, indent=1))
    return report


def _save(merged: Any, tokenizer: Any, base_path: Path, out: Path) -> None:
    """Weights, the tokenizer with the training template, and the base's generation settings."""
    merged.save_pretrained(out)
    tokenizer.save_pretrained(out)
    for name in EXTRA:
        if (base_path / name).is_file() and not (out / name).exists():
            shutil.copy2(base_path / name, out / name)


def _proven(
    out: Path, dtype: str, rows: list[list[int]], expected: list[Any], labels: Sequence[str] | None = None
) -> float:
    """The largest difference between the logits of the saved model and the expected ones."""
    loaded = load_model(out, dtype, labels)
    difference = max(
        _difference(_logits(loaded, ids), logits) for ids, logits in zip(rows, expected, strict=True)
    )
    del loaded
    gc.collect()
    return difference


def _refusal(folder: RunFolder, adapter: Path, difference: float, dtype: str, tied: bool) -> str:
    targets = (
        json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8")).get("target_modules") or []
    )
    said = f"{folder.id}: the merged model computes something else than base + adapter (logits differ by {difference:.2g}"
    if tied and {"embed_tokens", "lm_head"} & set(targets):
        return (
            f"{said} of their spread): the adapter is on embeddings that are tied to the output; "
            "train again with target_modules all-linear"
        )
    return (
        f"{said} of their spread, {dtype} allows {TOLERANCE[dtype]}); keep the adapter apart and report this"
    )


def stored_dtype(path: Path) -> str:
    """The precision of a model's weights, by name: merging in another would lose or invent digits."""
    dtype = str(base.stored_dtype(path)).removeprefix("torch.")
    return dtype if dtype in TOLERANCE else "float32"


def load_model(path: Path, dtype: str, labels: Sequence[str] | None = None) -> Any:
    """A model folder on the CPU, ready for inference, in "float32", "bfloat16" or "float16".

    `labels`: with a head, see base.load_model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    loader = AutoModelForCausalLM if labels is None else AutoModelForSequenceClassification
    heads = (
        {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        if labels
        else {}
    )
    model = loader.from_pretrained(
        path, dtype=getattr(torch, dtype), use_safetensors=True, trust_remote_code=False, **heads
    )
    return model.eval()


def _rows(folder: RunFolder, tokenizer: Any) -> list[list[int]]:
    """Token ids of a few of the run's own rows, prompt and answer."""
    found = []
    for row in read_rows(folder.path / "data" / "train.jsonl")[:ROWS]:
        if "text" in row:
            ids = tokenizer(row["text"])["input_ids"]
        elif not tokenizer.chat_template:
            ids = tokenizer(text_of(row))["input_ids"]
        else:
            chat = row["prompt"] + (row.get("completion") or row.get("chosen") or [])
            ids = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True)["input_ids"]
        found.append(ids[-TOKENS:])
    return found


def _logits(model: Any, ids: list[int]) -> Any:
    import torch

    with torch.inference_mode():  # a classifier's [1, labels] has no word to cut
        return model(input_ids=torch.tensor([ids])).logits[0].float()


def _difference(found: Any, expected: Any) -> float:
    """Mean absolute difference of logits [tokens, vocabulary] in units of their standard deviation.

    A reward model's single score has none: there it is in units of the score, or of 1 where that is small.
    """
    spread = expected.std() if expected.numel() > 1 else expected.abs().max().clamp(min=1)
    return float((found - expected).abs().mean() / spread)
