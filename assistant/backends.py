"""The three kinds of models that answer: an Ollama server, an OpenAI-compatible server, a GGUF file in process.

Each has a name, a model, a context (tokens), `count(text)` and `stream(messages)`; llm.py chooses among them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
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
    "no_name": {
        "en": "name a model to pull, for example qwen3:4b; https://ollama.com/library lists them",
        "zh-TW": "請輸入要下載的模型名稱，例如 qwen3:4b；清單見 https://ollama.com/library",
    },
    "not_pulled": {
        "en": "'{model}' was not pulled ({why}); check its name and the network, then pull again",
        "zh-TW": "沒有下載到「{model}」（{why}）；請檢查名稱與網路，再下載一次",
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
    "slow": {
        "en": "{url} sent nothing for {seconds:.0f} s; it may still be loading the model: ask again, or choose a smaller one",
        "zh-TW": "{url} 有 {seconds:.0f} 秒沒有傳來任何內容；可能還在載入模型，請再問一次，或換較小的模型",
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
    "long": {
        "en": "the answer of '{model}' reached its limit of {limit} tokens and stops there; ask for less at a time",
        "zh-TW": "「{model}」的回答到了 {limit} 個 token 的上限，就停在這裡；請一次問少一點",
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


def least(messages: list[dict[str, str]]) -> int:
    """Tokens that messages have at least."""
    return sum(token_bounds(message["content"])[0] for message in messages)


def check_room(messages: list[dict[str, str]], model: str, context: int, lang: str) -> None:
    """Raises BackendError when messages cannot fit in a context of so many tokens: no server is to cut them."""
    if (needed := least(messages)) > context:
        why = f"{needed} > {context} tokens"
        raise BackendError(say("overflow", lang, model=model, why=why))


def check_read(read: int | None, messages: list[dict[str, str]], model: str, lang: str) -> None:
    """Raises BackendError when a server says that it read fewer tokens than the prompt can have had."""
    if read and read < (sent := least(messages)):
        raise BackendError(say("cut", lang, model=model, read=read, sent=sent))


# Ollama


@dataclass
class OllamaBackend:
    client: Ollama
    model: str
    context: int
    thinks: bool
    think: bool | str
    lang: str
    keep_alive: str = ""
    name: str = "ollama"

    def count(self, text: str) -> int:
        return token_bounds(text)[1]

    def stream(
        self, messages, max_tokens=768, schema=None, on_thought=None, temperature=0.0
    ) -> Iterator[str]:
        check_room(messages, self.model, self.context, self.lang)
        think = (False if schema else self.think) if self.thinks else None  # `format` and thinking clash
        limit = max_tokens + (1024 if think else 0)
        # the server wants a number for seconds, a text for a duration with its unit
        kept = int(self.keep_alive) if re.fullmatch(r"-?\d+", self.keep_alive) else self.keep_alive or None
        parts = self.client.chat(
            self.model,
            messages,
            self.context,
            max_tokens=limit,
            temperature=temperature,
            think=think,
            schema=schema,
            keep_alive=kept,
        )
        try:
            yield from without_thoughts(self._texts(parts, messages, limit, on_thought), on_thought)
        except OllamaError as error:
            raise BackendError(str(error)) from None

    def _texts(self, parts, messages, limit, on_thought) -> Iterator[str]:
        for part in parts:
            message = part.get("message") or {}
            if message.get("thinking") and on_thought:
                on_thought(message["thinking"])
                yield ""  # so that the screen can show it
            if message.get("content"):
                yield message["content"]
            if part.get("done"):
                check_read(part.get("prompt_eval_count"), messages, self.model, self.lang)
                if part.get("done_reason") == "length":
                    raise BackendError(say("long", self.lang, model=self.model, limit=limit))


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

    def stream(
        self, messages, max_tokens=768, schema=None, on_thought=None, temperature=0.0
    ) -> Iterator[str]:
        check_room(messages, self.model, self.context, self.lang)
        body = {
            "model": self.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": max_tokens,
            "temperature": temperature,
        }
        if schema:
            shape = {"name": "answer", "schema": schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        yield from without_thoughts(self._texts(body, on_thought), on_thought)

    def _texts(self, body: dict[str, Any], on_thought) -> Iterator[str]:
        finished, read = "", None
        for data in self._parts(body):
            choice = (data.get("choices") or [{}])[0]
            finished = finished or choice.get("finish_reason") or ("end" if data.get("finished") else "")
            read = (data.get("usage") or {}).get("prompt_tokens") or read
            delta = choice.get("delta") or {}
            thought = delta.get("reasoning_content") or delta.get("reasoning")
            if thought and on_thought:
                on_thought(thought)
                yield ""
            if delta.get("content"):
                yield delta["content"]
        if not finished:
            raise BackendError(say("broken", self.lang, url=self.url, why="no end of stream"))
        check_read(read, body["messages"], self.model, self.lang)
        if finished == "length":
            raise BackendError(say("long", self.lang, model=self.model, limit=body["max_tokens"]))

    def _parts(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The server's events. Raises BackendError, also in their middle."""
        import httpx

        begun = False
        try:
            with http(self.url, self.key) as client, self._accepted(client, body) as answer:
                for data in _events(answer.iter_lines()):
                    begun = True
                    if data.get("error"):
                        raise self._error(200, json.dumps(data))
                    yield data
        except httpx.ReadTimeout:
            seconds = client.timeout.read
            raise BackendError(say("slow", self.lang, url=self.url, seconds=seconds)) from None
        except httpx.HTTPError as error:
            key = "broken" if begun else "no_server"
            raise BackendError(
                say(key, self.lang, url=self.url, why=self._safe(str(error) or type(error).__name__))
            ) from None

    @contextmanager
    def _accepted(self, client: Any, body: dict[str, Any]) -> Iterator[Any]:
        """The answer to a request; an option that the server refuses by name is left out and the request sent again."""
        while True:
            with client.stream("POST", "/chat/completions", json=body) as answer:
                if answer.status_code == 200:
                    yield answer
                    return
                answer.read()
                simpler = _simpler(body, answer.status_code, answer.text)
                if simpler is None:
                    raise self._error(answer.status_code, answer.text)
                body = simpler

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


