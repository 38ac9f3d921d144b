"""The model that writes rows: a backend of assistant.llm as the function that trainer.data.propose asks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from assistant import llm
from kb.errors import UserError
from trainer.data.propose import Ask
from ui.i18n import translator

TEMPERATURE = 0.8  # rows are to differ; what the model writes is kept in the review file, not made again
MOST_TOKENS = 2048


def writer(
    settings: llm.Settings, model: str, lang: str, temperature: float = TEMPERATURE
) -> tuple[Ask, str]:
    """(ask, the model's name). `model` is a .gguf file or a name on the server, "" its first model. Raises UserError."""
    if model.endswith(".gguf"):
        settings = replace(settings, backend="llamacpp", gguf=str(Path(model).expanduser()))
    elif model:
        settings = replace(settings, ollama_model=model, openai_model=model)
    backend = llm.pick(settings, lang)
    if backend.name == "extract":
        raise UserError(translator(lang)("data.no_writer"))

    def ask(messages: list[dict[str, str]], schema: dict[str, Any], seed: int) -> str:
        return "".join(
            backend.stream(messages, max_tokens=MOST_TOKENS, schema=schema or None, temperature=temperature)
        )

    return ask, f"{backend.name}:{backend.model}"
