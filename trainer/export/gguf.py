"""A model folder (config.json, safetensors, tokenizer.json) → one GGUF file that llama.cpp and Ollama run.

`write_gguf(folder, out)`; after merging, before the parity check. Weights go through tensor by tensor in
pieces of 64 MB, so an 8B model needs no more memory than a small one. Costs no torch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trainer.config import UserError
from trainer.export.vocabulary import Vocabulary, read_json, read_vocabulary

PIECE = 64 * 2**20  # bytes of a tensor held in memory at a time
REQUIRED = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "max_position_embeddings",
    "rms_norm_eps",
)  # fmt: skip
ARCHITECTURES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}
ROPE_KEYS = {
    "linear": {"factor"},
    "yarn": {"factor", "original_max_position_embeddings"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
}  # what each rope type computes with; another key would change the result in a way that is not written
STORED = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}  # numpy has no bf16: its bits
FILE_TYPES = {"F32": 0, "F16": 1, "BF16": 32}  # gguf.LlamaFileType
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Tensor:
    """Where a tensor lies in a safetensors file, and where it goes."""

    name: str  # in GGUF
    file: Path
    offset: int  # bytes
    shape: tuple[int, ...]
    stored: str  # "F32" | "F16" | "BF16"
    written: str
    heads: int  # rows are reordered within this many heads; 0: as they are

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * STORED[self.written].itemsize


def write_gguf(folder: Path, out: Path, dtype: str = "auto", progress: Progress | None = None) -> Path:
    """Write the model of `folder` as the GGUF file `out`, in one piece (a reader sees all of it or nothing).

    dtype: "f32", "f16", "bf16", or "auto" for the one the weights have. progress(bytes done, bytes in all).
    Raises UserError for an architecture, rope type, tokenizer or dtype that would not come out equal.
    """
    config = read_json(folder / "config.json")
    architecture = _architecture(folder, config)
    if dtype not in ("auto", "f32", "f16", "bf16"):
        raise UserError(f"dtype {dtype!r}: choose auto, f32, f16 or bf16")
    tensors = _tensors(folder, config, architecture, dtype)
    rows = next(tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight")
    vocabulary = read_vocabulary(folder, rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        _write(temporary, folder, config, architecture, vocabulary, tensors, progress)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def _architecture(folder: Path, config: dict[str, Any]) -> str:
    names = config.get("architectures") or []
    if not names:
        raise UserError(f"{folder / 'config.json'}: no architecture is named; is this a model folder?")
    if names[0] not in ARCHITECTURES:
        raise UserError(
            f"{folder / 'config.json'}: {names[0]} cannot be written as GGUF yet; known: {', '.join(ARCHITECTURES)}"
        )
    if missing := [key for key in REQUIRED if not config.get(key)]:
        raise UserError(
            f"{folder / 'config.json'}: {missing[0]} is missing; take the whole config.json of the model"
        )
    sliding = config.get("use_sliding_window") or "sliding_attention" in (config.get("layer_types") or [])
    unusual = {
        "quantization_config": config.get("quantization_config"),
        "use_sliding_window": sliding,
        "hidden_act": config.get("hidden_act", "silu") not in ("silu", "swish"),
        "partial_rotary_factor": config.get("partial_rotary_factor", 1.0) != 1.0,
    }
    for key, wrong in unusual.items():
        if wrong:
            raise UserError(
                f"{folder / 'config.json'}: {key} = {str(config.get(key))[:60]} has no GGUF form here yet"
            )
    return ARCHITECTURES[names[0]]


def _write(
    path: Path, folder: Path, config: dict[str, Any], architecture: str, vocabulary: Vocabulary,
    tensors: list[_Tensor], progress: Progress | None,
) -> None:  # fmt: skip
    from gguf import GGMLQuantizationType, GGUFWriter

    rope = rope_of(folder, config)
    factors = _rope_factors(rope, _head_dim(config))
    writer = GGUFWriter(path, architecture)
    try:
        _add_config(writer, folder, config, rope)
        writer.add_file_type(
            FILE_TYPES[max((t for t in tensors if len(t.shape) > 1), key=lambda t: t.nbytes).written]
        )
        _add_vocabulary(writer, vocabulary)
        if factors is not None:
            writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
        for tensor in tensors:
            kind = GGMLQuantizationType[tensor.written]
            writer.add_tensor_info(
                tensor.name, tensor.shape, STORED[tensor.written], tensor.nbytes, raw_dtype=kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        file = writer.fout[0]
        writer.write_padding(file, file.tell())
        if factors is not None:
            file.write(factors.tobytes())
            writer.write_padding(file, factors.nbytes)
        _write_weights(writer, file, tensors, progress)
        file.flush()
        os.fsync(file.fileno())
    finally:
        writer.close()


def _write_weights(writer: Any, file: BinaryIO, tensors: list[_Tensor], progress: Progress | None) -> None:
    done, total = 0, sum(tensor.nbytes for tensor in tensors)
    for tensor in tensors:
        for piece in _pieces(tensor):
            file.write(piece.data)
            done += piece.nbytes
            if progress:
                progress(done, total)
        writer.write_padding(file, tensor.nbytes)


def _add_config(writer: Any, folder: Path, config: dict[str, Any], rope: dict[str, Any]) -> None:
    from gguf import RopeScalingType

    head_dim = _head_dim(config)
    writer.add_type("model")
    writer.add_name(folder.resolve().name)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config.get("num_key_value_heads") or config["num_attention_heads"])
    # always: llama.cpp otherwise takes hidden_size / heads, which an explicit head_dim need not be
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType[rope["rope_type"].upper()])
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def _head_dim(config: dict[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def rope_of(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Rope settings: `rope_parameters` of transformers 5, else `rope_theta` and `rope_scaling` of before.

    Raises UserError for a rope type that llama.cpp would compute otherwise.
    """
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    old_name = rope.pop("type", "default")
    rope.setdefault("rope_type", old_name)
    rope.setdefault("rope_theta", config.get("rope_theta"))
    where = folder / "config.json"
    if not rope["rope_theta"]:
        raise UserError(
            f"{where}: neither rope_parameters nor rope_theta gives the rope base; take the whole config.json"
        )
    if rope["rope_type"] not in ("default", *ROPE_KEYS):
        known = ", ".join(("default", *ROPE_KEYS))
        raise UserError(f"{where}: rope type {rope['rope_type']!r} has no GGUF form here yet; known: {known}")
    wanted = {"default": set(), **ROPE_KEYS}[rope["rope_type"]]
    if rope.get("partial_rotary_factor") == 1.0:
        del rope["partial_rotary_factor"]
    given = {key for key, value in rope.items() if value is not None} - {"rope_type", "rope_theta"}
    if wanted - given or given - wanted - {"original_max_position_embeddings"}:
        raise UserError(
            f"{where}: rope type {rope['rope_type']} with {sorted(given)}; known here with {sorted(wanted)}"
        )
    return rope


