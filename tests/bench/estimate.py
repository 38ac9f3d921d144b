"""Predicted beside published GPU memory: how far trainer/estimate.py is off, point by point.

Run `python tests/bench/estimate.py` (seconds, no GPU); prints JSON, with --table a table. The published stacks
build whole logits and cast what TRL 1.16 does not, so each group says how its software keeps things.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import Any

from kb.facts import by_id
from trainer.estimate import GIB, Shape, Stack, memory

LENGTHS = [256, 512, 1024, 2048, 4096, 8192]
DECIMAL = GIB / 1e9  # Qwen's table fits decimal gigabytes


def qwen1(params: float, hidden: int, layers: int, ffn: int) -> Shape:
    heads = hidden // 128
    return Shape(params, layers, hidden, heads, heads, 128, ffn, 151936, tied=False)


QWEN = {
    "1.8B": qwen1(1.837, 2048, 24, 5504),
    "7B": qwen1(7.721, 4096, 32, 11008),
    "14B": qwen1(14.167, 5120, 40, 13696),
    "72B": qwen1(72.288, 8192, 80, 24576),
}
LLAMA2_7B = Shape(6.738, 32, 4096, 32, 32, 128, 11008, 32000, tied=False)

# Qwen (2023): transformers 4.32, PEFT 0.6, plain AdamW; GPTQ int4 with groups of 128 for Q-LoRA. Its scripts train LoRA
# with --bf16, where accelerate's autocast turns the logits into fp32 (16-bit logits and their shifted copy, fp32 output,
# fp32 log-softmax and gradient: three fp32 copies' worth), and Q-LoRA with --fp16 under DeepSpeed, where they stay in 16
# bits (two). github.com/QwenLM/Qwen, finetune/finetune_lora_single_gpu.sh and finetune_qlora_single_gpu.sh.
QWEN_LORA = Stack(fused_head=False, logit_copies=3, step_bytes=8, runtime_gb=1.5, fragmentation=0.03)
QWEN_QLORA = Stack(
    fused_head=False,
    logit_copies=2,
    quant_bytes=0.53,
    qlora_bytes=16,
    step_bytes=8,
    runtime_gb=1.5,
    fragmentation=0.03,
)
# DeepSpeed bf16: weight 2, gradient 2, fp32 master 4, fp32 gradient 4, Adam 8, and 4 while it steps.
DEEPSPEED = Stack(
    fused_head=False, logit_copies=2, full_bytes=20, step_bytes=4, runtime_gb=0.5, fragmentation=0.0
)
# LLaMA-Factory (2024-04): bitsandbytes NF4 with prepare_model_for_kbit_training, hidden states and embeddings fp32.
LF_STACK = Stack(
    4.0, fused_head=False, hidden_bytes=4, qlora_bytes=16, logit_copies=2.5, runtime_gb=0.8, fragmentation=0.0
)
# PEFT's own benchmark: bf16 weights and states, no recomputing, rows of at most 768 tokens.
PEFT_STACK = Stack(fused_head=False, full_bytes=8, fragmentation=0.0)
# torchtune: bf16 everywhere, chunked cross entropy, compiled.
TORCHTUNE = Stack(lora_bytes=8, fragmentation=0.0, runtime_gb=0.6)


@dataclass(frozen=True)
class Point:
    group: str
    name: str
    published_gb: float
    shape: Any
    stack: Stack
    settings: dict[str, Any] = field(default_factory=dict)
    unit: float = 1.0

    def predicted_gb(self) -> float:
        return sum(memory(self.shape, stack=self.stack, **self.settings).values()) * self.unit


def row(
    group: str,
    name: str,
    shape: Any,
    stack: Stack,
    figures: list[float],
    unit: float = 1.0,
    lengths: list[int] = LENGTHS,
    **settings: Any,
) -> list[Point]:
    return [
        Point(group, f"{name} @{length}", gb, shape, stack, {"length": length, **settings}, unit)
        for length, gb in zip(lengths, figures, strict=True)
    ]


def points() -> list[Point]:
    llama8, llama3 = by_id("models")["llama3.1-8b-instruct"], by_id("models")["llama3.2-3b-instruct"]
    q = {"unit": DECIMAL, "r": 64}
    return [
        *row("Qwen LoRA, A100", "1.8B", QWEN["1.8B"], QWEN_LORA, [6.7, 7.4, 8.4, 11.0, 16.2, 21.8], peft="lora", **q),
        *row("Qwen LoRA, A100", "7B", QWEN["7B"], QWEN_LORA, [20.1, 20.4, 21.5, 23.8, 29.7, 36.6], peft="lora", **q),
        *row("Qwen LoRA, A100", "14B", QWEN["14B"], QWEN_LORA, [34.6, 35.1, 35.3, 37.4, 42.5, 55.2], peft="lora", **q),
        *row("Qwen Q-LoRA, A100", "1.8B", QWEN["1.8B"], QWEN_QLORA, [5.8, 6.0, 6.6, 7.8, 10.2, 15.8], peft="qlora", **q),
        *row("Qwen Q-LoRA, A100", "7B", QWEN["7B"], QWEN_QLORA, [11.5, 11.5, 12.3, 13.9, 16.9, 23.5], peft="qlora", **q),
        *row("Qwen Q-LoRA, A100", "14B", QWEN["14B"], QWEN_QLORA, [18.7, 18.4, 18.9, 19.9, 23.0, 27.9], peft="qlora", **q),
        *row("Qwen Q-LoRA, A100", "72B", QWEN["72B"], QWEN_QLORA, [61.4, 61.4, 62.9, 64.1, 68.0, 75.6], peft="qlora", **q),
        *row("Qwen full, A100", "1.8B", QWEN["1.8B"], DEEPSPEED, [43.5, 43.5, 43.5, 43.5, 47.1, 48.3], DECIMAL, peft="full"),
        *row("LLaMA-Factory QLoRA, A100-40G", "LLaMA2-7B r8", LLAMA2_7B, LF_STACK, [6, 7, 9, 12, 19, 32], lengths=[1024 * 2**i for i in range(6)], peft="qlora", r=8),
        *row("PEFT benchmark, L40S", "Llama-3.2-3B LoRA r32", llama3, PEFT_STACK, [20.8], lengths=[768], peft="lora", r=8, batch=4, checkpointing=False),
        *row("PEFT benchmark, L40S", "Llama-3.2-3B full", llama3, PEFT_STACK, [36.2], lengths=[768], peft="full", batch=4, checkpointing=False),
        *row("torchtune, RTX 4090", "Llama-3.1-8B LoRA", llama8, TORCHTUNE, [16.2], lengths=[2048], peft="lora", r=8, batch=2),
        *row("torchtune, RTX 4090", "Llama-3.1-8B QLoRA", llama8, TORCHTUNE, [7.4], lengths=[2048], peft="qlora", r=8, batch=2),
    ]  # fmt: skip


def measure() -> dict[str, Any]:
    """Errors of all points: {"points": [...], "summary": {...}}; an error is predicted / published - 1."""
    rows = []
    for point in points():
        predicted = point.predicted_gb()
        rows.append(
            {
                "group": point.group,
                "point": point.name,
                "published_gb": point.published_gb,
                "predicted_gb": round(predicted, 2),
                "error": round(predicted / point.published_gb - 1, 3),
            }
        )
    errors = sorted(abs(row["error"]) for row in rows)
    summary = {
        "points": len(errors),
        "median": errors[len(errors) // 2],
        "worst": errors[-1],
        "within_8_percent": round(sum(error <= 0.08 for error in errors) / len(errors), 3),
        "within_15_percent": round(sum(error <= 0.15 for error in errors) / len(errors), 3),
    }
    return {"points": rows, "summary": summary}


def main() -> None:
    result = measure()
    if "--table" in sys.argv:
        for row in result["points"]:
            print(
                f"{row['group']:30} {row['point']:28} {row['published_gb']:6.1f} {row['predicted_gb']:7.1f} {row['error']:+6.1%}"
            )
        print(result["summary"])
    else:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
