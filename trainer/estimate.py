"""How much memory and time a run will take, before it runs: every term shown, with an interval.

Between a RunConfig and the worker: the advice chooses model, adapters and batch by it, the screen shows it.
Arithmetic only, no torch; `python tests/bench/estimate.py` sets it beside published measurements.
Memory is in GiB, as the box of a card says "GB".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kb.facts import by_id
from trainer.calibration import Pair, interval, like, memory_ratios, time_ratios
from trainer.config import NF4 as NF4_KINDS
from trainer.config import STARTER, WHOLE, RunConfig
from trainer.hardware import GpuInfo, Hardware, gpu_row
from trainer.stages import Rates, Stage, stages

GIB = 2**30
# Bytes a parameter (FACTS of kb: methods/qlora#memory). NF4 blocks of 64 with double quantization take 4.127 bits.
BF16, FP32, NF4 = 2.0, 4.0, 0.516
TILE_TOKENS, TILE_VOCAB = 4096, 32768  # TRL 1.16, trl/kernels/chunked_logprob.py: tile of the fused head
# Share by which the published points scatter about the prediction: 9 of 10 lie inside (tests/bench/estimate.py).
BELOW, ABOVE = 0.12, 0.15
PAIRED = ("dpo", "orpo", "simpo", "reward")  # two answers a row
FASTER, SLOWER = 0.5, 1.0  # time, before a run was measured: half to twice


TERMS = {  # name of a term → how the Chinese screen shows it
    "weights": "權重",
    "trained weights, gradients, optimizer": "可訓練權重、梯度與最佳化器",
    "reference model": "參考模型",
    "stored activations": "保存的激活值",
    "recompute, head or step": "重算、輸出層或更新",
    "runtime and fragmentation": "執行環境與碎片",
}


@dataclass(frozen=True)
class Shape:
    """The sizes that memory follows. A ModelCard has the same names and serves as well; `params_b` in billions."""

    params_b: float
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool = True
    experts: int = 0
    expert_ffn: int = 0
    active_b: float | None = None


@dataclass(frozen=True)
class Stack:
    """What the software keeps in memory. The defaults are TRL 1.16 as Tunesmith's worker calls it, on CUDA."""

    weight_bytes: float = BF16  # a weight that is not quantized
    quant_bytes: float = NF4  # a quantized linear weight
    compute_bytes: float = BF16  # an activation
    hidden_bytes: float = BF16  # a stored block input; 4 after prepare_model_for_kbit_training
    full_bytes: float = 16.0  # a weight trained in full: fp32 weight, gradient and two Adam moments
    lora_bytes: float = 16.0  # an adapter weight with gradient and Adam moments, on a bf16 base
    qlora_bytes: float = 8.0  # the same on a 4-bit base: TRL casts the adapters to bf16
    fused_head: bool = True  # False: whole logits are built, `logit_copies` fp32 copies of them
    logit_copies: float = 2.5
    tile_copies: float = 1.0  # Triton works in place; torch on a CPU makes fp32 copies of a tile
    step_bytes: float = 0.0  # a trained weight's temporaries in an optimizer step that is not fused
    runtime_gb: float = 1.2  # CUDA context, kernels, libraries
    fragmentation: float = 0.05  # reserved over allocated


@dataclass(frozen=True)
class Estimate:
    """Memory by term in GiB with its interval; `fits` and `seconds` are None where the device is unknown.

    The interval holds nine runs of ten: by the published points, and by the `runs` measured on this device
    (calibration.py). `seconds` are the training with its evaluations, `total_seconds` scoring and export as well.
    """

    terms: dict[str, float]
    total_gb: float
    low_gb: float
    high_gb: float
    fits: bool | None = None
    seconds: float | None = None
    seconds_low: float | None = None
    seconds_high: float | None = None
    stages: list[Stage] = field(default_factory=list)
    host_gb: float = 0.0  # RAM of the stage that needs most
    disk_gb: float = 0.0  # of everything that the run and its export write
    runs: int = 0  # runs on this machine that the interval rests on
    total_seconds: float | None = None
    total_seconds_high: float | None = None
    rate: float | None = None  # FLOP a second that was measured here and the time rests on


