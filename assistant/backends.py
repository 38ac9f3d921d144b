"""The three kinds of models that answer: an Ollama server, an OpenAI-compatible server, a GGUF file in process.

Each has a name, a model, a context (tokens), `count(text)` and `stream(messages)`; llm.py chooses among them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from assistant.thoughts import without_thoughts
from kb.errors import UserError
from trainer.export.ollama import Ollama, OllamaError, reason

READ_TIMEOUT = 300.0  # seconds without a byte
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
        "en": "'{model}' ended without an answer; ask again or choose another model",
        "zh-TW": "「{model}」沒有給出答案；請再問一次，或換一個模型",
    },
}


class BackendError(UserError):
    """A model that cannot answer, or stopped answering: what, where, what next, in one line."""


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
            yield from without_thoughts(self._texts(parts, messages, on_thought), on_thought)
        except OllamaError as error:
            raise BackendError(str(error)) from None

    def _texts(self, parts, messages, on_thought) -> Iterator[str]:
        for part in parts:
            message = part.get("message") or {}
            if message.get("thinking") and on_thought:
                on_thought(message["thinking"])
                yield ""  # so that the screen can show it
            if message.get("content"):
                yield message["content"]
            if part.get("done"):
                read, sent = (
                    part.get("prompt_eval_count"),
                    sum(token_bounds(m["content"])[0] for m in messages),
                )
                if read and read < sent:
                    raise BackendError(say("cut", self.lang, model=self.model, read=read, sent=sent))


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
        yield from without_thoughts(self._texts(body, on_thought), on_thought)

    def _texts(self, body: dict[str, Any], on_thought) -> Iterator[str]:
        import httpx

        begun = finished = False
        try:
            with (
                http(self.url, self.key) as client,
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
                        yield ""
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


def http(url: str, key: str, timeout: float = READ_TIMEOUT) -> Any:
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
    name: str = "llamacpp"

    def count(self, text: str) -> int:
        return len(self.engine.tokenize(text))

    def stream(self, messages, max_tokens=768, schema=None, on_thought=None) -> Iterator[str]:
        try:
            yield from without_thoughts(
                self.engine.chat(messages, max_tokens=max_tokens, schema=schema), on_thought
            )
        except BackendError:
            raise
        except UserError as error:
            raise BackendError(str(error)) from None
