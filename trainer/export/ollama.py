"""A small client of a local Ollama server, over raw HTTP. Used by answering, the chat tab and export.

Raw because the Python client cannot send `truncate: false`, and without it Ollama cuts a long prompt
without a word (measured with server 0.32.15: 6,809 tokens became 258, HTTP 200).
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kb.errors import UserError

DEFAULT_HOST = "http://127.0.0.1:11434"
READ_TIMEOUT = 300.0  # seconds without a byte: loading a large model from a slow disk takes minutes
BLOCK = 1 << 20

TEXTS = {
    "gone": {
        "en": "Ollama at {host} does not answer ({why}); start it with `ollama serve` or set OLLAMA_HOST",
        "zh-TW": "{host} 的 Ollama 沒有回應（{why}）；請執行 `ollama serve`，或設定 OLLAMA_HOST",
    },
    "broken": {
        "en": "Ollama at {host} stopped in the middle of its answer ({why}); see its log, then ask again",
        "zh-TW": "{host} 的 Ollama 在回答途中中斷（{why}）；請看它的記錄，再問一次",
    },
    "missing": {
        "en": "Ollama has no model '{model}'; run `ollama pull {model}` or choose one of: {models}",
        "zh-TW": "Ollama 沒有模型「{model}」；請執行 `ollama pull {model}`，或改用：{models}",
    },
    "overflow": {
        "en": "the prompt does not fit the context of '{model}' ({num_ctx} tokens{wanted}); ask for less or raise num_ctx",
        "zh-TW": "提示超過「{model}」的上下文長度（{num_ctx} 個 token{wanted}）；請縮短內容或調高 num_ctx",
    },
    "thinking": {
        "en": "'{model}' cannot think; send the question without `think`",
        "zh-TW": "「{model}」不支援思考模式；請關閉 think 再送出",
    },
    "busy": {
        "en": "Ollama's queue is full; wait for the running requests and try again",
        "zh-TW": "Ollama 的佇列已滿；請等目前的請求結束後再試",
    },
    "refused": {"en": "Ollama refused {path}: {why}", "zh-TW": "Ollama 拒絕了 {path}：{why}"},
}


class OllamaError(UserError):
    """What went wrong between us and the Ollama server, in one line. `status` is HTTP's, 0 without one."""

    def __init__(self, line: str, status: int = 0):
        super().__init__(line)
        self.status = status