def estimate(
    config: RunConfig,
    card: Any,
    tokens: Any = None,
    hardware: Hardware | None = None,
    rows: int | None = None,
    lang: str = "en",
    pairs: Sequence[Pair] = (),
    rate: float | None = None,
) -> Estimate:
    """Memory, disk and time of a run before it starts.

    `card` is a ModelCard or Shape, None for the starter model; `tokens` are measured Lengths (p50, p95, max, mean) of
    the rows, without which every row counts as `max_length`; `rows` are the training rows, for the time; `pairs` are
    finished runs of this home (calibration.load); `rate` is what the device was measured to compute (rate.known).
    """
    shape = card or starter_shape(
        config.starter_hidden_size, config.starter_layers, config.starter_vocab_size
    )
    gpu = hardware.gpus[0] if hardware and hardware.gpus and config.device != "cpu" else None
    on_cpu = config.device == "cpu" or (hardware is not None and not hardware.gpus)
    stack = stack_of(config, on_cpu, gpu.bf16 if gpu else True)
    terms = run_terms(config, shape, tokens, stack)
    total = sum(terms.values())
    limit = gpu.memory_gb if gpu else hardware.ram_gb if hardware and on_cpu else None
    usable = None if limit is None else limit * setting("headroom")
    fits = None if usable is None else total <= usable
    pairs = like(pairs, gpu.name if gpu else "cpu", config)
    low, high = interval(total, memory_ratios(pairs), BELOW, ABOVE)
    cores = hardware.cpu_cores if hardware and on_cpu else None
    rates = rates_of(config, gpu, cores, rate)
    time = seconds(config, shape, tokens, rows, rates)
    trained = trained_params(shape, config)
    loaded = terms.get("weights", shape.params_b * 1e9 * stack.weight_bytes / GIB)
    parts = stages(config, shape, total, loaded, trained, on_cpu, rates, tokens, rows, time)
    whole = sum(stage.seconds or 0 for stage in parts) if time else None
    between = interval(time, time_ratios(pairs), FASTER, SLOWER) if time else (None, None)
    return Estimate(
        terms={name if lang == "en" else TERMS[name]: round(size, 3) for name, size in terms.items()},
        total_gb=round(total, 2),
        low_gb=round(low, 2),
        high_gb=round(high, 2),
        fits=fits,
        seconds=time,
        seconds_low=between[0] and round(between[0]),
        seconds_high=between[1] and round(between[1]),
        stages=parts,
        host_gb=max(stage.host_gb for stage in parts),
        disk_gb=round(sum(stage.disk_gb for stage in parts if not stage.name.startswith("serving")), 2),
        runs=len(pairs),
        total_seconds=whole and round(whole),
        total_seconds_high=whole and round(whole * between[1] / time),
        rate=rate if rates.flop and not (config.base_model == STARTER and gpu is None) else None,
    )


def rates_of(
    config: RunConfig, gpu: GpuInfo | None, cpu_cores: int | None, measured: float | None = None
) -> Rates:
    """FLOP, bytes of memory and bytes of disk a second: by what was `measured`, else by the table of GPUs and the rules.

    None where unknown. The starter model's small matrices run far below a CPU's rate: it has a measured figure of its own.
    """
    disk = setting("disk_gb_per_second") * 1e9
    if gpu is not None:
        row = gpu_row(gpu.name, gpu.memory_gb)
        if measured:
            bandwidth = row.bandwidth_gbs * 1e9 if row and row.bandwidth_gbs else None
            return Rates(measured * setting("probe_share_gpu"), bandwidth, disk)
        if row is None or not row.bf16_tflops:
            return Rates(None, None, disk)
        return Rates(row.bf16_tflops * 1e12 * setting("utilisation"), row.bandwidth_gbs * 1e9, disk)
    if config.base_model == STARTER:
        return Rates(setting("starter_gflops") * 1e9 if cpu_cores else None, None, disk)
    if measured:
        return Rates(measured * setting("probe_share_cpu"), None, disk)
    return Rates(cpu_cores * setting("cpu_gflops_per_core") * 1e9 if cpu_cores else None, None, disk)


def run_terms(config: RunConfig, shape: Any, tokens: Any, stack: Stack) -> dict[str, float]:
    """`memory()` of a RunConfig: the longest batch, twice the tokens where chosen and rejected go together."""
    longest = min(config.max_length, int(tokens.max)) if tokens is not None else config.max_length
    return memory(
        shape,
        peft=config.peft,
        trained=trained_params(shape, config),
        batch=config.batch_size,
        length=longest,
        checkpointing=config.gradient_checkpointing,
        sequences=2 if config.method in PAIRED else 1,
        reference=config.method in ("dpo", "kto")
        or (config.method in ("grpo", "rloo") and bool(config.beta)),
        eight_bit="8bit" in config.optim,
        stack=stack,
    )


