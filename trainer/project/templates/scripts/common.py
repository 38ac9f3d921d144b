"""What the scripts of this project share: the config, the rows, the model. Plain transformers and PEFT."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def read_config() -> dict:
    """The config given with --config, by default the newest of configs/v*.yaml. `version` is its name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path)
    given, _ = parser.parse_known_args()
    path = given.config or max(
        (ROOT / "configs").glob("v*.yaml"), key=lambda p: int(re.sub(r"\D", "", p.stem) or 0)
    )
    return {"version": path.stem, **yaml.safe_load(path.read_text(encoding="utf-8"))}


def read_rows(path: Path) -> list[dict]:
    """Rows of a JSON Lines file; none where the file is not there."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def base_model(config: dict) -> str:
    """A Hub id, or the folder of the model; `base_model` means the one in this project."""
    inside = ROOT / config["base_model"]
    return str(inside) if inside.is_dir() else config["base_model"]


def load_tokenizer(path: str):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def device_and_bf16(config: dict) -> tuple[str, bool]:
    import torch

    device = "cuda" if config["device"] != "cpu" and torch.cuda.is_available() else "cpu"
    if config["precision"] == "auto":
        return device, device == "cuda" and torch.cuda.is_bf16_supported()
    return device, config["precision"] == "bf16"


def load_model(path: str, config: dict, training: bool):
    """Weights that are trained in full stay float32 (an update of 1e-5 is lost in bf16), frozen ones are bf16
    where the GPU has it; `quantize` loads them in 4 bits (NF4, double quantisation)."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    device, bf16 = device_and_bf16(config)
    full = training and config["peft"] is None
    dtype = torch.bfloat16 if bf16 and not full else torch.float32
    quantization = None
    if config["quantize"]:
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, use_safetensors=True, quantization_config=quantization, device_map={"": device}
    )
    model.config.use_cache = not training
    return model
