"""An exported GGUF file → a model on an Ollama server, checked there: last stage of an export.

The server's own rendering of the chat template is compared with transformers'; a model that would be
prompted otherwise than it was trained is taken off the server again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.config import UserError
from trainer.export.modelfile import NAME, PROBES
from trainer.export.ollama import Ollama

QUANTIZATIONS = ("q8_0", "q4_K_M", "q4_K_S")  # what Ollama makes at import


def server_at(host: str | None) -> Ollama:
    """The server at `host` (OLLAMA_HOST's form; None for the default). Raises UserError when none answers."""
    server = Ollama(host or "")
    if server.version() is None:
        raise UserError(
            f"Ollama at {server.host} does not answer; start it with `ollama serve` or set OLLAMA_HOST, then export again"
        )
    return server


def server_with(host: str | None, name: str) -> tuple[Ollama, str] | None:
    """The server at `host` and the name, if one answers and holds such a model; None otherwise."""
    server = Ollama(host or "")
    if server.version() is None:
        return None
    wanted = name if ":" in name else f"{name}:latest"
    return (server, name) if wanted in (model.get("name") for model in server.models()) else None


def check_name(name: str) -> str:
    """The name, if Ollama admits it. Raises UserError."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"Ollama name {name!r}: use ASCII letters, digits, '-', '_' and '.', such as reviews:v1; give it with --name"
        )
    return name


def push(
    server: Ollama,
    name: str,
    gguf: Path,
    *,
    template: str | None,
    parameters: dict[str, Any],
    system: str,
    render: Callable[[list[dict[str, str]]], str],
    quantize: str | None = None,
    tell: Callable[[str], None] = print,
) -> bool | None:
    """Make `name` on the server from a GGUF file, replacing an older one.

    render: transformers' rendering of a conversation, without BOS, with the generation prompt. tell: gets the
    server's status lines. Returns True when the server renders the same, None when it cannot tell. Raises
    OllamaError; UserError when the server renders otherwise, after taking the model off again.
    """
    for line in server.create(name, gguf, template, parameters, system or None, quantize=quantize):
        tell(line)
    for chat in PROBES:
        found = server.render(name, chat)
        if found is None:
            return None
        asked = (
            chat
            if not system or chat[0]["role"] == "system"
            else [{"role": "system", "content": system}, *chat]
        )
        expected = render(asked)
        if not found.endswith(expected) or len(found) - len(expected) > 40:  # before it at most a BOS
            server.delete(name)
            at = next((i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), 0)
            raise UserError(
                f"{name}: Ollama renders the chat template otherwise than training, from character {at}: "
                f"{found[at : at + 30]!r} for {expected[at : at + 30]!r}; it was taken off again: chat with {gguf} in llama.cpp"
            )
    return True
