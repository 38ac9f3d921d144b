"""What llama.cpp must be told of each architecture, as a table: one row a transformers class.

`row_of(folder, config)` → the row; `numbers(row, config, rope)` → the header's keys. llama.cpp computes much by
itself from the architecture's name (which layers see a window, how scores are scaled); where config.json asks
for something else than that, the model is refused here by the name of the key. Pure; costs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.config import UserError
from trainer.export.vocabulary import read_json

ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_output", "attn_norm", "ffn_norm")
DENSE = ("ffn_up", "ffn_gate", "ffn_down")
REQUIRED = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "max_position_embeddings",
    "rms_norm_eps",
)  # fmt: skip
COMMON = {
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}  # config.json → GGUF, without the architecture's name before it

OLD_NAMES = {"num_local_experts": "num_experts"}
# A model that sees is written as its language part: its settings stand in text_config, its weights under a prefix.
LANGUAGE_PARTS = {"Gemma3ForConditionalGeneration": "Gemma3ForCausalLM"}
LANGUAGE_PREFIXES = ("model.language_model.", "language_model.model.")
OTHER_PARTS = (
    "model.vision_tower.",
    "model.multi_modal_projector.",
    "vision_tower.",
    "multi_modal_projector.",
)


@dataclass(frozen=True)
class Architecture:
    """One row. `name` is llama.cpp's; the rest is how its file differs from a plain Qwen2-like one.

    window: None where llama.cpp knows no sliding window, so that its context ends with the window; n where every
    n-th layer sees everything and the others only the window.
    """

    name: str
    parts: tuple[str, ...] = (*ATTENTION, *DENSE)  # weights of every layer
    rope: tuple[str, ...] = ("default", "linear", "yarn")
    activations: tuple[str, ...] = ("silu", "swish")
    permuted: bool = False  # rows of q and k from halves to pairs
    norm_plus_one: bool = False  # transformers multiplies by 1 + weight
    tied: bool = False  # config.json's tie_word_embeddings where it does not say
    window: int | None = None
    numbers: dict[str, str] = field(default_factory=dict)  # further keys of config.json → GGUF; all required
    optional: dict[str, str] = field(default_factory=dict)  # likewise, where they are set
    demanded: dict[str, Any] = field(default_factory=dict)  # the only values that llama.cpp computes with
    scaled_by_width: tuple[int, ...] = ()  # layer counts with scores scaled by hidden_size / heads (the 27Bs)


_GEMMA = {
    "rope": ("default", "linear"),
    "activations": ("gelu_pytorch_tanh",),
    "norm_plus_one": True,
    "tied": True,
}
ARCHITECTURES = {
    "LlamaForCausalLM": Architecture("llama", permuted=True, rope=("default", "linear", "yarn", "llama3")),
    "MistralForCausalLM": Architecture("llama", permuted=True),
    "Qwen2ForCausalLM": Architecture("qwen2"),
    "Qwen3ForCausalLM": Architecture("qwen3", parts=(*ATTENTION, *DENSE, "attn_q_norm", "attn_k_norm")),
    "Qwen3MoeForCausalLM": Architecture(
        "qwen3moe",
        parts=(
            *ATTENTION, "attn_q_norm", "attn_k_norm", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps",
            "ffn_down_exps",
        ),
        numbers={
            "num_experts": "expert_count",
            "num_experts_per_tok": "expert_used_count",
            "moe_intermediate_size": "expert_feed_forward_length",
        },
        demanded={"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []},
    ),
    "Gemma2ForCausalLM": Architecture(
        "gemma2",
        parts=(*ATTENTION, *DENSE, "post_attention_norm", "post_ffw_norm"),
        window=2,
        numbers={
            "sliding_window": "attention.sliding_window",
            "attn_logit_softcapping": "attn_logit_softcapping",
            "final_logit_softcapping": "final_logit_softcapping",
        },
        demanded={"tie_word_embeddings": True, "use_bidirectional_attention": False},
        scaled_by_width=(46,),
        **_GEMMA,
    ),
    "Gemma3ForCausalLM": Architecture(
        "gemma3",
        parts=(*ATTENTION, *DENSE, "attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm"),
        window=6,
        numbers={"sliding_window": "attention.sliding_window"},
        optional={"final_logit_softcapping": "final_logit_softcapping"},
        demanded={"attn_logit_softcapping": None, "use_bidirectional_attention": False},
        scaled_by_width=(62,),
        **_GEMMA,
    ),
    "Phi3ForCausalLM": Architecture(
        "phi3",
        parts=("attn_qkv", "attn_output", "attn_norm", "ffn_norm", "ffn_up", "ffn_down"),
        rope=("default", "longrope"),
    ),
}  # fmt: skip


def read_config(folder: Path) -> dict[str, Any]:
    """config.json, with what transformers 5 calls otherwise under the name that models were published with."""
    config = read_json(folder / "config.json")
    named = (config.get("architectures") or [""])[0]
    if named in LANGUAGE_PARTS and isinstance(config.get("text_config"), dict):
        config = {**config["text_config"], "architectures": [LANGUAGE_PARTS[named]]}
    return {OLD_NAMES.get(key, key): value for key, value in config.items()}


def language_name(name: str) -> str | None:
    """A weight's name as a model without eyes has it; None for one of the eyes."""
    if name.startswith(OTHER_PARTS):
        return None
    prefix = next((prefix for prefix in LANGUAGE_PREFIXES if name.startswith(prefix)), None)
    return f"model.{name.removeprefix(prefix)}" if prefix else name.removeprefix("language_model.")