def _rope_factors(rope: dict[str, Any], head_dim: int) -> np.ndarray | None:
    """Divisors of the rope frequencies, float32 [head_dim / 2], for rope type llama3; None for others.

    The formula is transformers' `_compute_llama3_parameters` (modeling_rope_utils.py), divided out.
    """
    if rope["rope_type"] != "llama3":
        return None
    wavelengths = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    smooth = np.clip((rope["original_max_position_embeddings"] / wavelengths - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)


def _add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")  # llama.cpp's word for byte-level BPE
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    for kind in ("bos", "eos", "eot", "pad"):
        if (token := getattr(vocabulary, kind)) is not None:
            getattr(writer, f"add_{kind}_token_id")(token)
    writer.add_add_bos_token(vocabulary.add_bos)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)


def _tensors(folder: Path, config: dict[str, Any], architecture: str, dtype: str) -> list[_Tensor]:
    from gguf import MODEL_ARCH, get_tensor_name_map
    from gguf.utility import SafetensorsLocal

    names = get_tensor_name_map(MODEL_ARCH[architecture.upper()], config["num_hidden_layers"])
    heads = {
        "attn_q": config["num_attention_heads"],
        "attn_k": config.get("num_key_value_heads") or config["num_attention_heads"],
    }
    found: dict[str, _Tensor] = {}
    for shard in _shards(folder):
        try:
            inside = SafetensorsLocal(shard).tensors
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{shard}: not a sound safetensors file: {error}; copy it again") from None
        for name, tensor in inside.items():
            if name.endswith("rotary_emb.inv_freq") or (
                name == "lm_head.weight" and config.get("tie_word_embeddings")
            ):
                continue  # computed from the config; the same as the embedding
            target = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if target is None:
                raise UserError(
                    f"{shard}: tensor {name!r} has no place in a {architecture} model; merge adapters first"
                )
            if tensor.dtype not in STORED:
                raise UserError(
                    f"{shard}: {name!r} is {tensor.dtype}; GGUF is written from F32, F16 or BF16 weights"
                )
            at = tensor.data_range
            if (
                at.size != math.prod(tensor.shape) * STORED[tensor.dtype].itemsize
                or at.offset + at.size > shard.stat().st_size
            ):
                raise UserError(f"{shard}: {name!r} ends after the file; copy it again")
            written = tensor.dtype if dtype == "auto" else dtype.upper()
            permuted = heads.get(target.split(".")[-2], 0) if architecture == "llama" else 0
            # llama.cpp computes norms and biases in float32 and asks for them so
            found[target] = _Tensor(
                target, shard, at.offset, tensor.shape, tensor.dtype,
                "F32" if len(tensor.shape) == 1 else written, permuted,
            )  # fmt: skip
    _check_complete(folder, config, found)
    return list(found.values())


