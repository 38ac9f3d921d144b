"""Four-bit GPTQ and AWQ folders for vLLM, through gptqmodel, where a GPU and the package are there.

Calibrated on the run's own training rows. Written to RUN/export/gptq or awq. Not measured here: no machine of this
project's tests has the package; the guard is tested, the conversion is gptqmodel's.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trainer.atomic import assembled
from trainer.config import UserError
from trainer.data.stage import read_rows
from trainer.runs import RunFolder

ROWS = 256  # to calibrate with; gptqmodel asks for at least 256
BITS, GROUP = 4, 128  # what published GPTQ and AWQ models mostly have


def check_gpu(kind: str) -> None:
    """Raises UserError where `kind` cannot be made on this machine, in one line that says what can."""
    from trainer.hardware import probe

    instead = "export --to gguf --quantize q8_0 needs neither"
    if not probe().gpus:
        raise UserError(f"--to {kind}: needs an NVIDIA GPU, and this machine has none; {instead}")
    if find_spec("gptqmodel") is None:
        raise UserError(f"--to {kind}: needs gptqmodel; pip install gptqmodel, then export again; {instead}")


def quantize(folder: RunFolder, kind: str) -> Path:
    """The merged model in four bits, as "gptq" or "awq"; returns its folder."""
    from gptqmodel import GPTQModel, QuantizeConfig

    merged, out = folder.path / "export" / "merged", folder.path / "export" / kind
    folder.set_status(stage="quantize", step=0, total_steps=None)
    settings: dict[str, Any] = {"bits": BITS, "group_size": GROUP}
    if kind == "awq":
        from gptqmodel.quantization import FORMAT, METHOD

        settings |= {"quant_method": METHOD.AWQ, "format": FORMAT.GEMM}
    model = GPTQModel.load(str(merged), QuantizeConfig(**settings), trust_remote_code=False)
    model.quantize(_texts(folder, merged), batch_size=1)
    with assembled(out) as building:
        model.save(str(building))
    return out


def _texts(folder: RunFolder, merged: Path) -> list[str]:
    from trainer import base

    tokenizer = base.load_tokenizer(merged)
    found = []
    for row in read_rows(folder.path / "data" / "train.jsonl")[:ROWS]:
        chat = None if "text" in row else row["prompt"] + (row.get("completion") or row["chosen"])
        found.append(row["text"] if chat is None else tokenizer.apply_chat_template(chat, tokenize=False))
    return found
