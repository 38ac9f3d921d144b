"""The base model of a run: a Hub id, a local folder or the starter, checked before anything loads it.

Between data and training. Only safetensors are read, code of a model never runs, and what is wrong is one
line that names the model and the way out.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.config import NF4, STARTER, RunConfig, UserError
from trainer.estimate import Shape

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model"]  # what a rehearsal needs of a model
LICENCE_FILES = [
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY*",
]  # they go with whatever is made from the model
HUB_FILES = ["*.safetensors", *SMALL_FILES, *LICENCE_FILES]
# Keys by which a config.json makes transformers run other code than its own.
HOSTILE_KEYS = (
    "auto_map",
    "custom_pipelines",
    "_attn_implementation_internal",
    "_experts_implementation_internal",
)
HEAD = re.compile(
    r"(score|classifier|pre_classifier|classification_head|head|bert\.pooler|roberta\.pooler)\b"
)  # new in a classifier
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack")


class HubUnreachable(UserError):
    """The model is not on this machine and the Hub does not answer: a rehearsal does without it."""


def locate(config: RunConfig, run: Path) -> Path:
    """The folder of the run's base model: RUN/base for the starter, else checked files of a folder or the Hub.

    Downloads a Hub id that is not in the cache. Raises UserError.
    """
    if config.base_model == STARTER:
        return run / "base"
    return locate_named(config.base_model)


def locate_named(name: str, field: str = "base_model") -> Path:
    """The checked folder of a model that `field` of a run names by folder or Hub id. Raises UserError."""
    path = Path(name).expanduser()
    if path.is_dir():
        return check_folder(path)
    other = " or 'starter'" if field == "base_model" else ""
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserError(f"{field} {name!r}: no such folder; give a model folder, a Hub id{other}")
    return check_folder(download(name, field=field))


def download(hub_id: str, files: list[str] = HUB_FILES, field: str = "base_model") -> Path:
    """The folder with a Hub model's `files` (patterns), from the cache or the Hub. Raises UserError."""
    if not HUB_ID.fullmatch(hub_id):
        other = " or 'starter'" if field == "base_model" else ""
        raise UserError(f"{field} {hub_id!r}: not a Hub id (owner/name), a folder{other}; give one of them")
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "15")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    way_out = f"copy the model to a folder and set {field} to that folder"
    way_out += ", or set it to 'starter'" if field == "base_model" else ""
    try:
        return Path(snapshot_download(hub_id, allow_patterns=files, etag_timeout=5))
    except GatedRepoError:
        raise UserError(
            f"{field} {hub_id!r}: the Hub asks for its licence to be accepted; {way_out}"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{field} {hub_id!r}: the Hub has no such model; check the id, or {way_out}"
        ) from None
    except LocalEntryNotFoundError:
        raise HubUnreachable(
            f"{field} {hub_id!r}: not on this machine and the Hub cannot be reached; {way_out}"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{field} {hub_id!r}: cannot be downloaded ({reason}); {way_out}") from None


def local_tokenizer(name: str) -> str:
    """The tokenizer.json of a model that is on this machine, a folder or in the Hub's cache; "" where it is not.

    No torch and no network.
    """
    if name == STARTER:
        return ""
    folder = Path(name).expanduser()
    if folder.is_dir():
        file = folder / "tokenizer.json"
        return str(file) if file.is_file() else ""
    if not HUB_ID.fullmatch(name):
        return ""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "tokenizer.json")
    return found if isinstance(found, str) else ""


def check_folder(path: Path) -> Path:
    """The folder, if it is a causal model in safetensors that needs no code of its own. Raises UserError."""
    refuse_hostile(path)
    if not any(path.glob("*.safetensors")):
        pickles = sorted(file.name for file in path.iterdir() if file.suffix in PICKLES)
        found = f"only {pickles[0]}, which can run code" if pickles else "no weights"
        raise UserError(f"{path}: {found}; a base model needs model.safetensors: convert it or use another")
    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise UserError(f"{path}: no tokenizer.json; copy the tokenizer files of the model into this folder")
    return path


def refuse_hostile(path: Path) -> None:
    """Raise UserError for a model folder whose settings would run code of its own."""
    config = _read_config(path)
    for key in HOSTILE_KEYS:
        if _holds(config, key):
            raise UserError(
                f"{path / 'config.json'}: {key!r} would run code of the model; use a model without it"
            )
    for name in ("tokenizer_config.json", "processor_config.json"):
        if (path / name).is_file() and _holds(_read_json(path / name), "auto_map"):
            raise UserError(f"{path / name}: 'auto_map' would run code of the model; use a model without it")


def _read_config(path: Path) -> dict[str, Any]:
    if not (path / "config.json").is_file():
        raise UserError(
            f"{path}: no config.json; a model folder holds config.json, model.safetensors, tokenizer.json"
        )
    config = _read_json(path / "config.json")
    if "model_type" not in config:
        raise UserError(f"{path / 'config.json'}: no model_type; give the folder of a transformers model")
    return config


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({str(error)[:80]}); copy the file again") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected an object {{…}}; copy the file again")
    return value


def _holds(value: Any, key: str) -> bool:
    """Whether `key` stands anywhere in nested objects: text_config may carry it as well."""
    if isinstance(value, dict):
        return bool(value.get(key)) or any(_holds(item, key) for item in value.values())
    return isinstance(value, list) and any(_holds(item, key) for item in value)