def _check_complete(folder: Path, config: dict[str, Any], found: dict[str, _Tensor]) -> None:
    wanted = ["token_embd.weight", "output_norm.weight"]
    wanted += [] if config.get("tie_word_embeddings") else ["output.weight"]
    wanted += [
        f"blk.{layer}.{part}.weight"
        for layer in range(config["num_hidden_layers"])
        for part in (
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_output",
            "ffn_up",
            "ffn_gate",
            "ffn_down",
            "attn_norm",
            "ffn_norm",
        )
    ]
    if missing := [name for name in wanted if name not in found]:
        raise UserError(
            f"{folder}: {len(missing)} tensors are missing, first {missing[0]!r}; copy all shards"
        )


def _shards(folder: Path) -> list[Path]:
    index = read_json(folder / "model.safetensors.index.json").get("weight_map")
    shards = (
        [folder / name for name in sorted(set(index.values()))] if index else [folder / "model.safetensors"]
    )
    for shard in shards:
        if shard.resolve().parent != folder.resolve() and shard.parent != folder:
            raise UserError(f"{shard}: the index names a file outside the model's folder")
        if not shard.is_file():
            raise UserError(f"{shard}: no such file; GGUF is written from a merged model in safetensors")
    return shards


def _pieces(tensor: _Tensor) -> Iterator[np.ndarray]:
    """The tensor's values in order, as `written`, in pieces of about PIECE bytes."""
    columns = math.prod(tensor.shape[1:])
    width = STORED[tensor.stored].itemsize * columns
    rows = tensor.shape[0] if tensor.heads else max(1, PIECE // max(width, 1))
    with tensor.file.open("rb") as file:
        file.seek(tensor.offset)
        for start in range(0, tensor.shape[0], rows):
            count = min(rows, tensor.shape[0] - start)
            values = np.fromfile(file, STORED[tensor.stored], count * columns).reshape(count, columns)
            if tensor.heads:
                values = _permute(values, tensor.heads)
            yield np.ascontiguousarray(_convert(values, tensor))


def _permute(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of Llama's q and k from transformers' halves (x0..xn, y0..yn) to llama.cpp's pairs (x0, y0, x1, y1, …).

    As in llama.cpp's convert_hf_to_gguf.py, LlamaModel.permute.
    """
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _convert(values: np.ndarray, tensor: _Tensor) -> np.ndarray:
    if tensor.stored == tensor.written:
        return values
    if tensor.stored == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    if tensor.written == "F16":
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if not np.isfinite(halved).all():
            raise UserError(
                f"{tensor.file}: {tensor.name!r} has values beyond the range of f16; write bf16 or f32"
            )
        return halved
    if tensor.written == "BF16":
        from gguf import GGMLQuantizationType
        from gguf.quants import quantize

        return quantize(values.astype(np.float32), GGMLQuantizationType.BF16)
    return values.astype(np.float32)
