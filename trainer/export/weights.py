"""The tensors of a model folder: where they lie in its safetensors files, and their values piece by piece.

Part of writing GGUF. Nothing is held in memory but a piece of 64 MB, or a whole q or k where rows are reordered.
Costs no torch.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import UserError
from trainer.export.architectures import Architecture, is_tied, kv_heads, language_name
from trainer.export.vocabulary import read_json

PIECE = 64 * 2**20  # bytes of a tensor held in memory at a time
STORED = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}  # numpy has no bf16: its bits
WIDTHS = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q8_0": (32, 34)}  # values and bytes of a block
ALWAYS_F32 = ("ffn_gate_inp",)  # a router, which llama.cpp wants in full
EXPERT = re.compile(r"(.*\.mlp\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight")
STACKED = re.compile(r"(.*\.mlp\.experts)\.(gate_up_proj|down_proj)")
COMPUTED = ("rotary_emb.inv_freq",)  # from the config


@dataclass(frozen=True)
class Tensor:
    """A tensor of the GGUF file and the stretches of safetensors files that hold its values in order."""

    name: str
    shape: tuple[int, ...]
    stored: str  # "F32" | "F16" | "BF16"
    written: str  # likewise, or "Q8_0"
    stretches: tuple[tuple[Path, int, int], ...]  # file, offset, bytes
    heads: int = 0  # rows are reordered within this many heads; 0: as they are
    plus: float = 0.0  # added to every value

    @property
    def as_stored(self) -> bool:
        """Whether the file's own bytes are the tensor's."""
        return self.stored == self.written and not self.heads and not self.plus

    @property
    def nbytes(self) -> int:
        values, width = WIDTHS[self.written]
        return math.prod(self.shape) // values * width


def read_tensors(folder: Path, config: dict[str, Any], row: Architecture, dtype: str) -> list[Tensor]:
    """The tensors of the model in `folder`, in the order of its files.

    dtype: "auto", "f32", "f16", "bf16" or "q8_0". Raises UserError for one that is missing, cut or not known.
    """
    from gguf import MODEL_ARCH, get_tensor_name_map

    names = get_tensor_name_map(MODEL_ARCH[row.name.upper()], config["num_hidden_layers"])
    heads = {"attn_q": config["num_attention_heads"], "attn_k": kv_heads(config)} if row.permuted else {}
    found: dict[str, Tensor] = {}
    for name, shape, stored, stretches in _stacked(_inside(folder, row, config)):
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise UserError(
                f"{stretches[0][0]}: tensor {name!r} has no place in a {row.name} model; merge adapters first"
            )
        part = target.split(".")[-2]
        plus = 1.0 if row.norm_plus_one and part.endswith("norm") else 0.0
        found[target] = Tensor(
            target, shape, stored, _written(part, shape, stored, dtype), stretches, heads.get(part, 0), plus
        )
    _check_complete(folder, config, row, found)
    return list(found.values())


def _written(part: str, shape: tuple[int, ...], stored: str, dtype: str) -> str:
    # llama.cpp computes norms and biases in float32 and asks for them so
    if len(shape) == 1 or part in ALWAYS_F32:
        return "F32"
    if dtype == "q8_0":
        return "Q8_0" if shape[-1] % WIDTHS["Q8_0"][0] == 0 else "F16"
    return stored if dtype == "auto" else dtype.upper()


_Found = tuple[str, tuple[int, ...], str, tuple[tuple[Path, int, int], ...]]


def _inside(folder: Path, row: Architecture, config: dict[str, Any]) -> Iterator[_Found]:
    """(name, shape, dtype, stretches) of every tensor in the folder's safetensors files, checked against their sizes."""
    from gguf.utility import SafetensorsLocal

    for shard in shards(folder):
        try:
            inside = SafetensorsLocal(shard).tensors
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{shard}: not a sound safetensors file: {error}; copy it again") from None
        for full_name, tensor in inside.items():
            name = language_name(full_name)
            if name is None or name.endswith(COMPUTED) or (name == "lm_head.weight" and is_tied(row, config)):
                continue  # the output is the same as the embedding
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
            yield name, tuple(tensor.shape), tensor.dtype, ((shard, at.offset, at.size),)


