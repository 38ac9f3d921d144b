"""A random model of the same architecture, shrunk to a few million weights, for a rehearsal on a CPU.

Called by rehearse.py inside the worker. The tokenizer and the template are the model's own where they are on
this machine or can be fetched (a few MB, never the weights); else the starter's, and the result says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kb.facts import table
from trainer import base
from trainer.config import RunConfig, UserError
from trainer.starter import make_starter

SMALL_BYTES = 32_000_000  # a local model of so few weights is rehearsed as it is
# Two blocks, since an architecture may alternate; heads of 16 and matrices of 64, which NF4's blocks divide.
SIZES = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "head_dim": 16, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64,
    "hidden_size_per_layer_input": 16, "max_window_layers": 2,
}  # fmt: skip
KEPT = ("generation_config.json",)


@dataclass(frozen=True)
class Miniature:
    """What a rehearsal trains: class name, number of weights, and whether the tokenizer is the model's own."""

    architecture: str
    weights: int
    own_tokenizer: bool
    whole: bool = False  # the model itself, since it is small enough
    why: str = ""  # why the tokenizer is not the model's own


def make_miniature(config: RunConfig, texts: Iterable[str], out: Path) -> Miniature:
    """Write a small base model folder like `config.base_model` to `out`. Raises UserError.

    `texts` teach the starter's tokenizer where the model's own cannot be had.
    """
    source = Path(config.base_model).expanduser()
    if source.is_dir():
        base.check_folder(source)
        if sum(file.stat().st_size for file in source.glob("*.safetensors")) <= SMALL_BYTES:
            shutil.copytree(source, out)
            return describe(out)
        return _shrunk(source, out, config)
    if source.is_absolute() or config.base_model.startswith((".", "~")) or config.base_model.count("/") > 1:
        base.locate(config, out)  # says what is wrong with the path
    try:
        return _shrunk(base.download(config.base_model, base.SMALL_FILES), out, config)
    except base.HubUnreachable as error:
        return _with_starters_tokenizer(config, texts, out, str(error))


def _shrunk(source: Path, out: Path, config: RunConfig) -> Miniature:
    from transformers import AutoConfig

    base.refuse_hostile(source)
    tokenizer = base.load_tokenizer(source)
    settings = AutoConfig.from_pretrained(source, trust_remote_code=False)
    architecture = (getattr(settings, "architectures", None) or [""])[0]
    count = _write(settings, config, out)
    tokenizer.save_pretrained(out)
    for name in KEPT:
        if (source / name).is_file():
            shutil.copy2(source / name, out / name)
    return Miniature(architecture or _architecture(out), count, own_tokenizer=True)


def _with_starters_tokenizer(config: RunConfig, texts: Iterable[str], out: Path, why: str) -> Miniature:
    import transformers
    from transformers import AutoConfig

    card = next((row for row in table("models") if row.hub_id.lower() == config.base_model.lower()), None)
    make_starter(config, texts, out)
    starter = AutoConfig.from_pretrained(out)
    model_class = getattr(transformers, card.architecture, None) if card else None
    if model_class is None:
        return Miniature(_architecture(out), _weights(out), own_tokenizer=False, why=why)
    settings = model_class.config_class()
    text = settings.get_text_config()
    text.tie_word_embeddings = settings.tie_word_embeddings = bool(card.tied)
    for owner in {id(item): item for item in (settings, text)}.values():
        owner.vocab_size, owner.bos_token_id = starter.vocab_size, None
        owner.eos_token_id, owner.pad_token_id = starter.eos_token_id, starter.pad_token_id
    return Miniature(card.architecture, _write(settings, config, out), own_tokenizer=False, why=why)


def _write(settings: Any, config: RunConfig, out: Path) -> int:
    """A random model of `settings` with small sizes, in float32; returns its number of weights."""
    from transformers import AutoModelForCausalLM, set_seed

    text = settings.get_text_config()
    if text.num_attention_heads != getattr(text, "num_key_value_heads", text.num_attention_heads):
        text.num_key_value_heads = 2
    elif hasattr(text, "num_key_value_heads"):
        text.num_key_value_heads = SIZES["num_attention_heads"]
    for name, size in SIZES.items():
        if getattr(text, name, None) is not None:
            setattr(text, name, size)
    if getattr(text, "layer_types", None):
        text.layer_types = [text.layer_types[0], text.layer_types[-1]]
    set_seed(config.seed)
    try:
        model = AutoModelForCausalLM.from_config(settings, dtype="float32")
    except (ValueError, KeyError) as error:
        raise UserError(
            f"base_model {config.base_model!r}: no causal language model: {str(error).splitlines()[0][:120]}"
        ) from None
    model.generation_config.do_sample = False
    model.save_pretrained(out)
    return sum(weight.numel() for weight in model.parameters())


def describe(folder: Path) -> Miniature:
    """A model that is small enough to be rehearsed as it is."""
    return Miniature(_architecture(folder), _weights(folder), own_tokenizer=True, whole=True)


def _architecture(folder: Path) -> str:
    from transformers import AutoConfig

    return (AutoConfig.from_pretrained(folder).architectures or [""])[0]


def _weights(folder: Path) -> int:
    from safetensors import safe_open

    count = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118, a safetensors handle is no dict
                size = 1
                for part in tensors.get_slice(name).get_shape():
                    size *= part
                count += size
    return count
