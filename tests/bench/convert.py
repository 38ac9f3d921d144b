"""GGUF conversion beside a plain copy of the same files: speed and peak memory. Prints JSON.

A random model with Llama-3.1-8B's widths and fewer layers (`--layers 32` is the whole 16 GB), in bfloat16 shards.
The conversion runs in a process of its own, whose peak resident memory is what counts. Each is measured with a
flush to disk and the source in the page cache. Run: python tests/bench/convert.py [--layers 4] [--dtypes bf16]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

VOCABULARY, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS = 128_256, 4096, 14_336, 32, 8
CHILD = """
import resource, sys
from pathlib import Path
from trainer.export.gguf import write_gguf
write_gguf(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument(
        "--dtypes", default="bf16,f16", help="bf16 is a copy with reordered rows, f16 a conversion"
    )
    arguments = parser.parse_args()
    layers = arguments.layers
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        folder.mkdir()
        make_model(folder, layers)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        result = {"gigabytes": round(size / 1e9, 2), "layers": layers}
        seconds = copy(folder, Path(name) / "copy")
        result["copy_mb_per_second"] = round(size / 1e6 / seconds)
        for dtype in arguments.dtypes.split(","):
            seconds, memory = convert(folder, Path(name) / "out.gguf", dtype)
            result[dtype] = {
                "mb_per_second": round(size / 1e6 / seconds),
                "peak_memory_mb": round(memory / 1e6),
            }
    print(json.dumps(result))


def copy(source: Path, target: Path) -> float:
    """Seconds to copy the shards and flush them."""
    target.mkdir()
    began = time.perf_counter()
    for file in source.glob("*.safetensors"):
        shutil.copyfile(file, target / file.name)
        with (target / file.name).open("rb") as written:
            os.fsync(written.fileno())
    seconds = time.perf_counter() - began
    shutil.rmtree(target)
    return seconds


def convert(folder: Path, out: Path, dtype: str) -> tuple[float, float]:
    """(seconds, bytes of peak memory) of one conversion."""
    began = time.perf_counter()
    command = [sys.executable, "-c", CHILD, str(folder), str(out), dtype]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    out.unlink()
    return time.perf_counter() - began, float(done.stdout)


def make_model(folder: Path, layers: int) -> None:
    """config.json, a tokenizer of the right size, and one shard a layer with random bits that are small numbers."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "num_hidden_layers": layers,
        "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "dtype": "bfloat16",
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}, "tie_word_embeddings": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    make_tokenizer(folder)
    kv = HIDDEN // HEADS * KV_HEADS
    ends = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    weight_map = write_shard(folder / "ends.safetensors", ends)
    for layer in range(layers):
        shapes = {
            "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (kv, HIDDEN), "self_attn.v_proj": (kv, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.up_proj": (INTERMEDIATE, HIDDEN),
            "mlp.gate_proj": (INTERMEDIATE, HIDDEN), "mlp.down_proj": (HIDDEN, INTERMEDIATE),
            "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
        }  # fmt: skip
        named = {f"model.layers.{layer}.{name}.weight": shape for name, shape in shapes.items()}
        weight_map |= write_shard(folder / f"layer-{layer}.safetensors", named)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def write_shard(path: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    header, offset = {}, 0
    for name, shape in shapes.items():
        end = offset + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    block = np.random.default_rng(0).integers(0x3C00, 0x3D00, 1 << 22, dtype=np.uint16).tobytes()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for start in range(0, offset, len(block)):
            file.write(block[: min(len(block), offset - start)])
    return dict.fromkeys(shapes, path.name)


def make_tokenizer(folder: Path) -> None:
    """As many tokens as Llama 3 has; what they are does not matter to the time."""
    regex = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    merges = []
    for first in list(vocabulary):
        for second in letters:
            if len(vocabulary) < VOCABULARY and first + second not in vocabulary:
                vocabulary[first + second] = len(vocabulary)
                merges.append((first, second))
    for pair in merges[: VOCABULARY - len(vocabulary)]:
        token = "".join(pair) + letters[0]
        vocabulary[token] = len(vocabulary)
        merges.append(("".join(pair), letters[0]))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    steps = [
        pre_tokenizers.Split(Regex(regex), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")


if __name__ == "__main__":
    main()
