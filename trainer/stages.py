"""Memory, disk and time of each stage of a run: training, scoring, merging, the GGUF file and its proof, serving.

Beside estimate.py, which reckons training in detail; here is what the code of each stage keeps at once. Arithmetic
only. Sizes in GiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.config import STARTER, RunConfig

GIB = 2**30
F16, F32 = 2.0, 4.0
# Bytes a weight in a GGUF file (llama.cpp, quantize README: 16, 8.5 and 4.9 bits for an 8B model).
GGUF_BYTES = {"f16": 2.0, "q8_0": 8.5 / 8, "q4_k_m": 4.9 / 8}
SERVED_CONTEXT = 4096  # tokens; what the app opens a model with
PROCESS_GB = 0.9  # Python with torch and transformers loaded
SHARD_GB = 5.0  # largest safetensors file of a Hub model; transformers reads one at a time
LLAMA_GB = 0.3  # llama.cpp's compute buffers at the served context
ADAM_BYTES = 12.0  # of a trained weight in a checkpoint: fp32 weight and two moments


@dataclass(frozen=True)
class Stage:
    """`device_gb` on the GPU (None: the stage computes on the CPU), `host_gb` of RAM, `disk_gb` that it writes."""

    name: str
    device_gb: float | None
    host_gb: float
    disk_gb: float
    seconds: float | None = None


def stages(
    config: RunConfig, shape: Any, training_gb: float, loaded_gb: float, trained: float, on_cpu: bool, rates: Rates,
    tokens: Any = None, rows: int | None = None, training_seconds: float | None = None,
) -> list[Stage]:  # fmt: skip
    """All stages in their order. `training_gb`, `loaded_gb` (the base as it is loaded) and `trained` (weights) are
    estimate.py's, `rows` the training rows.
    """
    weights = shape.params_b * 1e9
    stored = weights * (F32 if config.base_model == STARTER else F16)  # as the base model's files have it
    download = 0.0 if config.base_model == STARTER else stored
    result = stored if config.keeps_whole_model else trained * F32
    keep = config.save_total_limit * trained * ADAM_BYTES + result + download
    reading = PROCESS_GB + min(stored / GIB, SHARD_GB)
    scoring = loaded_gb + cache(shape, EVALUATED_TOKENS, F32 if on_cpu else F16) + PROCESS_GB
    merging = PROCESS_GB + stored / GIB + largest_matrix(shape) * F32 / GIB
    proof = PROCESS_GB + 2 * stored / GIB  # transformers and llama.cpp, one beside the other
    found = [
        Stage("training", None if on_cpu else training_gb, training_gb if on_cpu else reading, keep / GIB, training_seconds),
        Stage("evaluation", None if on_cpu else scoring, scoring if on_cpu else reading, 0.0, _scoring_seconds(config, shape, loaded_gb * GIB, rates, tokens, rows)),
        Stage("merging", None, PROCESS_GB if config.keeps_whole_model else merging, 0.0 if config.keeps_whole_model else stored / GIB, None if config.keeps_whole_model else rates.moving(3 * stored)),
        Stage("gguf", None, proof, 2 * stored / GIB, rates.moving(4 * stored)),
    ]  # fmt: skip
    for kind in ("f16", "q4_k_m"):
        served = weights * GGUF_BYTES[kind] / GIB + cache(shape, SERVED_CONTEXT, F16) + LLAMA_GB
        found.append(
            Stage(f"serving {kind}", None if on_cpu else served, served if on_cpu else 0.5, weights * GGUF_BYTES[kind] / GIB)
        )  # fmt: skip
    return [
        Stage(
            s.name, _round(s.device_gb), _round(s.host_gb) or 0.0, _round(s.disk_gb) or 0.0, _round(s.seconds)
        )
        for s in found
    ]


@dataclass(frozen=True)
class Rates:
    """What the device does a second: floating-point operations, bytes of its memory, bytes of the disk."""

    flop: float | None
    memory: float | None
    disk: float

    def moving(self, size: float) -> float:
        """Seconds that reading or writing `size` bytes of files takes."""
        return size / self.disk


EVALUATED_TOKENS = 16_384  # of a batch (generate.BATCH_TOKENS)
EVALUATED_ROWS = 128


def cache(shape: Any, tokens: int, width: float) -> float:
    """Keys and values of `tokens` tokens: 2 x layers x kv_heads x head_dim x bytes each."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * width * tokens / GIB


def largest_matrix(shape: Any) -> float:
    return max(shape.vocab * shape.hidden, shape.hidden * max(shape.ffn, shape.expert_ffn * shape.experts))


def _scoring_seconds(
    config: RunConfig, shape: Any, loaded: float, rates: Rates, tokens: Any, rows: int | None
) -> float | None:
    """Both models over the test rows: the prompts are bound by arithmetic, each new token by reading the weights."""
    if not rows or not rates.flop:
        return None
    tested = rows * config.test_fraction
    measured = getattr(tokens, "mean", 0) or (tokens.p50 if tokens is not None else config.max_length)
    mean = min(config.max_length, float(measured))
    active = (shape.active_b or shape.params_b) * 1e9
    prompts = 2 * active * tested * mean / rates.flop
    batch = max(1.0, min(EVALUATED_ROWS, EVALUATED_TOKENS / (mean + config.max_new_tokens)))
    step = max(loaded / rates.memory if rates.memory else 0.0, 2 * active * batch / rates.flop)
    return 2 * (prompts + tested / batch * config.max_new_tokens * step)


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
