"""Reads and checks a GGUF header before llama.cpp sees the file.

llama.cpp trusts sizes written in a file and may abort the whole process on a lie. So every length,
offset and type is held against the file's real size here. Nothing of the weights is read.
Format: ggml/docs/gguf.md. Costs no torch; the vocabulary of a large model takes about 0.1 s.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from trainer.config import UserError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_COUNT = 1_000_000  # metadata keys or tensors; the largest published models have some thousands
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself. Arrays in `metadata` are lists, strings are text."""

    metadata: dict[str, Any]
    tensors: dict[str, tuple[tuple[int, ...], str]]  # name → (shape in GGUF order, type name)

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @property
    def context_length(self) -> int:
        """Tokens the model was made for; 0 when the file does not say."""
        return int(self.metadata.get(f"{self.architecture}.context_length", 0))


class _Lie(Exception):
    """A length, type or offset that cannot be."""


def read_header(path: Path, kind: str = "model") -> Header:
    """Read and check the header of a GGUF file that holds a "model" or an "adapter".

    Raises UserError in one line: what is wrong with which file.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; `tunesmith export ID --to gguf` writes one")
    size = path.stat().st_size
    if size < 24:
        raise UserError(f"{path}: not a GGUF file ({size} bytes); export or download it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        try:
            header = _parse(view, size)
            _check_kind(header, kind)
            if kind == "model":
                _check_model(header)
        except (_Lie, struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
            raise UserError(f"{path}: not a sound GGUF file: {error}; export or download it again") from None
    return header


class _Cursor:
    """Reads forward through the file; a step beyond its end is a lie, not an error of memory."""

    def __init__(self, view: mmap.mmap, size: int) -> None:
        self.view, self.size, self.at = view, size, 0

    def unpack(self, form: str) -> Any:
        width = struct.calcsize("<" + form)
        if self.at + width > self.size:
            raise _Lie("it ends inside its header")
        (value,) = struct.unpack_from("<" + form, self.view, self.at)
        self.at += width
        return value

    def text(self) -> str:
        length = self.unpack("Q")
        if length > self.size - self.at:
            raise _Lie(f"a text of {length} bytes does not fit in the file")
        self.at += length
        # a vocabulary may hold tokens that are not UTF-8 by themselves
        return self.view[self.at - length : self.at].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.unpack(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise _Lie(f"unknown metadata type {kind}")
        inner, count = self.unpack("I"), self.unpack("Q")
        if inner == _STRING:
            if count * 8 > self.size - self.at:
                raise _Lie(f"an array of {count} texts does not fit in the file")
            return [self.text() for _ in range(count)]
        if inner not in _SCALARS:
            raise _Lie(f"unknown array type {inner}")
        width = struct.calcsize("<" + _SCALARS[inner]) * count
        if width > self.size - self.at:
            raise _Lie(f"an array of {count} numbers does not fit in the file")
        values = list(struct.unpack_from(f"<{count}{_SCALARS[inner]}", self.view, self.at))
        self.at += width
        return values


def _parse(view: mmap.mmap, size: int) -> Header:
    cursor = _Cursor(view, size)
    if view[:4] != MAGIC:
        raise _Lie(f"it begins with {bytes(view[:4])!r}, not {MAGIC!r}")
    cursor.at = 4
    version = cursor.unpack("I")
    if version not in VERSIONS:
        raise _Lie(f"version {version}; known are {VERSIONS[0]} and {VERSIONS[1]}")
    tensor_count, key_count = cursor.unpack("Q"), cursor.unpack("Q")
    if max(tensor_count, key_count) > MAX_COUNT:
        raise _Lie(f"{tensor_count} tensors and {key_count} metadata keys are not believable")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.text()
        if key in metadata:
            raise _Lie(f"metadata key {key!r} stands twice")
        metadata[key] = cursor.value(cursor.unpack("I"))
    return Header(metadata, _tensors(cursor, tensor_count, metadata))


def _tensors(cursor: _Cursor, count: int, metadata: dict[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    found: dict[str, tuple[tuple[int, ...], str]] = {}
    extents: list[tuple[int, int, str]] = []
    for _ in range(count):
        name, dimensions = cursor.text(), cursor.unpack("I")
        if not 1 <= dimensions <= 4:
            raise _Lie(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(cursor.unpack("Q") for _ in range(dimensions))
        kind, offset = GGMLQuantizationType(cursor.unpack("I")), cursor.unpack("Q")
        block, width = GGML_QUANT_SIZES[kind]
        if 0 in shape or shape[0] % block:
            raise _Lie(f"tensor {name!r} has the shape {shape}, impossible as {kind.name}")
        if name in found:
            raise _Lie(f"tensor {name!r} stands twice")
        found[name] = (shape, kind.name)
        extents.append((offset, prod(shape) // block * width, name))
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0 or alignment % 8:
        raise _Lie(f"alignment {alignment!r}")
    start, end = -(-cursor.at // alignment) * alignment, 0
    for offset, length, name in sorted(extents):
        if offset % alignment or offset < end:
            raise _Lie(f"tensor {name!r} overlaps another or is not aligned")
        end = offset + length
        if start + end > cursor.size:
            raise _Lie(f"tensor {name!r} ends {start + end - cursor.size} bytes after the file")
    return found


def _check_kind(header: Header, kind: str) -> None:
    if not header.architecture:
        raise _Lie("it does not name its architecture (general.architecture)")
    if (found := header.metadata.get("general.type", "model")) != kind:
        raise _Lie(f"it holds a {found}, not a{'n' * (kind == 'adapter')} {kind}")


def _check_model(header: Header) -> None:
    """The numbers that llama.cpp divides by or indexes with."""
    architecture = header.architecture
    for key in ("block_count", "embedding_length", "attention.head_count"):
        value = header.metadata.get(f"{architecture}.{key}")
        if value is None:
            continue  # llama.cpp names a missing key itself
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(number, int) and 0 <= number < 10_000_000 for number in values) or not any(
            values
        ):
            raise _Lie(f"{architecture}.{key} = {str(value)[:40]}")
    context = header.metadata.get(f"{architecture}.context_length", 4096)
    if not isinstance(context, int) or not 8 <= context <= 2**30:
        raise _Lie(f"{architecture}.context_length = {context}")
    for key in ("layer_norm_rms_epsilon", "layer_norm_epsilon"):
        epsilon = header.metadata.get(f"{architecture}.attention.{key}", 0.0)
        if not 0 <= epsilon < 1:
            raise _Lie(f"{architecture}.attention.{key} = {epsilon}")
    blocks = header.metadata.get(f"{architecture}.block_count", 0)
    if isinstance(blocks, int) and blocks > max(len(header.tensors), 1):
        raise _Lie(f"{architecture}.block_count = {blocks} with {len(header.tensors)} tensors")
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list):
        raise _Lie("it holds no vocabulary (tokenizer.ggml.tokens)")
    for key in ("token_type", "scores"):
        values = header.metadata.get(f"tokenizer.ggml.{key}")
        if isinstance(values, list) and len(values) != len(tokens):
            raise _Lie(f"{len(tokens)} tokens but {len(values)} of tokenizer.ggml.{key}")
    embedding = header.tensors.get("token_embd.weight")
    if embedding and len(embedding[0]) == 2 and embedding[0][1] != len(tokens):
        raise _Lie(f"{len(tokens)} tokens but {embedding[0][1]} rows of token_embd.weight")