def _simpler(body: dict[str, Any], status: int, text: str) -> dict[str, Any] | None:
    """A request without the option that a refusal names, None if it names none that can go."""
    if status not in (400, 422):
        return None
    if "max_tokens" in body and "max_completion_tokens" in text:  # OpenAI's reasoning models
        rest = {key: value for key, value in body.items() if key != "max_tokens"}
        return rest | {"max_completion_tokens": body["max_tokens"]}
    named = next((key for key in ("stream_options", "temperature") if key in body and key in text), None)
    return named and {key: value for key, value in body.items() if key != named}


def http(url: str, key: str, timeout: float = READ_TIMEOUT) -> Any:
    import httpx

    local = httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    limits = httpx.Timeout(timeout, connect=min(timeout, 5.0))
    tls = httpx.URL(url).scheme == "https"  # reading the certificates takes 0.1 s
    return httpx.Client(base_url=url, headers=headers, timeout=limits, trust_env=not local, verify=tls)


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
    lang: str = "en"
    name: str = "llamacpp"

    def count(self, text: str) -> int:
        return len(self.engine.tokenize(text))

    def stream(
        self, messages, max_tokens=768, schema=None, on_thought=None, temperature=0.0
    ) -> Iterator[str]:
        try:
            pieces = []
            for piece in without_thoughts(
                self.engine.chat(messages, max_tokens, temperature, schema), on_thought
            ):
                pieces.append(piece)
                yield piece
        except BackendError:
            raise
        except UserError as error:
            raise BackendError(str(error)) from None
        if len(pieces) >= max_tokens // 2 and self.count("".join(pieces)) >= max_tokens:
            raise BackendError(say("long", self.lang, model=self.model, limit=max_tokens))
