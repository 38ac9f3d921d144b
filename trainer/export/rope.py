"""Rotary position embeddings: config.json → what GGUF says of them. Part of writing GGUF. Costs no torch.

A wrong base or factor gives no error, only a model that talks nonsense the longer a text is. So every key that
is not known to be computed alike is refused by name.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import UserError
from trainer.export.architectures import Architecture, head_dim

ROPE_KEYS = {
    "default": set(),
    "linear": {"factor"},
    "yarn": {"factor", "original_max_position_embeddings"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "longrope": {"long_factor", "short_factor", "original_max_position_embeddings"},
}  # what each rope type computes with; another key would change the result in a way that is not written
RENAMED = {"su": "longrope"}
IGNORED = {"original_max_position_embeddings", "partial_rotary_factor"}  # harmless, or read by themselves


def rope_of(folder: Path, config: dict[str, Any], row: Architecture | None = None) -> dict[str, Any]:
    """Rope settings: `rope_parameters` of transformers 5, else `rope_theta` and `rope_scaling` of before.

    Of a model with two kinds of layers these are the ones that see everything. Raises UserError for a rope type
    that llama.cpp would compute otherwise.
    """
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if "full_attention" in rope:
        rope = dict(rope["full_attention"])
    kind = rope.pop("type", None)
    rope["rope_type"] = rope.get("rope_type") or kind or "default"
    rope["rope_type"] = RENAMED.get(rope["rope_type"], rope["rope_type"])
    rope["rope_theta"] = rope.get("rope_theta") or config.get("rope_theta")
    for key in IGNORED:
        rope.setdefault(key, config.get(key))
    where = folder / "config.json"
    if not rope["rope_theta"]:
        raise UserError(
            f"{where}: neither rope_parameters nor rope_theta gives the rope base; take the whole config.json"
        )
    known = row.rope if row else tuple(ROPE_KEYS)
    if rope["rope_type"] not in known:
        raise UserError(
            f"{where}: rope type {rope['rope_type']!r} has no GGUF form here yet; known: {', '.join(known)}"
        )
    wanted = ROPE_KEYS[rope["rope_type"]]
    given = {key for key, value in rope.items() if value is not None} - {"rope_type", "rope_theta"}
    if wanted - given or given - wanted - IGNORED:
        shown = sorted(given - (IGNORED - wanted))
        raise UserError(
            f"{where}: rope type {rope['rope_type']} with {shown}; known here with {sorted(wanted)}"
        )
    share = rope.get("partial_rotary_factor") or 1.0
    if share != 1.0 and row is not None and row.name != "phi3":
        raise UserError(f"{where}: partial_rotary_factor = {share} has no GGUF form here yet")
    return rope


def rope_numbers(row: Architecture, config: dict[str, Any], rope: dict[str, Any]) -> dict[str, Any]:
    """The header's keys, without the architecture's name."""
    share = rope.get("partial_rotary_factor") or 1.0
    found: dict[str, Any] = {
        "rope.dimension_count": int(share * head_dim(config)),
        "rope.freq_base": rope["rope_theta"],
    }
    if row.window is not None:
        found["rope.freq_base_swa"] = _local_base(row, config, rope)
    if rope["rope_type"] in ("linear", "yarn", "longrope"):
        found["rope.scaling.type"] = rope["rope_type"]
    if rope["rope_type"] in ("linear", "yarn"):
        found["rope.scaling.factor"] = rope["factor"]
    if rope["rope_type"] == "yarn" or row.name == "phi3":
        original = rope["original_max_position_embeddings"] or config["max_position_embeddings"]
        found["rope.scaling.original_context_length"] = original
    if rope["rope_type"] == "longrope":
        found["rope.scaling.attn_factor"] = _longrope_scale(config, rope)
    return found


def _local_base(row: Architecture, config: dict[str, Any], rope: dict[str, Any]) -> float:
    """The base of the layers that see only a window: Gemma 3's own, Gemma 2's the same as the others'."""
    local = (config.get("rope_parameters") or {}).get("sliding_attention") or {}
    if local.get("rope_theta"):
        return local["rope_theta"]
    return config.get("rope_local_base_freq") or (10_000.0 if row.name == "gemma3" else rope["rope_theta"])


def _longrope_scale(config: dict[str, Any], rope: dict[str, Any]) -> float:
    """Factor on cosine and sine: transformers' `_compute_longrope_parameters` (modeling_rope_utils.py)."""
    original = rope["original_max_position_embeddings"]
    factor = config["max_position_embeddings"] / original
    return 1.0 if factor <= 1.0 else math.sqrt(1 + math.log(factor) / math.log(original))


def rope_tensors(rope: dict[str, Any], head_dim: int) -> dict[str, np.ndarray]:
    """Divisors of the rope frequencies by tensor name, float32 [rotated columns / 2]; {} for most rope types.

    Llama 3's formula is transformers' `_compute_llama3_parameters` (modeling_rope_utils.py), divided out.
    """
    if rope["rope_type"] == "longrope":
        names = {"short_factor": "rope_factors_short.weight", "long_factor": "rope_factors_long.weight"}
        return {name: np.asarray(rope[key], np.float32) for key, name in names.items()}
    if rope["rope_type"] != "llama3":
        return {}
    wavelengths = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((rope["original_max_position_embeddings"] / wavelengths - low) / (high - low), 0, 1)
    return {"rope_freqs.weight": (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)}
