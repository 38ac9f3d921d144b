"""A model folder (config.json, safetensors, tokenizer.json) → one GGUF file that llama.cpp and Ollama run.

`write_gguf(folder, out)`; after merging, before the parity check. Weights go through tensor by tensor in
pieces of 64 MB, so an 8B model needs no more memory than a small one. Costs no torch. Where LLAMA_CPP_DIR names
a checkout of llama.cpp, its convert_hf_to_gguf.py is run instead.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from trainer.config import UserError
from trainer.export import rope as ropes
from trainer.export.architectures import Architecture, head_dim, numbers, read_config, row_of
from trainer.export.vocabulary import Vocabulary, read_vocabulary
from trainer.export.weights import PIECE, STORED, Tensor, pieces, read_tensors

DTYPES = ("auto", "f32", "f16", "bf16", "q8_0")
FILE_TYPES = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}  # gguf.LlamaFileType
Progress = Callable[[int, int], None]


def write_gguf(
    folder: Path,
    out: Path,
    dtype: str = "auto",
    progress: Progress | None = None,
    converter: str | None = None,
) -> Path:
    """Write the model of `folder` as the GGUF file `out`, in one piece (a reader sees all of it or nothing).

    dtype: "f32", "f16", "bf16", "q8_0", or "auto" for the one the weights have. progress(bytes done, bytes in
    all). converter: a checkout of llama.cpp whose converter is used; None for LLAMA_CPP_DIR's, or else ours.
    Raises UserError for an architecture, rope type, tokenizer or dtype that would not come out equal.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r}: choose {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")
    out.parent.mkdir(parents=True, exist_ok=True)
    for left in out.parent.glob(f".{out.name}.*.part"):  # of an export that was killed: as large as the model
        if not _alive(left.suffixes[-2][1:]):
            left.unlink(missing_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    checkout = os.environ.get("LLAMA_CPP_DIR", "") if converter is None else converter
    try:
        if checkout:
            _run_converter(Path(checkout).expanduser(), folder, temporary, dtype)
        else:
            _write_own(folder, temporary, dtype, progress)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    return out


def _alive(pid: str) -> bool:
    return pid.isdigit() and int(pid) != os.getpid() and Path(f"/proc/{pid}").exists()


def _run_converter(checkout: Path, folder: Path, out: Path, dtype: str) -> None:
    """The user's own converter, in this Python. It is theirs, so what it writes is only held against the proof."""
    script = checkout / "convert_hf_to_gguf.py"
    if not script.is_file():
        raise UserError(
            f"LLAMA_CPP_DIR = {checkout}: holds no convert_hf_to_gguf.py; set it to a checkout of llama.cpp, or unset it"
        )
    command = [sys.executable, str(script), str(folder), "--outfile", str(out), "--outtype", dtype]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    print(done.stderr[-4000:], end="", flush=True)  # to the run's log
    if done.returncode or not out.is_file():
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it wrote nothing"]
        raise UserError(
            f"{script}: {lines[-1].strip()[:200]}; see the log, or unset LLAMA_CPP_DIR for the built-in converter"
        )


def _write_own(folder: Path, out: Path, dtype: str, progress: Progress | None) -> None:
    config = read_config(folder)
    row = row_of(folder, config)
    tensors = read_tensors(folder, config, row, dtype)
    rows = next(tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight")
    _write(out, folder, config, row, read_vocabulary(folder, rows), tensors, progress)


def _write(
    path: Path, folder: Path, config: dict[str, Any], row: Architecture, vocabulary: Vocabulary,
    tensors: list[Tensor], progress: Progress | None,
) -> None:  # fmt: skip
    from gguf import GGMLQuantizationType, GGUFWriter

    rope = ropes.rope_of(folder, config, row)
    computed = ropes.rope_tensors(rope, head_dim(config))
    writer = GGUFWriter(path, row.name)
    try:
        writer.add_type("model")
        writer.add_name(vocabulary.model_name(folder.resolve().name))
        for key, value in numbers(row, config, ropes.rope_numbers(row, config, rope)).items():
            kinds = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
            kinds[type(value)](key, value)
        widest = max((t for t in tensors if len(t.shape) > 1), key=lambda t: t.nbytes)
        writer.add_file_type(FILE_TYPES[widest.written])
        writer.add_quantization_version(2)  # GGML_QNT_VERSION
        add_vocabulary(writer, vocabulary)
        for name, values in computed.items():
            writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes)
        for tensor in tensors:
            kind = GGMLQuantizationType[tensor.written]
            # the type that is not uint8 tells gguf that the shape counts values, not bytes
            writer.add_tensor_info(tensor.name, tensor.shape, STORED["F32"], tensor.nbytes, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        file = writer.fout[0]
        writer.write_padding(file, file.tell())
        for values in computed.values():
            file.write(values.tobytes())
            writer.write_padding(file, values.nbytes)
        _write_weights(writer, file, tensors, progress)
        file.flush()
        os.fsync(file.fileno())
    finally:
        writer.close()


def _write_weights(writer: Any, file: BinaryIO, tensors: list[Tensor], progress: Progress | None) -> None:
    done, total = 0, sum(tensor.nbytes for tensor in tensors)
    for tensor in tensors:
        for written in _copied(tensor, file) if tensor.as_stored else _converted(tensor, file):
            done += written
            if progress:
                progress(done, total)
        writer.write_padding(file, tensor.nbytes)


def _converted(tensor: Tensor, file: BinaryIO) -> Iterator[int]:
    for piece in pieces(tensor):
        file.write(piece.data)
        yield piece.nbytes


def _copied(tensor: Tensor, file: BinaryIO) -> Iterator[int]:
    """Bytes that stay as they are, handed over inside the kernel where the system can: as fast as a copy."""
    file.flush()
    for path, offset, size in tensor.stretches:
        with path.open("rb") as source:
            end = offset + size
            while offset < end:
                count = _hand_over(source, file, offset, min(PIECE, end - offset))
                offset += count
                yield count


def _hand_over(source: BinaryIO, file: BinaryIO, offset: int, count: int) -> int:
    with contextlib.suppress(AttributeError, OSError):  # another file system or system: through memory then
        if moved := os.copy_file_range(source.fileno(), file.fileno(), count, offset):
            return moved
    source.seek(offset)
    file.write(source.read(count))
    file.flush()
    return count


def add_vocabulary(writer: Any, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.space_prefix)
    else:
        writer.add_token_merges(vocabulary.merges)
    for kind in ("bos", "eos", "eot", "unk", "pad"):
        if (token := getattr(vocabulary, kind)) is not None:
            getattr(writer, f"add_{kind}_token_id")(token)
    writer.add_add_bos_token(vocabulary.add_bos)
    if vocabulary.chat_template:
        writer.add_chat_template(vocabulary.chat_template)
