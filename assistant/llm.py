"""The models that can answer, behind one shape: name, context (tokens), count(text), stream(messages).

`pick` chooses one: ollama (its own API), openai (any compatible server), llamacpp (a GGUF file in this
process), or extract, which is no model: the answer is then quoted from the passages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from kb.errors import UserError
from trainer.export.ollama import Ollama, OllamaError, reason

BACKENDS = ("auto", "ollama", "openai", "llamacpp", "extract")
PROBE_SECONDS = 1.0
READ_TIMEOUT = 300.0
EMBEDDING_FAMILIES = {"bert", "nomic-bert", "nomic-bert-moe", "gemma-embedding"}
CJK = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]")

TEXTS = {
    "unknown": {
        "en": "unknown answering backend '{name}'; choose one of: {names}",
        "zh-TW": "沒有「{name}」這種回答方式；可用的有：{names}",
    },
    "ollama_off": {
        "en": "no Ollama answers at {host}; start it with `ollama serve`, or use --backend extract",
        "zh-TW": "{host} 沒有 Ollama 回應；請執行 `ollama serve`，或改用 --backend extract",
    },
    "ollama_empty": {
        "en": "Ollama at {host} has no model; run `ollama pull qwen3:4b` first",
        "zh-TW": "{host} 的 Ollama 還沒有模型；請先執行 `ollama pull qwen3:4b`",
    },
    "no_url": {
        "en": "backend openai needs a base URL; set OPENAI_BASE_URL, for example http://127.0.0.1:8000/v1",
        "zh-TW": "openai 需要伺服器網址；請設定 OPENAI_BASE_URL，例如 http://127.0.0.1:8000/v1",
    },
    "no_server": {
        "en": "no answer from {url} ({why}); check OPENAI_BASE_URL, it usually ends with /v1",
        "zh-TW": "{url} 沒有回應（{why}）；請檢查 OPENAI_BASE_URL，通常以 /v1 結尾",
    },
    "no_gguf": {
        "en": "{path}: no such GGUF file; set TUNESMITH_GGUF to a .gguf file",
        "zh-TW": "{path}：找不到 GGUF 檔；請把 TUNESMITH_GGUF 設為 .gguf 檔案",
    },
    "broken": {
        "en": "{url} stopped in the middle of its answer ({why}); ask again",
        "zh-TW": "{url} 在回答途中中斷（{why}）；請再問一次",
    },
    "missing": {
        "en": "{url} has no model '{model}'; set OPENAI_MODEL to one it lists",
        "zh-TW": "{url} 沒有模型「{model}」；請把 OPENAI_MODEL 設為它提供的模型",
    },
    "key": {
        "en": "{url} refused the API key; check OPENAI_API_KEY",
        "zh-TW": "{url} 不接受這把 API 金鑰；請檢查 OPENAI_API_KEY",
    },
    "overflow": {
        "en": "the prompt does not fit the context of '{model}' ({why}); ask for less or use a larger context",
        "zh-TW": "提示超過「{model}」的上下文長度（{why}）；請縮短內容或加大上下文",
    },
    "refused": {"en": "{url} refused the request: {why}", "zh-TW": "{url} 拒絕了請求：{why}"},
    "cut": {
        "en": "'{model}' read only {read} tokens of a prompt of at least {sent}: the server cut it; raise its context",
        "zh-TW": "「{model}」只讀了 {read} 個 token，提示至少有 {sent} 個：伺服器把它截斷了；請加大上下文",
    },
    "silent": {
        "en": "'{model}' gave no answer within {tokens} tokens; ask again or choose another model",
        "zh-TW": "「{model}」在 {tokens} 個 token 內沒有給出答案；請再問一次，或換一個模型",
    },
}


class BackendError(UserError):
    """A model that cannot answer, or stopped answering: what, where, what next, in one line."""


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
    if settings.backend != "auto":
        raise BackendError(say("unknown", lang, name=settings.backend, names=", ".join(BACKENDS)))
    for name, wanted in (("ollama", True), ("openai", settings.openai_base_url), ("llamacpp", settings.gguf)):
        if not wanted:
            continue
        try:
            return makers[name](settings, lang)
        except UserError:
            continue  # auto means: whoever is there
    return Extract()


def say(key: str, lang: str, **values: Any) -> str:
    return TEXTS[key]["en" if lang.startswith("en") else "zh-TW"].format(**values)


def token_bounds(text: str) -> tuple[int, int]:
    """At least and at most how many tokens a text has, for usual vocabularies, without a tokenizer.

    CJK: 0.4 to 1.1 a character (Qwen3 .6, Llama-2 with byte fallback more); other text: a token for 6 to 3
    characters. The upper one plans the prompt, the lower one detects a prompt that was cut.
    """
    cjk = len(CJK.findall(text))
    rest = len(text) - cjk
    return int(cjk * 0.4 + rest / 6), int(cjk * 1.1 + rest / 3) + 1


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


# Ollama


@dataclass
class OllamaBackend:
    client: Ollama
    model: str
    context: int
    thinks: bool
    think: bool
    lang: str
    name: str = "ollama"

    def count(self, text: str) -> int:
        return token_bounds(text)[1]

    def stream(self, messages, max_tokens=768, schema=None, on_thought=None) -> Iterator[str]:
        think = (self.think and not schema) if self.thinks else None  # `format` and thinking clash
        limit = max_tokens + (1024 if think else 0)
        parts = self.client.chat(
            self.model, messages, self.context, max_tokens=limit, think=think, schema=schema
        )
        try:
            yield from _without_thoughts(self._texts(parts, messages, limit, on_thought), on_thought)
        except OllamaError as error:
            raise BackendError(str(error)) from None

    def _texts(self, parts, messages, limit, on_thought) -> Iterator[str]:
        spoke = False
        for part in parts:
            message = part.get("message") or {}
            if message.get("thinking") and on_thought:
                on_thought(message["thinking"])
            if message.get("content"):
                spoke = True
                yield message["content"]
            if part.get("done"):
                read, sent = (
                    part.get("prompt_eval_count"),
                    sum(token_bounds(m["content"])[0] for m in messages),
                )
                if read and read < sent:
                    raise BackendError(say("cut", self.lang, model=self.model, read=read, sent=sent))
        if not spoke:
            raise BackendError(say("silent", self.lang, model=self.model, tokens=limit))


def _ollama(settings: Settings, lang: str) -> OllamaBackend:
    client = Ollama(settings.ollama_host, lang)
    if client.version(PROBE_SECONDS) is None:
        raise BackendError(say("ollama_off", lang, host=client.host))
    model = settings.ollama_model
    if not model:
        usable = [
            m for m in client.models() if (m.get("details") or {}).get("family") not in EMBEDDING_FAMILIES
        ]
        if not usable:
            raise BackendError(say("ollama_empty", lang, host=client.host))
        model = usable[0]["name"]
    card = client.show(model)
    info = card.get("model_info") or {}
    trained = next(
        (value for key, value in info.items() if key.endswith(".context_length")), settings.num_ctx
    )
    thinks = "thinking" in (card.get("capabilities") or [])
    return OllamaBackend(client, model, min(settings.num_ctx, trained), thinks, settings.think, lang)


# any server that speaks OpenAI's chat completions


@dataclass
class OpenAiBackend:
    url: str
    model: str
    context: int
    lang: str
    key: str = field(default="", repr=False)
    name: str = "openai"

    def count(self, text: str) -> int:
        return token_bounds(text)[1]

    def stream(self, messages, max_tokens=768, schema=None, on_thought=None) -> Iterator[str]:
        body = {
            "model": self.model,
            "messages": messages,
            "stream": True,
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        if schema:
            shape = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        yield from _without_thoughts(self._texts(body, on_thought), on_thought)

    def _texts(self, body: dict[str, Any], on_thought) -> Iterator[str]:
        import httpx

        begun = finished = False
        try:
            with (
                _http(self.url, self.key) as client,
                client.stream("POST", "/chat/completions", json=body) as answer,
            ):
                if answer.status_code != 200:
                    answer.read()
                    raise self._error(answer.status_code, answer.text)
                for data in _events(answer.iter_lines()):
                    begun = True
                    if data.get("error"):
                        raise self._error(200, json.dumps(data))
                    choice = (data.get("choices") or [{}])[0]
                    finished = finished or bool(choice.get("finish_reason") or data.get("finished"))
                    delta = choice.get("delta") or {}
                    thought = delta.get("reasoning_content") or delta.get("reasoning")
                    if thought and on_thought:
                        on_thought(thought)
                    if delta.get("content"):
                        yield delta["content"]
        except httpx.HTTPError as error:
            key = "broken" if begun else "no_server"
            raise BackendError(
                say(key, self.lang, url=self.url, why=self._safe(str(error) or type(error).__name__))
            ) from None
        if not finished:
            raise BackendError(say("broken", self.lang, url=self.url, why="no end of stream"))

    def _error(self, status: int, text: str) -> BackendError:
        why = self._safe(reason(text))
        values = {"url": self.url, "model": self.model, "why": why}
        if status in (401, 403):
            return BackendError(say("key", self.lang, **values))
        if status == 404:
            return BackendError(say("missing" if "model" in why else "no_server", self.lang, **values))
        overflow = "context" in why and any(word in why for word in ("exceed", "maximum", "length", "longer"))
        return BackendError(say("overflow" if overflow else "refused", self.lang, **values))

    def _safe(self, text: str) -> str:
        """An error text without the key: servers repeat it, whole or its ends."""
        if self.key:
            text = text.replace(self.key, "***")
        return re.sub(r"\bsk-[\w*-]{4,}", "***", " ".join(text.split()))[:200]


def _openai(settings: Settings, lang: str) -> OpenAiBackend:
    import httpx

    url = settings.openai_base_url.strip().rstrip("/")
    if not url:
        raise BackendError(say("no_url", lang))
    backend = OpenAiBackend(url, settings.openai_model, settings.num_ctx, lang, settings.openai_api_key)
    try:
        with _http(url, backend.key, timeout=PROBE_SECONDS) as client:
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


def _http(url: str, key: str, timeout: float = READ_TIMEOUT) -> Any:
    import httpx

    local = httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Timeout(timeout, connect=min(timeout, 5.0))
    return httpx.Client(base_url=url, headers=headers, timeout=limits, trust_env=not local)


def _events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """JSON documents of a server-sent event stream, up to [DONE]; comments and other fields are passed over."""
    for line in lines:
        data = line[5:].strip() if line.startswith("data:") else ""
        if data == "[DONE]":
            yield {"finished": True}
            return
        if data:
            try:
                yield json.loads(data)
            except ValueError:
                continue


# a GGUF file in this process


@dataclass
class LlamaCppBackend:
    engine: Any
    model: str
    context: int
    lang: str
    name: str = "llamacpp"
    lock: Any = field(default_factory=Lock, repr=False)

    def count(self, text: str) -> int:
        return len(self.engine.tokenize(text))

    def stream(self, messages, max_tokens=768, schema=None, on_thought=None) -> Iterator[str]:
        # one context in memory: two askers at once take turns
        with self.lock:
            yield from _without_thoughts(
                self.engine.chat(messages, max_tokens=max_tokens, schema=schema), on_thought
            )


def _llamacpp(settings: Settings, lang: str) -> LlamaCppBackend:
    path = Path(settings.gguf).expanduser()
    if not settings.gguf or not path.is_file():
        raise BackendError(say("no_gguf", lang, path=settings.gguf or "TUNESMITH_GGUF"))
    return _loaded(path.absolute(), path.stat().st_mtime_ns, settings.num_ctx, lang)


@lru_cache(maxsize=1)  # loading takes seconds and gigabytes: once, until another file is asked for
def _loaded(path: Path, changed: int, num_ctx: int, lang: str) -> LlamaCppBackend:
    from trainer.export.llamacpp import LlamaCpp

    return LlamaCppBackend(LlamaCpp(path, n_ctx=num_ctx), path.name, num_ctx, lang)


def _without_thoughts(pieces: Iterator[str], on_thought: Callable[[str], None] | None) -> Iterator[str]:
    """Text without a leading <think>…</think>, which servers without a thinking field leave in the answer."""
    held, state = "", "start"
    for piece in pieces:
        if state == "text":
            yield piece
            continue
        held += piece
        if state == "start":
            begin = held.lstrip()
            if begin.startswith("<think>"):
                held, state = begin[len("<think>") :], "think"
            elif not "<think>".startswith(begin):
                state = "text"
                yield held
                continue
        if state == "think" and "</think>" in held:
            thought, _, rest = held.partition("</think>")
            if on_thought:
                on_thought(thought)
            held, state = "", "text"
            if rest.lstrip():
                yield rest.lstrip()
    if held and state != "text":
        if state == "think" and on_thought:
            on_thought(held)
        elif state == "start":
            yield held