def row_of(folder: Path, config: dict[str, Any]) -> Architecture:
    """The row of a model folder. Raises UserError for one that llama.cpp would compute otherwise."""
    where = folder / "config.json"
    names = config.get("architectures") or []
    if not names:
        raise UserError(f"{where}: no architecture is named; is this a model folder?")
    if names[0] not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(
            f"{where}: {names[0]} cannot be written as GGUF here; known: {known}; for others set LLAMA_CPP_DIR "
            "to a checkout of llama.cpp, whose converter is then used"
        )
    row = ARCHITECTURES[names[0]]
    if missing := [key for key in (*REQUIRED, *row.numbers) if not config.get(key)]:
        raise UserError(f"{where}: {missing[0]} is missing; take the whole config.json of the model")
    for key, wrong in _unusual(row, config).items():
        if wrong:
            raise UserError(f"{where}: {key} = {str(config.get(key))[:60]} has no GGUF form here yet")
    return row


def _unusual(row: Architecture, config: dict[str, Any]) -> dict[str, bool]:
    """Keys of config.json → whether llama.cpp would compute something else than they say."""
    layers = config["num_hidden_layers"]
    every = row.window
    pattern = [
        "full_attention" if every is None or (layer + 1) % every == 0 else "sliding_attention"
        for layer in range(layers)
    ]
    kinds = config.get("layer_types") or pattern
    activation = config.get("hidden_activation") or config.get("hidden_act") or row.activations[0]
    scale = config.get("query_pre_attn_scalar")
    wide = layers in row.scaled_by_width
    scaled = config["hidden_size"] // config["num_attention_heads"] if wide else head_dim(config)
    return {
        "quantization_config": bool(config.get("quantization_config")),
        "use_sliding_window": bool(config.get("use_sliding_window")),
        "layer_types": kinds != pattern,
        "hidden_act": activation not in row.activations,
        "query_pre_attn_scalar": scale is not None and scale != scaled,
        **{key: (config.get(key, value) or None) != (value or None) for key, value in row.demanded.items()},
    }


def head_dim(config: dict[str, Any]) -> int:
    """Columns of one attention head."""
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def kv_heads(config: dict[str, Any]) -> int:
    return config.get("num_key_value_heads") or config["num_attention_heads"]


def is_tied(row: Architecture, config: dict[str, Any]) -> bool:
    """Whether the output layer is the embedding, so that the file holds it once."""
    tied = config.get("tie_word_embeddings")
    return row.tied if tied is None else bool(tied)


def numbers(row: Architecture, config: dict[str, Any], rope: dict[str, Any]) -> dict[str, Any]:
    """The header's keys (with the architecture's name before them) → value. Integers and floats stay what they are."""
    found: dict[str, Any] = {name: config[key] for key, name in (COMMON | row.numbers).items()}
    found |= {name: config[key] for key, name in row.optional.items() if config.get(key)}
    found["context_length"] = context_of(row, config)
    found["vocab_size"] = config.get("vocab_size")
    found["attention.head_count_kv"] = kv_heads(config)
    # always: llama.cpp otherwise takes hidden_size / heads, which an explicit head_dim need not be
    found["attention.key_length"] = found["attention.value_length"] = head_dim(config)
    found |= rope
    floats = ("epsilon", "softcapping", "freq_base", "freq_base_swa", "factor", "attn_factor")
    typed = {name: float(value) if name.endswith(floats) else value for name, value in found.items()}
    return {f"{row.name}.{name}": value for name, value in typed.items() if value is not None}


def context_of(row: Architecture, config: dict[str, Any]) -> int:
    """Tokens in which llama.cpp computes what transformers does: up to the window, where it knows no window."""
    context, window = config["max_position_embeddings"], config.get("sliding_window")
    unknown = row.window is None and "use_sliding_window" not in config
    return min(context, window) if unknown and window else context
