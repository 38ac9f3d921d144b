"""Which model answers: settings in, a backend out. Used by answer.py; the kinds themselves are in backends.py.

`extract` is no model: the answer is then quoted from the passages. `models` lists what a person can choose from,
`pull` brings a model onto the Ollama server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
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

__all__ = [
    "BACKENDS",
    "Backend",
    "BackendError",
    "Extract",
    "ModelInfo",
    "Progress",
    "Settings",
    "models",
    "pick",
    "pull",
]

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
    think: bool | str = False  # or "low", "medium", "high", for models that know degrees
    keep_alive: str = ""  # how long Ollama keeps the model: "10m", "-1" for ever; "" leaves it to the server
    reranker: str = ""  # Hub id or folder of a cross-encoder, or a .gguf file; "" for none (rerank.py)


@dataclass(frozen=True)
class ModelInfo:
    """A model that can be asked. `size` in bytes and `context` in tokens, 0 where the server does not say."""

    name: str
    backend: str
    size: int = 0
    context: int = 0
    thinks: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a download is: the server's `status` line, bytes of all files known so far."""

    status: str
    completed: int = 0
    total: int = 0


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


def models(settings: Settings, lang: str = "en") -> list[ModelInfo]:
    """The models that can answer, in the server's order; embedding models are left out.

    `auto`: those of every backend that is there. Raises BackendError when the one asked for is not.
    """
    check(settings, lang)
    listers = {"ollama": _ollama_models, "openai": _openai_models, "llamacpp": _gguf_models}
    if settings.backend != "auto":
        return listers[settings.backend](settings, lang) if settings.backend in listers else []
    found: list[ModelInfo] = []
    for lister in listers.values():
        with suppress(UserError):  # auto means: whoever is there
            found += lister(settings, lang)
    return found


def pull(settings: Settings, model: str, lang: str = "en") -> Iterator[Progress]:
    """Download a model to the Ollama server. Closing the iterator stops it; pulling again goes on from there.

    Raises BackendError when there is no server, no such model, or no way to the registry.
    """
    client, model = _ollama_client(settings, lang), model.strip()
    if not model:
        raise BackendError(say("no_name", lang))
    files: dict[str, tuple[int, int]] = {}
    status = ""
    try:
        for part in client.pull(model):
            status = str(part.get("status") or status)
            if part.get("digest"):
                files[part["digest"]] = (int(part.get("completed") or 0), int(part.get("total") or 0))
            yield Progress(status, sum(c for c, _ in files.values()), sum(t for _, t in files.values()))
    except OllamaError as error:
        if not error.status:  # the server itself is gone; its line says so
            raise BackendError(str(error)) from None
        raise BackendError(say("not_pulled", lang, model=model, why=str(error))) from None
    if status != "success":
        raise BackendError(say("not_pulled", lang, model=model, why=status or "no end of stream"))


def _ollama_client(settings: Settings, lang: str) -> Ollama:
    client = Ollama(settings.ollama_host, lang)
    if client.version(PROBE_SECONDS) is None:
        raise BackendError(say("ollama_off", lang, host=client.host))
    return client


def _ollama(settings: Settings, lang: str) -> OllamaBackend:
    client = _ollama_client(settings, lang)
    try:
        cards = client.models() if not settings.ollama_model else []
        model = settings.ollama_model or next((card["name"] for card in cards if _chats(card)), "")
        if not model:
            raise BackendError(say("ollama_empty", lang, host=client.host))
        context, thinks = _traits(client.show(model))
    except OllamaError as error:
        raise BackendError(str(error)) from None
    context = min(settings.num_ctx, context or settings.num_ctx)
    return OllamaBackend(client, model, context, thinks, settings.think, lang, settings.keep_alive)


def _ollama_models(settings: Settings, lang: str) -> list[ModelInfo]:
    client = _ollama_client(settings, lang)
    found = []
    try:
        for card in filter(_chats, client.models()):
            try:
                context, thinks = _traits(client.show(card["name"]))
            except OllamaError as error:
                if not error.status:
                    raise
                continue  # deleted since it was listed, or a broken one: it cannot be asked
            found.append(ModelInfo(card["name"], "ollama", int(card.get("size") or 0), context, thinks))
    except OllamaError as error:
        raise BackendError(str(error)) from None
    return found


def _chats(card: dict[str, Any]) -> bool:
    return (card.get("details") or {}).get("family") not in EMBEDDING_FAMILIES


def _traits(shown: dict[str, Any]) -> tuple[int, bool]:
    """What /api/show tells: the context that the model was made for (tokens, 0 if unknown), whether it can think."""
    info = shown.get("model_info") or {}
    context = next((value for key, value in info.items() if key.endswith(".context_length")), 0)
    return int(context or 0), "thinking" in (shown.get("capabilities") or [])


def _openai(settings: Settings, lang: str) -> OpenAiBackend:
    backend, listed = _openai_server(settings, lang)
    if not backend.model and not listed:
        raise BackendError(say("no_server", lang, url=backend.url, why="/models lists nothing"))
    backend.model = backend.model or listed[0]["id"]
    card = next((m for m in listed if m.get("id") == backend.model), {})
    backend.context = min(settings.num_ctx, _listed_context(card) or settings.num_ctx)
    return backend


def _openai_models(settings: Settings, lang: str) -> list[ModelInfo]:
    return [
        ModelInfo(card["id"], "openai", int((card.get("meta") or {}).get("size") or 0), _listed_context(card))
        for card in _openai_server(settings, lang)[1]
    ]


def _openai_server(settings: Settings, lang: str) -> tuple[OpenAiBackend, list[dict[str, Any]]]:
    """A server that answers, and the models that it lists; none where it has no such list."""
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
    return backend, [card for card in listed if isinstance(card, dict) and card.get("id")]


def _listed_context(card: dict[str, Any]) -> int:
    """Context in tokens as vLLM, llama.cpp and OpenRouter list it; 0 where it is not said."""
    meta = card.get("meta") or {}
    known = card.get("max_model_len") or meta.get("n_ctx") or card.get("context_length")
    return int(known or meta.get("n_ctx_train") or 0)


def _gguf_models(settings: Settings, lang: str) -> list[ModelInfo]:
    from trainer.export.header import read_header

    path = _gguf_file(settings, lang)
    return [ModelInfo(path.name, "llamacpp", path.stat().st_size, read_header(path).context_length or 0)]


def _gguf_file(settings: Settings, lang: str) -> Path:
    path = Path(settings.gguf).expanduser()
    if not settings.gguf or not path.is_file():
        raise BackendError(say("no_gguf", lang, path=settings.gguf or "TUNESMITH_GGUF"))
    return path.absolute()


def _llamacpp(settings: Settings, lang: str) -> LlamaCppBackend:
    path = _gguf_file(settings, lang)
    asked = (path, path.stat().st_mtime_ns, settings.num_ctx)
    if not _loaded(*asked).engine.running:  # it ended since; the next question loads it again
        _loaded.cache_clear()
    return replace(_loaded(*asked), lang=lang)


@lru_cache(maxsize=1)  # loading takes seconds and gigabytes: once, until another file is asked for
def _loaded(path: Path, changed: int, num_ctx: int) -> LlamaCppBackend:
    from trainer.export.llamacpp import LlamaCpp

    try:
        engine = LlamaCpp(path, n_ctx=num_ctx)
    except UserError as error:
        raise BackendError(str(error)) from None
    return LlamaCppBackend(engine, path.name, engine.context)
