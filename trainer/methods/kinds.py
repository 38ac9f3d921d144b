"""KINDS: which weights a run trains. RunConfig → PEFT's configuration, and what a kind needs beside it.

A method's builder hands `adapter_config` to its TRL trainer and ends with `finished(trainer, config)`.
Adding a kind is a line here, and a function where a new class of PEFT makes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import RunConfig

INITIAL = "initial"  # beside the checkpoints: PiSSA's adapter as it was before training
# Linear layers by the names that transformers gives them; SECOND are those behind the nonlinearity.
SECOND = ["down_proj", "fc2", "dense_4h_to_h"]
LINEAR = [
    "q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "qkv_proj", "gate_proj", "up_proj", "gate_up_proj",
    "query", "key", "value", "query_key_value", "fc1", "dense_h_to_4h", *SECOND,
]  # fmt: skip
HEADS = ["score", "classifier"]  # what transformers calls the head of a classifier
# A mixture's routers, which all-linear reaches: trained, they unlearn their balance. PEFT's exclude_modules does not
# hold for them, since in transformers 5 they are parameters and no linear layers.
ROUTER = re.compile(r"\.(gate|router|shared_expert_gate)\.lora_")

Configure = Callable[[RunConfig, dict[str, Any]], Any]  # (run, what every kind takes) → PEFT's configuration


@dataclass(frozen=True)
class Kind:
    """`configure` gives PEFT's configuration; None where the base's own weights are trained.

    `merges`: the result can be folded into the base. `status` as in METHODS. `moves_base`: disabling the adapter does not give the base model back.
    """

    configure: Configure | None
    merges: bool = True
    status: str = "stable"
    moves_base: bool = False

    @property
    def virtual(self) -> bool:
        """Prompt learning: trained tokens before each row."""
        return self.configure is not None and not self.merges


def _lora(**options: Any) -> Configure:
    def configure(config: RunConfig, common: dict[str, Any]) -> Any:
        from peft import LoraConfig

        return LoraConfig(**_low_rank(config, common), **{"use_rslora": config.use_rslora, **options})

    return configure


def _low_rank(config: RunConfig, common: dict[str, Any]) -> dict[str, Any]:
    return {**common, "r": config.r, "lora_alpha": config.lora_alpha, "lora_dropout": config.lora_dropout}


def _adalora(config: RunConfig, common: dict[str, Any]) -> Any:
    """Starts at 1.5 r and prunes to r. The steps are not known yet: `_Pruning` sets them when training begins."""
    from peft import AdaLoraConfig

    values = _low_rank(config, common)
    rank = values.pop("r")
    return AdaLoraConfig(**values, target_r=rank, init_r=rank + (rank + 1) // 2, total_step=1_000_000)


def _oft(config: RunConfig, common: dict[str, Any]) -> Any:
    from peft import OFTConfig

    return OFTConfig(**common, r=0, oft_block_size=config.r, module_dropout=config.lora_dropout)


def _ia3(config: RunConfig, common: dict[str, Any]) -> Any:
    """all-linear by names: PEFT 0.21 writes its own all-linear of IA³ so that it cannot be read again."""
    from peft import IA3Config

    named = common["target_modules"] if common["target_modules"] != "all-linear" else LINEAR
    values = {**common, "target_modules": named}
    return IA3Config(**values, feedforward_modules=[name for name in SECOND if name in named])


def _vera(config: RunConfig, common: dict[str, Any]) -> Any:
    """r is the rank of the frozen random matrices, so it may be large at no cost."""
    from peft import VeraConfig

    return VeraConfig(**common, r=config.r, vera_dropout=config.lora_dropout, projection_prng_key=config.seed)


def _prefix(config: RunConfig, common: dict[str, Any]) -> Any:
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(task_type=common["task_type"], num_virtual_tokens=config.virtual_tokens)


def _prompt(config: RunConfig, common: dict[str, Any]) -> Any:
    """Started from entries of the vocabulary, the best start in PEFT's benchmark (page adapters-prefix-prompt)."""
    from peft import PromptTuningConfig

    return PromptTuningConfig(
        task_type=common["task_type"],
        num_virtual_tokens=config.virtual_tokens,
        prompt_tuning_init="SAMPLE_VOCAB",
    )


def _ptuning(config: RunConfig, common: dict[str, Any]) -> Any:
    from peft import PromptEncoderConfig

    return PromptEncoderConfig(
        task_type=common["task_type"], num_virtual_tokens=config.virtual_tokens, encoder_hidden_size=128
    )


KINDS: dict[str, Kind] = {
    "full": Kind(None),
    "freeze": Kind(None),
    "lora": Kind(_lora()),
    "qlora": Kind(_lora()),
    "dora": Kind(_lora(use_dora=True)),
    "rslora": Kind(_lora(use_rslora=True)),
    "pissa": Kind(_lora(init_lora_weights="pissa"), moves_base=True),
    "loftq": Kind(_lora(), status="experimental", moves_base=True),
    "loraplus": Kind(_lora()),
    "adalora": Kind(_adalora),
    "oft": Kind(_oft),
    "ia3": Kind(_ia3),
    "vera": Kind(_vera),
    "prefix": Kind(_prefix, merges=False),
    "prompt": Kind(_prompt, merges=False),
    "ptuning": Kind(_ptuning, merges=False),
}