def _stacked(inside: Iterator[_Found]) -> Iterator[_Found]:
    """One tensor a projection for all experts of a layer, as llama.cpp has them; others as they are.

    Files hold experts one by one, or all in one with gate and up behind each other: either way the values of a
    stacked tensor are stretches of them.
    """
    single: dict[str, dict[int, _Found]] = defaultdict(dict)
    for tensor in inside:
        name, shape, stored, stretches = tensor
        if match := EXPERT.fullmatch(name):
            single[f"{match[1]}.{match[3]}.weight"][int(match[2])] = tensor
        elif match := STACKED.fullmatch(name.removesuffix(".weight")):
            if match[2] == "down_proj":
                yield f"{match[1]}.down_proj.weight", shape, stored, stretches
                continue
            (file, offset, size), count = stretches[0], shape[0]
            half = size // count // 2
            for index, part in enumerate(("gate_proj", "up_proj")):
                pieces = tuple((file, offset + (2 * e + index) * half, half) for e in range(count))
                yield f"{match[1]}.{part}.weight", (count, shape[1] // 2, shape[2]), stored, pieces
        else:
            yield tensor
    for name, experts in single.items():
        rows = [experts.get(index) for index in range(max(experts) + 1)]
        if None in rows or len({(one[1], one[2]) for one in rows}) > 1:
            raise UserError(f"{name}: an expert is missing or has another shape; copy all shards")
        stretches = tuple(stretch for one in rows for stretch in one[3])
        yield name, (len(rows), *rows[0][1]), rows[0][2], stretches


def _check_complete(
    folder: Path, config: dict[str, Any], row: Architecture, found: dict[str, Tensor]
) -> None:
    wanted = ["token_embd.weight", "output_norm.weight"]
    wanted += [] if is_tied(row, config) else ["output.weight"]
    layers = range(config["num_hidden_layers"])
    wanted += [f"blk.{layer}.{part}.weight" for layer in layers for part in row.parts]
    if missing := [name for name in wanted if name not in found]:
        raise UserError(
            f"{folder}: {len(missing)} tensors are missing, first {missing[0]!r}; copy all shards"
        )


def shards(folder: Path) -> list[Path]:
    """The safetensors files of a model folder. Raises UserError for one that is missing or outside."""
    index = read_json(folder / "model.safetensors.index.json").get("weight_map")
    files = (
        [folder / name for name in sorted(set(index.values()))] if index else [folder / "model.safetensors"]
    )
    for shard in files:
        if shard.resolve().parent != folder.resolve() and shard.parent != folder:
            raise UserError(f"{shard}: the index names a file outside the model's folder")
        if not shard.is_file():
            raise UserError(f"{shard}: no such file; GGUF is written from a merged model in safetensors")
    return files


def pieces(tensor: Tensor) -> Iterator[np.ndarray]:
    """The tensor's values in order, as `written`, in pieces of about PIECE bytes."""
    columns = tensor.shape[-1] if len(tensor.shape) > 1 else 1
    width = STORED[tensor.stored].itemsize * columns
    for path, offset, size in tensor.stretches:
        rows = size // width
        step = rows if tensor.heads else max(1, PIECE // max(width, 1))
        with path.open("rb") as file:
            file.seek(offset)
            for start in range(0, rows, step):
                count = min(step, rows - start)
                values = np.fromfile(file, STORED[tensor.stored], count * columns).reshape(count, columns)
                if tensor.heads:
                    values = permute(values, tensor.heads)
                yield np.ascontiguousarray(_convert(values, tensor))


def permute(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of Llama's q and k from transformers' halves (x0..xn, y0..yn) to llama.cpp's pairs (x0, y0, x1, y1, …).

    As in llama.cpp's conversion of Llama (LlamaModel.permute).
    """
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _convert(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    if tensor.stored == tensor.written and not tensor.plus:
        return values
    if tensor.stored == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    if tensor.plus:
        values = values.astype(np.float32) + np.float32(tensor.plus)
    if tensor.written == "F16":
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if not np.isfinite(halved).all():
            raise UserError(
                f"{tensor.stretches[0][0]}: {tensor.name!r} has values beyond the range of f16; write bf16 or f32"
            )
        return halved
    if tensor.written in ("BF16", "Q8_0"):
        from gguf import GGMLQuantizationType
        from gguf.quants import quantize

        return quantize(values.astype(np.float32), GGMLQuantizationType[tensor.written])
    return values.astype(np.float32)