class Ollama:
    """One server. `host` as OLLAMA_HOST admits it: an address, a port, both, or a URL. `lang` is that of errors."""

    def __init__(self, host: str = "", lang: str = "en"):
        self.host = base_url(host)
        self.lang = "en" if lang.startswith("en") else "zh-TW"

    def version(self, timeout: float = 1.0) -> str | None:
        """The server's version, or None when nothing answers within `timeout` seconds."""
        if not _listens(self.host, timeout):
            return None
        import httpx  # 0.2 s: only once something listens

        try:
            return str(
                httpx.get(f"{self.host}/api/version", timeout=timeout, trust_env=False).json()["version"]
            )
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return None

    def models(self) -> list[dict[str, Any]]:
        """Models on the server, newest first: {name, size (bytes), details, capabilities, …}."""
        return list(self._json("GET", "/api/tags").get("models") or [])

    def show(self, model: str) -> dict[str, Any]:
        """Template, parameters, capabilities and model_info of one model. Raises OllamaError when missing."""
        return self._json("POST", "/api/show", {"model": model})

    def ps(self) -> list[dict[str, Any]]:
        """Loaded models with size_vram (bytes) and context_length (tokens)."""
        return list(self._json("GET", "/api/ps").get("models") or [])

    def delete(self, model: str) -> None:
        self._json("DELETE", "/api/delete", {"model": model})

    def chat(
        self,
        model: str,
        messages: list[dict[str, str]],
        num_ctx: int,
        *,
        max_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float | None = None,
        seed: int | None = None,
        think: bool | str | None = None,
        schema: dict[str, Any] | None = None,
        keep_alive: str | int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Stream a chat: dicts as Ollama sends them, {"message": {"content", "thinking"?}, "done", …}.

        The last one has done=true, done_reason and prompt_eval_count (tokens of the prompt). `num_ctx` is
        the context in tokens, prompt and answer together. Raises OllamaError, also in mid-stream.
        """
        options = {"num_ctx": num_ctx, "num_predict": max_tokens, "temperature": temperature}
        drawn = {"top_p": top_p, "seed": seed}
        options |= {key: value for key, value in drawn.items() if value is not None}
        body = {"model": model, "messages": messages, "stream": True, "truncate": False, "options": options}
        extra = {"think": think, "format": schema, "keep_alive": keep_alive}
        body |= {key: value for key, value in extra.items() if value is not None}
        done = False
        for part in self._lines("/api/chat", body):
            done = bool(part.get("done"))
            yield part
        if not done:
            raise OllamaError(self._say("broken", why="no end of stream"))

    def render(
        self,
        model: str,
        messages: list[dict[str, str]],
        tools: list[dict[str, Any]] | None = None,
        enable_thinking: bool | None = None,
    ) -> str | None:
        """The prompt text that Ollama makes of these messages; None where the server cannot tell.

        Uses `_debug_render_only`, an undocumented field (server 0.12 and later).
        """
        body = {"model": model, "messages": messages, "stream": False, "_debug_render_only": True}
        extra = {"tools": tools, "think": enable_thinking}
        body |= {key: value for key, value in extra.items() if value is not None}
        body["options"] = {"num_predict": 1}  # a server that ignores the field answers: keep that short
        return (self._json("POST", "/api/chat", body).get("_debug_info") or {}).get("rendered_template")

    def push_blob(self, path: Path) -> str:
        """Upload a file unless the server has it. Returns its digest, `sha256:<hex>`."""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        name = f"sha256:{digest.hexdigest()}"
        with self._client() as client:
            if client.head(f"/api/blobs/{name}").status_code == 200:
                return name
            headers = {"Content-Length": str(path.stat().st_size)}
            with path.open("rb") as file:
                blocks = iter(lambda: file.read(BLOCK), b"")
                self._check(
                    client.post(f"/api/blobs/{name}", content=blocks, headers=headers), "/api/blobs", {}
                )
        return name

    def create(
        self,
        model: str,
        gguf: Path,
        template: str | None = None,
        parameters: dict[str, Any] | None = None,
        system: str | None = None,
        quantize: str | None = None,
    ) -> Iterator[str]:
        """Import a GGUF file as `model`; yields the server's status lines, the last is "success".

        `template` is a Go template; without it the server reads the Jinja template inside the file.
        `quantize`: q8_0, q4_K_M or q4_K_S, which the server makes of an f16, bf16 or f32 file.
        """
        files = {gguf.name: self.push_blob(gguf)}
        extra = {"template": template, "parameters": parameters, "system": system, "quantize": quantize}
        body = {"model": model, "files": files, **{key: value for key, value in extra.items() if value}}
        for part in self._lines("/api/create", body):
            yield str(part.get("status", ""))

    def pull(self, model: str) -> Iterator[dict[str, Any]]:
        """Download a model: {status, total?, completed?} in bytes. Raises OllamaError when offline."""
        yield from self._lines("/api/pull", {"model": model})

    # the wire

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """An HTTP client whose failures are OllamaError: refused before an answer, broken after its start."""
        import httpx

        limits = httpx.Timeout(READ_TIMEOUT, connect=3.0)
        try:
            # trust_env=False: a proxy of the environment must not see what is asked of the local server.
            # Without TLS there is nothing to verify, and reading the certificates takes 0.1 s a request.
            tls = self.host.startswith("https")
            with httpx.Client(base_url=self.host, timeout=limits, trust_env=False, verify=tls) as client:
                yield client
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise OllamaError(self._say("gone", why=_short(error))) from None
        except httpx.HTTPError as error:
            raise OllamaError(self._say("broken", why=_short(error))) from None

    def _json(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        with self._client() as client:
            response = client.request(method, path, json=body)
            self._check(response, path, body or {})
        try:
            return response.json() if response.content else {}
        except ValueError:
            raise OllamaError(self._say("refused", path=path, why="its answer is not JSON")) from None

    def _lines(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """NDJSON of a streamed answer. An error can come as a line of an HTTP 200 answer."""
        with self._client() as client, client.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                response.read()
                self._check(response, path, body)
            for line in response.iter_lines():
                if not line.strip():
                    continue
                try:
                    part = json.loads(line)
                except ValueError:
                    raise OllamaError(self._say("broken", why="a line that is not JSON")) from None
                if "error" in part:
                    raise self._error(200, part["error"], path, body)
                yield part

    def _check(self, response: Any, path: str, body: dict[str, Any]) -> None:
        if response.status_code >= 400:
            raise self._error(response.status_code, response.text, path, body)

    def _error(self, status: int, text: str, path: str, body: dict[str, Any]) -> OllamaError:
        why = reason(text)
        model = body.get("model", "")
        if status == 404 and "not found" in why:
            return OllamaError(self._say("missing", model=model, models=self._names()), status)
        if "exceed" in why or "longer than the context" in why:
            wanted = _wanted(text)
            shown = (f", {wanted} needed" if self.lang == "en" else f"，需要 {wanted}") if wanted else ""
            num_ctx = (body.get("options") or {}).get("num_ctx", "?")
            return OllamaError(self._say("overflow", model=model, num_ctx=num_ctx, wanted=shown), status)
        if "does not support thinking" in why:
            return OllamaError(self._say("thinking", model=model), status)
        if status == 503:
            return OllamaError(self._say("busy"), status)
        return OllamaError(self._say("refused", path=path, why=why), status)

    def _names(self) -> str:
        try:
            names = [model["name"] for model in self.models()]
        except OllamaError:
            names = []
        return ", ".join(names[:8]) or "-"

    def _say(self, key: str, **values: Any) -> str:
        return TEXTS[key][self.lang].format(host=self.host, **values)


def base_url(host: str) -> str:
    """OLLAMA_HOST as a URL: "" → the default, "0.0.0.0" (what a server binds) → loopback, ":8080", "box:1"."""
    host = (host or "").strip().rstrip("/") or DEFAULT_HOST
    if "://" not in host:
        host = "http://" + ("127.0.0.1:" + host if host.isdigit() else host)
    parts = urlsplit(host)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 11434)
        name = parts.hostname or "127.0.0.1"
    except ValueError:
        raise UserError(f"OLLAMA_HOST = {host!r} is not an address; write it like {DEFAULT_HOST}") from None
    if parts.scheme not in ("http", "https"):
        raise UserError(f"OLLAMA_HOST = {host!r} is not http or https; write it like {DEFAULT_HOST}")
    if name in ("0.0.0.0", "::"):
        name = "127.0.0.1"
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}{parts.path}"


def reason(text: str) -> str:
    """The innermost message of an error body: {"error": "…"}, where "…" may be JSON again. One line, cut."""
    while True:
        try:
            value = json.loads(text)
        except (ValueError, TypeError):
            return " ".join(str(text).split())[:300]
        while isinstance(value, dict):
            value = value.get("error", value.get("message", ""))
        if not isinstance(value, str) or value == text:
            return " ".join(str(value).split())[:300]
        text = value


def _wanted(text: str) -> int | None:
    """n_prompt_tokens of an exceed_context_size_error, wherever it is nested."""
    digits = text.replace("\\", "").partition('"n_prompt_tokens":')[2].lstrip()
    number = digits[: len(digits) - len(digits.lstrip("0123456789"))]
    return int(number) if number else None


def _listens(url: str, timeout: float) -> bool:
    """Whether something accepts a connection: cheaper than an HTTP client when nothing is there."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout).close()
        return True
    except OSError:
        return False


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