def adapter_config(config: RunConfig, task_type: str = "CAUSAL_LM") -> Any:
    """What a TRL trainer takes as `peft_config`; None when the base's own weights are trained."""
    configure = KINDS[config.peft].configure
    if configure is None:
        return None
    modules = config.target_modules  # always given: PEFT's own default for Llama and Qwen is q and v alone
    if isinstance(modules, str) and "," in modules:
        modules = [name.strip() for name in modules.split(",")]
    return configure(config, {"task_type": task_type, "target_modules": modules})


def finished(trainer: Any, config: RunConfig) -> Any:
    """The built trainer with what its kind of adapter needs before the first step."""
    if config.peft == "freeze":
        _freeze(trainer.model, config.trained_layers)
    elif config.peft == "pissa":
        _keep_initial(trainer, Path(trainer.args.output_dir) / INITIAL)
    elif config.peft == "loftq":
        _start_from_error(trainer.model)
    elif config.peft == "adalora":
        trainer.add_callback(_pruning(trainer.model))
    elif config.peft == "loraplus":
        trainer.optimizer = _faster_b(trainer, config.loraplus_ratio)
    for name, weight in trainer.model.named_parameters():
        if ROUTER.search(name) and config.target_modules == "all-linear":
            weight.requires_grad = False  # B is zero at the start, so the router stays as it is
        # A head is new and trained in full: in bf16, to which TRL casts what it trains on 4 bits, it would hardly move.
        if weight.requires_grad and set(name.split(".")) & set(HEADS):
            weight.data = weight.data.float()
    return trainer


def _freeze(model: Any, count: int) -> None:
    """Only the last `count` blocks, the norm behind them and a classifier's head stay trainable, in float32.

    In bf16 alone an update of 1e-5 would be lost in rounding.
    """
    backbone = model.base_model
    for weight in model.parameters():
        weight.requires_grad = False
    parts = [*_blocks(backbone)[-count:]]
    parts += [getattr(backbone, name) for name in ("norm", "ln_f", "final_norm") if hasattr(backbone, name)]
    parts += [getattr(model, name) for name in HEADS if hasattr(model, name)]
    for part in parts:
        for weight in part.parameters():
            weight.requires_grad = True
            weight.data = weight.data.float()


def _blocks(backbone: Any) -> Any:
    """The longest ModuleList of a backbone: its transformer blocks, whatever their name."""
    import torch

    lists = [module for module in backbone.modules() if isinstance(module, torch.nn.ModuleList)]
    return max(lists, key=len)


def _keep_initial(trainer: Any, folder: Path) -> None:
    """PiSSA takes its directions out of the base. To be an adapter on the untouched base, it is saved as the
    difference to its start, and that start is written here (`save_pretrained` in train.py reads it)."""
    if trainer.args.process_index == 0:
        trainer.model.save_pretrained(folder)


def _start_from_error(model: Any) -> None:
    """LoftQ on NF4 (arXiv 2310.08659, one step): A and B start as the best low-rank copy of what was lost.

    PEFT's own function leaves the scale alpha / r out of it and needs CUDA.
    """
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora.bnb import Linear4bit
    from safetensors import safe_open

    kept = {}
    for file in Path(model.get_base_model().config._name_or_path).glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            kept |= dict.fromkeys(tensors.keys(), file)
    for name, layer in model.named_modules():
        if not isinstance(layer, Linear4bit):
            continue
        key = name.removeprefix("base_model.model.") + ".weight"
        with safe_open(kept[key], "pt") as tensors:
            weight = tensors.get_tensor(key)
        quantised = layer.get_base_layer().weight
        lost = (
            weight.to(quantised.device).float()
            - dequantize_4bit(quantised.data, quantised.quant_state).float()
        )
        left, sizes, right = torch.linalg.svd(lost / layer.scaling["default"], full_matrices=False)
        rank, root = layer.r["default"], sizes.sqrt()
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        a.data = (root[:rank, None] * right[:rank]).to(a.dtype)
        b.data = (left[:, :rank] * root[:rank]).to(b.dtype)


def _pruning(model: Any) -> Any:
    """AdaLoRA's budget, which nobody updates unless told to: after each step, while the gradients are there."""
    from transformers import TrainerCallback

    class Pruning(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            settings = model.peft_config["default"]
            settings.total_step = max(3, state.max_steps)
            settings.tinit = (
                settings.total_step // 10
            )  # warm up at the full rank, then prune until two thirds
            settings.tfinal = settings.total_step // 3
            settings.deltaT = max(1, settings.total_step // 100)

        def on_optimizer_step(self, args, state, control, **kwargs):
            model.base_model.update_and_allocate(state.global_step)

    return Pruning()


def _faster_b(trainer: Any, ratio: float) -> Any:
    """LoRA+ (arXiv 2402.12354): B, which starts at zero, learns `ratio` times as fast as A."""
    from peft.optimizers import create_loraplus_optimizer

    optimizer, options = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    return create_loraplus_optimizer(
        trainer.model,
        optimizer,
        loraplus_lr_ratio=ratio,
        loraplus_weight_decay=trainer.args.weight_decay,
        **options,
    )
