"""Which model answers: settings in, a backend out. Used by answer.py; the kinds themselves are in backends.py.

`extract` is no model: the answer is then quoted from the passages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from assistant.backends import (
    BackendError,
    LlamaCppBackend,
    OllamaBackend,
    OpenAiBackend,
    http,
    say,
    token_bounds,
)
from kb.errors import UserError
from trainer.export.ollama import Ollama, OllamaError

__all__ = ["BACKENDS", "Backend", "BackendError", "Extract", "Settings", "pick"]

BACKENDS = ("auto", "ollama", "openai", "llamacpp", "extract")
PROBE_SECONDS = 1.0
EMBEDDING_FAMILIES = {"bert", "nomic-bert", "nomic-bert-moe", "gemma-embedding"}


@dataclass(frozen=True)
class Settings:
    """Which model answers. Empty model names mean the first that the server lists; `num_ctx` in tokens."""

    backend: str = "auto"
    ollama_host: str = ""
    ollama_model: str = ""
    openai_base_url: str = ""
    openai_api_key: str = field(default="", repr=False)
    openai_model: str = ""
    gguf: str = ""
    num_ctx: int = 8192
    think: bool = False


class Backend(Protocol):
    """`stream` yields the answer's text in pieces; thinking goes to `on_thought`. Raises BackendError."""

    name: str
    model: str
    context: int

    def count(self, text: str) -> int: ...

    def stream(
        self,
        messages: list[dict[str, str]],
        max_tokens: int = 768,
        schema: dict[str, Any] | None = None,
        on_thought: Callable[[str], None] | None = None,
    ) -> Iterator[str]: ...


def pick(settings: Settings, lang: str = "en") -> Backend:
    """The backend asked for. `auto`: the first of ollama, openai, llamacpp that answers within a second,
    else extract. Raises BackendError when the one asked for is not there; its line is in `lang`."""
    makers = {"ollama": _ollama, "openai": _openai, "llamacpp": _llamacpp}
    if settings.backend == "extract":
        return Extract()
    if settings.backend in makers:
        return makers[settings.backend](settings, lang)
    check(settings, lang)
    for name, wanted in (("ollama", True), ("openai", settings.openai_base_url), ("llamacpp", settings.gguf)):
        if not wanted:
            continue
        try:
            return makers[name](settings, lang)
        except UserError:
            continue  # auto means: whoever is there
    return Extract()


def check(settings: Settings, lang: str = "en") -> None:
    """Raises BackendError for a backend that does not exist."""
    if settings.backend not in BACKENDS:
        raise BackendError(say("unknown", lang, name=settings.backend, names=", ".join(BACKENDS)))


@dataclass(frozen=True)
class Extract:
    """No model: `assistant.extract` quotes the passages."""

    name: str = "extract"
    model: str = ""
    context: int = 0

    def count(self, text: str) -> int:
        return token_bounds(text)[1]

    def stream(self, messages, max_tokens=0, schema=None, on_thought=None) -> Iterator[str]:
        raise TypeError("extract quotes passages; it has no model to stream from")


def _ollama(settings: Settings, lang: str) -> OllamaBackend:
    client = Ollama(settings.ollama_host, lang)
    if client.version(PROBE_SECONDS) is None:
        raise BackendError(say("ollama_off", lang, host=client.host))
    model = settings.ollama_model
    try:
        model = model or _first_that_chats(client)
        card = client.show(model) if model else {}
    except OllamaError as error:
        raise BackendError(str(error)) from None
    if not model:
        raise BackendError(say("ollama_empty", lang, host=client.host))
    info = card.get("model_info") or {}
    trained = next(
        (value for key, value in info.items() if key.endswith(".context_length")), settings.num_ctx
    )
    thinks = "thinking" in (card.get("capabilities") or [])
    return OllamaBackend(client, model, min(settings.num_ctx, trained), thinks, settings.think, lang)


def _first_that_chats(client: Ollama) -> str:
    for card in client.models():
        if (card.get("details") or {}).get("family") not in EMBEDDING_FAMILIES:
            return card["name"]
    return ""


def _openai(settings: Settings, lang: str) -> OpenAiBackend:
    import httpx

    url = settings.openai_base_url.strip().rstrip("/")
    if not url:
        raise BackendError(say("no_url", lang))
    backend = OpenAiBackend(url, settings.openai_model, settings.num_ctx, lang, settings.openai_api_key)
    try:
        with http(url, backend.key, timeout=PROBE_SECONDS) as client:
            response = client.get("/models")
            if response.status_code in (401, 403):
                raise backend._error(response.status_code, response.text)
            listed = response.json().get("data") or [] if response.status_code == 200 else []
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, AttributeError) as error:
        raise BackendError(
            say("no_server", lang, url=url, why=backend._safe(str(error)) or type(error).__name__)
        ) from None
    if not backend.model and not listed:
        raise BackendError(say("no_server", lang, url=url, why="/models lists nothing"))
    backend.model = backend.model or listed[0]["id"]
    card = next((m for m in listed if m.get("id") == backend.model), {})
    known = card.get("max_model_len") or (card.get("meta") or {}).get("n_ctx") or settings.num_ctx
    backend.context = min(settings.num_ctx, int(known))
    return backend


def _llamacpp(settings: Settings, lang: str) -> LlamaCppBackend:
    path = Path(settings.gguf).expanduser()
    if not settings.gguf or not path.is_file():
        raise BackendError(say("no_gguf", lang, path=settings.gguf or "TUNESMITH_GGUF"))
    return _loaded(path.absolute(), path.stat().st_mtime_ns, settings.num_ctx)


@lru_cache(maxsize=1)  # loading takes seconds and gigabytes: once, until another file is asked for
def _loaded(path: Path, changed: int, num_ctx: int) -> LlamaCppBackend:
    from trainer.export.llamacpp import LlamaCpp

    try:
        engine = LlamaCpp(path, n_ctx=num_ctx)
    except UserError as error:
        raise BackendError(str(error)) from None
    return LlamaCppBackend(engine, path.name, engine.context)