def stack_of(config: RunConfig, on_cpu: bool, bf16: bool) -> Stack:
    """The software stack on a device: without bf16, and on a CPU, everything that is not quantized is fp32."""
    if on_cpu:
        return cpu_stack()
    if config.precision == "fp32" or not bf16:
        return Stack(FP32, hidden_bytes=FP32, compute_bytes=FP32)
    return Stack()


def cpu_stack() -> Stack:
    """fp32 throughout, torch's copies of a head tile, and a Python process with torch and transformers loaded."""
    return Stack(FP32, hidden_bytes=FP32, compute_bytes=FP32, qlora_bytes=16, tile_copies=4, runtime_gb=0.9)


def starter_shape(hidden: int, layers: int, vocab: int) -> Shape:
    """The sizes of the starter model (trainer/starter.py): MLP of three times the width, heads of 32, tied head."""
    heads = max(1, hidden // 32)
    params = vocab * hidden + layers * 13 * hidden * hidden
    return Shape(params / 1e9, layers, hidden, heads, heads, hidden // heads, 3 * hidden, vocab)


def seconds(config: RunConfig, shape: Any, tokens: Any, rows: int | None, rates: Rates) -> float | None:
    """Training time: tokens x FLOP a token / the device's rate. None where rows or the device are not known.

    A forward pass takes 2 FLOP a weight, the gradient of the activations 2, that of the weights 2 (left out
    for frozen weights), recomputing 2 more; an evaluation reads its rows forward. Loading is not in it.
    """
    if not rows or not rates.flop:
        return None
    starter = config.base_model == STARTER
    paired = 2 if config.method in PAIRED else 1
    mean = mean_tokens(config, tokens) * paired
    batch = config.batch_size * config.gradient_accumulation
    seen = rows * config.epochs
    seen = min(config.max_steps * batch, seen) if config.max_steps > 0 else seen
    weights = linear_params(shape) if starter else (shape.active_b or shape.params_b) * 1e9
    flop = (6 if config.keeps_whole_model else 4) + (2 if config.gradient_checkpointing else 0)
    every = config.eval_steps or max(1.0, rows / batch)  # updates between evaluations; 0: once an epoch
    evaluated = (seen / batch / every) * rows * config.eval_fraction
    return round(mean * weights * (flop * seen + 2 * evaluated) / rates.flop)


def mean_tokens(config: RunConfig, tokens: Any) -> float:
    """Tokens of a row on the average: measured, or `max_length` where nothing was."""
    if tokens is None:
        return config.max_length
    return min(config.max_length, getattr(tokens, "mean", 0) or float(tokens.p50))


def setting(name: str) -> float:
    """A figure that only rules.yaml holds: the rule of the highest priority that sets it without a condition."""
    rows = [rule for rule in by_id("rules").values() if name in rule.set and not rule.when]
    return float(max(rows, key=lambda rule: rule.priority).set[name])


def linear_params(shape: Any) -> float:
    """Weights of the attention and MLP matrices of all blocks, experts left out."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    mlp = 0 if shape.experts else 3 * shape.hidden * shape.ffn
    return shape.layers * (2 * shape.hidden * q + 2 * shape.hidden * kv + mlp)


def expert_params(shape: Any) -> float:
    """Weights of a mixture's experts: bitsandbytes leaves these fused tensors in bf16 on transformers 5."""
    return shape.layers * shape.experts * 3 * shape.hidden * shape.expert_ffn


def trained_params(shape: Any, config: RunConfig) -> float:
    """Weights that the run trains, by its kind (trainer/methods/kinds.py); target_modules count as all-linear."""
    total, count = shape.params_b * 1e9, config.virtual_tokens
    blocks = total - shape.vocab * shape.hidden * (1 if shape.tied else 2)
    vectors = adapter_params(shape, 1)  # one number for each input and output of every linear layer
    match config.peft:
        case "full":
            return total
        case "freeze":
            return blocks * min(1.0, config.trained_layers / shape.layers)
        case "adalora":
            return 1.5 * adapter_params(shape, config.r)
        case "oft":  # blocks of r × r on the input, of which the upper triangle is free
            return vectors / 2 * (config.r - 1) / 2
        case "ia3" | "vera":
            return vectors / 2
        case "prefix":
            return 2 * shape.layers * shape.kv_heads * shape.head_dim * count
        case "prompt":
            return shape.hidden * count
        case "ptuning":
            return shape.hidden * count + 2 * 128 * shape.hidden + 128 * 128
    return adapter_params(shape, config.r)


def adapter_params(shape: Any, r: int) -> float:
    """Trainable weights of LoRA on all linear layers, experts included: r (in + out) for each matrix."""
    h, q, kv = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    mlps, width = (shape.experts, shape.expert_ffn) if shape.experts else (1, shape.ffn)
    return r * shape.layers * (2 * (h + q) + 2 * (h + kv) + 3 * mlps * (h + width))


def memory(
    shape: Any,
    *,
    peft: str,
    r: int = 16,
    trained: float | None = None,
    batch: int = 1,
    length: int = 1024,
    checkpointing: bool = True,
    sequences: int = 1,
    reference: bool = False,
    eight_bit: bool = False,
    stack: Stack = Stack(),
) -> dict[str, float]:
    """Terms of the training peak in GiB. `length` tokens a row, `sequences` of them for each row (DPO: 2).

    Sources: QLoRA (storage), ZeRO (optimizer), Korthikanti et al. 2022 and fitcheck-llm (activations),
    TRL's fused head. `reference`: a second copy of the weights, which PEFT methods do not need. `trained`: weights
    that are trained, unless they are all or LoRA's of rank `r`.
    """
    tokens = batch * sequences * length
    total = shape.params_b * 1e9
    quantized = linear_params(shape) if peft in NF4_KINDS else 0.0
    weights = quantized * stack.quant_bytes + (total - quantized) * stack.weight_bytes
    adam = 8 - 2.03 if eight_bit else 0.0  # 8-bit moments: 2.03 instead of 8 bytes
    if peft == "full":
        trained, state_bytes = total, stack.full_bytes - adam
        held = 0.0  # the weights are in `full_bytes`
    else:
        trained = adapter_params(shape, r) if trained is None else trained
        held = weights - (trained * stack.weight_bytes if peft == "freeze" else 0.0)
        state_bytes = (stack.qlora_bytes if peft in NF4_KINDS else stack.lora_bytes) - adam / 2
    stored, recompute = activations(shape, tokens, checkpointing, stack)
    whole_head = head(shape, tokens, peft == "full", stack)
    terms = {
        "weights": held,
        "trained weights, gradients, optimizer": trained * state_bytes,
        "reference model": weights if reference and peft in WHOLE else 0.0,
        "stored activations": stored,
        # The head runs after the forward pass, a layer's recompute in the backward one, and the optimizer's
        # step when both are gone: never two at once.
        "recompute, head or step": max(recompute, whole_head, trained * stack.step_bytes - stored),
    }
    terms = {name: size / GIB for name, size in terms.items() if size}
    terms["runtime and fragmentation"] = stack.runtime_gb + stack.fragmentation * sum(terms.values())
    return terms


def activations(shape: Any, tokens: float, checkpointing: bool, stack: Stack) -> tuple[float, float]:
    """Bytes kept for the backward pass, and bytes of the one layer that is recomputed (fused attention)."""
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    ffn = shape.ffn if not shape.experts else shape.expert_ffn * 8
    layer = stack.compute_bytes * tokens * (12 * shape.hidden + 3 * q + kv + 3 * ffn)
    if checkpointing:
        return stack.hidden_bytes * shape.layers * tokens * shape.hidden, layer
    return layer * shape.layers, 0.0


def head(shape: Any, tokens: float, trained: bool, stack: Stack) -> float:
    """Bytes of the output head: TRL's tiles and its fp32 gradients, or whole logits where they are built."""
    if not stack.fused_head:
        return FP32 * tokens * shape.vocab * stack.logit_copies
    tile = min(tokens, TILE_TOKENS) * min(shape.vocab, TILE_VOCAB) * stack.compute_bytes * stack.tile_copies
    weight_gradient = FP32 * shape.vocab * shape.hidden if trained else 0.0
    return tile + (FP32 + stack.compute_bytes) * tokens * shape.hidden + weight_gradient
