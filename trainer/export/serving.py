"""Ready command lines for servers of other projects: they load the merged folder as it is. Pure."""

from __future__ import annotations

import shlex
from pathlib import Path

from trainer.config import RunConfig
from trainer.export.architectures import read_config
from trainer.export.modelfile import model_name
from trainer.runs import RunFolder


def context_of(folder: Path, config: RunConfig) -> int:
    """Tokens of prompt and answer: what the run was trained on, and no more than the model was made for."""
    wanted = max(2048, config.max_length + config.max_new_tokens)
    return min(wanted, read_config(folder).get("max_position_embeddings") or wanted)


def vllm_command(folder: RunFolder, config: RunConfig) -> str:
    """The command that serves RUN/export/merged with vLLM, OpenAI's interface, on this machine only.

    `generation-config auto` is vLLM's default, named because it is what makes the stop tokens the trained ones.
    """
    merged = folder.path / "export" / "merged"
    words = ["vllm", "serve", str(merged), "--served-model-name", model_name(folder.id)]
    words += ["--max-model-len", str(context_of(merged, config)), "--generation-config", "auto"]
    return shlex.join([*words, "--host", "127.0.0.1"])


def vllm_adapter_command(base: str, folders: list[RunFolder], config: RunConfig) -> str:
    """The command that serves the base with every run's adapter beside it; a request names the one it wants."""
    words = ["vllm", "serve", base, "--enable-lora", "--max-lora-rank", str(rank_of(folders))]
    words += ["--lora-modules", *(f"{model_name(folder.id)}={folder.path / 'adapter'}" for folder in folders)]
    wanted = max(2048, config.max_length + config.max_new_tokens)
    return shlex.join([*words, "--max-model-len", str(wanted), "--host", "127.0.0.1"])


def rank_of(folders: list[RunFolder]) -> int:
    """The largest rank, rounded up to one that vLLM admits (8, 16, 32, 64, 128, 256, 320, 512)."""
    largest = max(folder.config().r for folder in folders)
    return next((rank for rank in (8, 16, 32, 64, 128, 256, 320) if rank >= largest), 512)
