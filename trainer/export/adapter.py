"""A LoRA adapter as a GGUF file of its own, put on a base in llama.cpp and taken off again while it runs.

`write_adapter(adapter, base, out)`; then `LlamaCpp(base_gguf, adapters=[out])` and `engine.use({0: 1.0})`. Small
beside a merged model, so many fit beside one base. Costs no torch.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import UserError
from trainer.export.architectures import Architecture, kv_heads, read_config, row_of
from trainer.export.weights import STORED, permute

PREFIX = "base_model.model."
PLAIN = {
    "use_dora": False,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "fan_in_fan_out": False,
}
PLAIN |= {"bias": "none", "trainable_token_indices": None, "target_parameters": None, "use_qalora": False}


def write_adapter(adapter: Path, base: Path, out: Path) -> Path:
    """Write PEFT's adapter folder as a GGUF file for models written from the folder `base`.

    Raises UserError for an adapter that is more than a LoRA on projections: merge such a one.
    """
    from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map

    settings = _settings(adapter)
    config = read_config(base)
    row = row_of(base, config)
    names = get_tensor_name_map(MODEL_ARCH[row.name.upper()], config["num_hidden_layers"])
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    out.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(temporary, row.name)
    try:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", _alpha(settings))
        writer.add_name(adapter.resolve().parent.name)
        for name, values in _tensors(adapter, config, row, names):
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(temporary, out)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)
    return out


def _settings(adapter: Path) -> dict[str, Any]:
    where = adapter / "adapter_config.json"
    if not where.is_file():
        raise UserError(f"{where}: no such file; only runs with peft lora or qlora have an adapter")
    settings = json.loads(where.read_text(encoding="utf-8"))
    if settings.get("peft_type") != "LORA":
        raise UserError(
            f"{where}: a {settings.get('peft_type')} adapter has no GGUF form; export --to gguf merges it"
        )
    for key, value in PLAIN.items():
        if settings.get(key) and settings[key] != value:
            shown = str(settings[key])[:60]
            raise UserError(
                f"{where}: {key} = {shown} has no form as a GGUF adapter; export --to gguf merges it"
            )
    return settings


def _alpha(settings: dict[str, Any]) -> float:
    """llama.cpp scales by alpha / r; rank-stabilised adapters by alpha / sqrt(r), so theirs is alpha · sqrt(r)."""
    return settings["lora_alpha"] * (math.sqrt(settings["r"]) if settings.get("use_rslora") else 1.0)


def _tensors(
    adapter: Path, config: dict[str, Any], row: Architecture, names: Any
) -> list[tuple[str, np.ndarray]]:
    from gguf.utility import SafetensorsLocal

    path = adapter / "adapter_model.safetensors"
    if not path.is_file():
        raise UserError(f"{path}: no such file; train the run to its end first")
    heads = {"attn_q": config["num_attention_heads"], "attn_k": kv_heads(config)} if row.permuted else {}
    found = []
    for name, tensor in SafetensorsLocal(path).tensors.items():
        module, _, kind = name.removeprefix(PREFIX).rpartition(".lora_")
        target = names.get_name(f"{module}.weight", try_suffixes=(".weight",)) if module else None
        if target is None or kind not in ("A.weight", "B.weight") or tensor.dtype not in STORED:
            raise UserError(f"{path}: {name!r} has no form as a GGUF adapter; export --to gguf merges it")
        values = _float32(tensor)
        if kind == "B.weight" and (count := heads.get(target.split(".")[-2])):
            values = permute(values, count)
        found.append((f"{target}.lora_{kind[0].lower()}", values))
    return found


def _float32(tensor: Any) -> np.ndarray:
    values = np.frombuffer(tensor.mmap_bytes(), STORED[tensor.dtype]).reshape(tensor.shape)
    if tensor.dtype == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(values.astype(np.float32))