def shape_of(path: Path) -> Shape:
    """The sizes of a model folder as the estimate wants them, from config.json and the files' headers."""
    config = _read_config(path)
    text = config.get("text_config") or config
    heads, hidden = text["num_attention_heads"], text["hidden_size"]
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", True)))
    return Shape(
        params_b=sum(_weights(file) for file in path.glob("*.safetensors")) / 1e9,
        layers=text["num_hidden_layers"],
        hidden=hidden,
        heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        head_dim=text.get("head_dim") or hidden // heads,
        ffn=text.get("intermediate_size") or 4 * hidden,
        vocab=text["vocab_size"],
        tied=tied,
        experts=text.get("num_experts") or text.get("num_local_experts") or 0,
        expert_ffn=text.get("moe_intermediate_size") or 0,
    )


def _weights(file: Path) -> int:
    """The number of weights in a safetensors file: its header is a length in 8 bytes and that much JSON."""
    with file.open("rb") as handle:
        header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
    return sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__")


def device_of(config: RunConfig) -> str:
    """ "cuda" or "cpu". Raises UserError where cuda is asked for and absent."""
    import torch

    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device = 'cuda': this machine has no usable NVIDIA GPU; set device to auto or cpu")
    return "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"


def uses_bf16(config: RunConfig, device: str) -> bool:
    """bf16 arithmetic: where asked for, or where `auto` finds a GPU that has it."""
    import torch

    if config.precision == "auto":
        return device == "cuda" and torch.cuda.is_bf16_supported()
    return config.precision == "bf16"


def stored_dtype(path: Path) -> Any:
    """The torch dtype in which a model folder keeps its weights, by its config.json; float32 if it does not say."""
    import torch

    config = _read_config(path)
    name = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    return getattr(torch, name, torch.float32)


def load_tokenizer(path: Path, chat: bool = True) -> Any:
    """The tokenizer of a base model, padding on the right, with a chat template unless not `chat`. Raises UserError."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: the tokenizer cannot be loaded: {str(error).splitlines()[0][:160]}"
        ) from None
    if chat and tokenizer.chat_template is None:
        raise UserError(
            f"{path}: the tokenizer has no chat template; use the model's instruct version, or put its "
            f"chat_template.jinja into the folder"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def load_model(
    path: Path, config: RunConfig, device: str, training: bool = True, labels: Sequence[str] | None = None,
    quantised: bool = True,
) -> Any:  # fmt: skip
    """The model on `device` in the dtype that its training, or else inference, wants.

    Weights that are trained in full stay float32 beside bf16 arithmetic: in bf16 alone an update of 1e-5
    is lost in rounding. Frozen weights are bf16 where the device has it. QLoRA: NF4 with double
    quantisation; bitsandbytes' own defaults are FP4 and float32. `labels` give it a head with an output for
    each instead of the words' one; () the head that the folder has. Raises UserError.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    shared = training and config.world_size > 1  # each of several processes has a card of its own
    place = f"cuda:{os.environ['LOCAL_RANK']}" if shared and device == "cuda" else device
    divided = shared and config.parallel in ("fsdp2", "zero3")  # then the library moves the weights
    options, head = _loading(config, device, training, labels, quantised), labels is not None
    loader = AutoModelForSequenceClassification if head else AutoModelForCausalLM
    try:
        model, found = loader.from_pretrained(
            path, use_safetensors=True, trust_remote_code=False, device_map=None if divided else {"": place},
            output_loading_info=True, **options,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{path}: the model cannot be loaded: {str(error).splitlines()[0][:160]}") from None
    except RuntimeError as error:
        if "mismatched_sizes" not in str(error):
            raise
        raise UserError(
            f"{path}: the model cannot be loaded: its weights have other sizes than config.json says; "
            f"copy the files again"
        ) from None
    # transformers would fill them with noise and say so in a log only; a new head is meant to be noise
    missing = sorted(name for name in found["missing_keys"] if not (labels and HEAD.match(name)))
    if missing:
        raise UserError(
            f"{path}: the model cannot be loaded: {len(missing)} weights are missing, such as {missing[0]}; "
            f"copy the files again"
        )
    if config.peft in NF4 and quantised:
        _tell_what_stays(model)
    model.config.use_cache = not training
    return model


def _loading(
    config: RunConfig, device: str, training: bool, labels: Sequence[str] | None, quantised: bool
) -> dict[str, Any]:
    """dtype, quantisation and labels as `from_pretrained` takes them."""
    import torch
    from transformers import BitsAndBytesConfig

    full = training and config.peft == "full"
    dtype = torch.bfloat16 if uses_bf16(config, device) and not full else torch.float32
    options: dict[str, Any] = {"dtype": dtype}
    if config.peft in NF4 and quantised:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            # A new head is trained in full; the output of a causal model is left out by transformers itself.
            llm_int8_skip_modules=None if labels is None else ["score", "classifier"],
        )
    if labels:
        options |= {
            "id2label": dict(enumerate(labels)),
            "label2id": {name: i for i, name in enumerate(labels)},
        }
    return options


def _tell_what_stays(model: Any) -> None:
    """bitsandbytes quantises linear layers only: a mixture's experts, fused tensors in transformers 5, stay as they are."""
    experts = sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if ".experts." in name and weight.ndim == 3
    )
    if experts:
        print(f"4-bit base: {experts / 1e9:.3g} billion weights of experts stay in {model.dtype}", flush=True)
