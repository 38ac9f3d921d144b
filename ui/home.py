"""Where a user's things live. The only place, with the command line, that reads the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from assistant.llm import Settings
from kb.errors import UserError

ENVIRONMENT = {  # setting: variable; the variable wins over settings.yaml
    "backend": "TUNESMITH_BACKEND",
    "ollama_host": "OLLAMA_HOST",
    "ollama_model": "TUNESMITH_OLLAMA_MODEL",
    "openai_base_url": "OPENAI_BASE_URL",
    "openai_model": "OPENAI_MODEL",
    "openai_api_key": "OPENAI_API_KEY",
    "gguf": "TUNESMITH_GGUF",
    "num_ctx": "TUNESMITH_NUM_CTX",
    "think": "TUNESMITH_THINK",
    "keep_alive": "TUNESMITH_KEEP_ALIVE",
    "reranker": "TUNESMITH_RERANKER",
}
SECRET = {"openai_api_key"}  # from the environment only; never written to disk


@dataclass(frozen=True)
class Home:
    """The folder of everything that a user makes."""

    path: Path

    @property
    def index(self) -> Path:
        return self.path / "index"

    @property
    def tasks(self) -> Path:
        return self.path / "tasks"

    @property
    def conversations(self) -> Path:
        return self.path / "chat.sqlite"

    @property
    def uploads(self) -> Path:
        return self.path / "uploads"

    def stores(self) -> dict[str, Any]:
        """How the index is kept, as arguments of ingest: `embedder` and `server`, None for what it has.

        TUNESMITH_EMBEDDER: all-MiniLM-L6-v2, all-MiniLM-L6-v2-int8, ollama:MODEL, a Hub id or a folder.
        TUNESMITH_CHROMA_URL: a Chroma server, or "cloud"; a key for Chroma Cloud alone sends nothing anywhere.
        """
        embedder, url = (
            os.environ.get(f"TUNESMITH_{name}", "").strip() for name in ("EMBEDDER", "CHROMA_URL")
        )
        kept: dict[str, Any] = {"embedder": None, "server": None}
        if embedder:
            from ingest.embedder import from_name
            from trainer.export.ollama import base_url

            host = base_url(self.settings().ollama_host)
            kept["embedder"] = from_name(embedder, self.index / "embedder", host)
        if url:
            from ingest.server import Server

            names = ("TUNESMITH_CHROMA_TOKEN", "CHROMA_TENANT", "CHROMA_DATABASE", "CHROMA_API_KEY")
            kept["server"] = Server(url, *(os.environ.get(name, "").strip() for name in names))
        return kept

    def settings(self) -> Settings:
        """Answering settings: settings.yaml, overruled by the environment."""
        file = self.path / "settings.yaml"
        values = {}
        if file.exists():
            try:
                values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            except yaml.YAMLError as error:
                raise UserError(
                    f"{file}: not valid YAML ({getattr(error, 'problem', error)}); mend or delete it"
                ) from None
            unknown = set(values) - set(ENVIRONMENT) | (set(values) & SECRET)
            if unknown:
                raise UserError(
                    f"{file}: {', '.join(sorted(unknown))} cannot be set here; known: {', '.join(ENVIRONMENT)}"
                )
        values |= {key: os.environ[name] for key, name in ENVIRONMENT.items() if os.environ.get(name)}
        return Settings(**{key: _typed(key, value) for key, value in values.items()})


def _typed(key: str, value: Any) -> Any:
    """A setting as Settings has it, from the text of a variable or what YAML made of it. Raises UserError."""
    text = str("" if value is None else value).strip()
    if key == "num_ctx":
        if not text.isdecimal() or int(text) < 512:
            raise UserError(f"num_ctx = {text!r}: {ENVIRONMENT[key]} takes a number of tokens, 512 or more")
        return int(text)
    if key == "think":
        known = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}
        known |= {degree: degree for degree in ("low", "medium", "high")}
        if text.lower() not in known:
            raise UserError(f"think = {text!r}: {ENVIRONMENT[key]} takes true, false, low, medium or high")
        return known[text.lower()]
    return text


def home() -> Home:
    """The user's home folder for Tunesmith, made on first use. Raises UserError when it cannot be written."""
    path = Path(os.environ.get("TUNESMITH_HOME") or Path.home() / ".tunesmith").expanduser().absolute()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be made ({error.strerror}); set TUNESMITH_HOME to a folder you can write"
        ) from None
    return Home(path)
