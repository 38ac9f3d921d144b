"""llama.cpp on this machine: runs a GGUF file for chat, for answers and for the parity check.

`with LlamaCpp(path) as model: "".join(model.chat(messages))`. The engine is `xllamacpp`, the one that
Ollama runs too, in a process of its own (engine.py). It opens no port: requests go over a Unix socket in a
folder that only this user may enter. Costs no torch.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import UserError
from trainer.export.header import read_header
from trainer.export.vocabulary import thinking_default

# Bytes under which a second thread waits more than it works. Measured with a 3 MB model on two cores that had
# other work (load 9): 72 prompt and 8 answer tokens take 7 ms with one thread, 970 ms with two.
SMALL = 100_000_000
REASON = re.compile(r"error loading model: (.*)|(?:error|failed):? (.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Generation:
    """Tokens written after a prompt. `top[i]` are the likeliest (token, natural log probability) at step i."""

    text: str
    tokens: list[int]
    top: list[list[tuple[int, float]]]
    stopped: str  # "eos", "limit" or "word"


class LlamaCpp:
    """A GGUF file loaded in llama.cpp.

    n_ctx: tokens of prompt and answer together; cut to what the model was made for.
    threads: CPU threads; None is one for a small model and llama.cpp's own choice (all cores) for others.
    rerank: load a model that scores pairs, for `rerank` and nothing else.
    adapters: GGUF files of LoRA adapters on this model, none of them on it until `use` says so.
    Safe to use from several threads: requests wait for each other in llama.cpp's own queue.
    Raises UserError for a file that is missing, not sound, or of a kind llama.cpp cannot run.
    """

    def __init__(
        self,
        gguf: Path,
        n_ctx: int = 4096,
        threads: int | None = None,
        rerank: bool = False,
        adapters: Sequence[Path] = (),
    ) -> None:
        self.path = Path(gguf)
        header = read_header(self.path)
        for adapter in adapters:
            _check_adapter(Path(adapter), header.architecture)
        self._scales = [0.0] * len(adapters)
        self.architecture = header.architecture
        self.context = min(n_ctx, header.context_length or n_ctx)
        self._closing = threading.Lock()
        self._closed = False
        self._folder = Path(tempfile.mkdtemp(prefix="tunesmith-"))  # mode 0700
        self._socket = self._folder / "llama.sock"
        if threads is None:
            threads = 1 if self.path.stat().st_size < SMALL else 0
        options = {"rerank": rerank, "adapters": [str(adapter) for adapter in adapters]}
        options["thinking"] = thinking_default(header.metadata.get("tokenizer.chat_template"))
        self._process = _start(self.path, self._socket, self.context, threads, options)
        self._finish = weakref.finalize(self, _end, self._process, self._folder)
        if self._process.stdout.readline() != b"ready\n":
            reason = self._why_it_ended()
            self.close()
            raise UserError(
                f"{self.path}: llama.cpp cannot load it: {reason}; use another file, or export again"
            )

    def use(self, scales: dict[int, float]) -> None:
        """Put adapters on the model for what is asked from now on: index in `adapters` → scale; others are off."""
        if unknown := set(scales) - set(range(len(self._scales))):
            raise UserError(f"{self.path.name}: no adapter {min(unknown)}; it has {len(self._scales)}")
        self._scales = [float(scales.get(index, 0.0)) for index in range(len(self._scales))]

    def chat(
        self,
        messages: Sequence[dict[str, str]],
        max_tokens: int = 256,
        temperature: float = 0.0,
        schema: dict[str, Any] | None = None,
        top_p: float = 1.0,
        seed: int | None = None,
        measured: Callable[[dict[str, Any]], None] = lambda timings: None,
    ) -> Iterator[str]:
        """Stream the answer to `messages` ({"role", "content"}) as pieces of text, through the model's own template.

        The text comes as the model writes it: thoughts and tool calls are not taken out.
        schema: a JSON schema that the answer must follow. top_p: draw from the likeliest tokens that together have
        this probability; 1 for all. measured: gets llama.cpp's own figures at the end ("predicted_n" tokens,
        "predicted_per_second", "prompt_ms"), without the time that the request waited. Closing the iterator stops the model.
        Raises UserError when the messages do not fit in the context.
        """
        request = self._completion(self.render(messages), max_tokens, temperature, schema)
        request |= {"stream": True, "cache_prompt": True, "top_p": top_p}
        request |= {} if seed is None else {"seed": seed}
        with self._request("/completion", request) as response:
            for line in response:
                if not line.startswith((b"data: ", b"error: ")):
                    continue
                event = json.loads(line.split(b": ", 1)[1])
                if "error" in event:
                    raise UserError(self._reason(json.dumps(event).encode()))
                if event["content"]:
                    yield event["content"]
                if event["stop"]:
                    measured(event.get("timings", {}))
                    return
            raise http.client.IncompleteRead(b"")  # the connection ended before the answer did

    def complete(
        self,
        prompt: str,
        max_tokens: int = 256,
        temperature: float = 0.0,
        schema: dict[str, Any] | None = None,
    ) -> str:
        """The text that follows `prompt`, which is taken as it stands (no chat template)."""
        return self.generate(prompt, max_tokens, temperature, schema=schema).text

    def generate(
        self,
        prompt: str | list[int],
        max_tokens: int = 256,
        temperature: float = 0.0,
        top: int = 0,
        schema: dict[str, Any] | None = None,
    ) -> Generation:
        """Like `complete`, from text or token ids, with the tokens and the `top` likeliest at each step.

        The prompt's cache is not reused, so that the same prompt gives the same numbers every time.
        """
        request = self._completion(prompt, max_tokens, temperature, schema) | {
            "return_tokens": True,
            "n_probs": top,
        }
        answer = self._post("/completion", request)
        steps = [
            [(choice["id"], choice["logprob"]) for choice in step["top_logprobs"]]
            for step in answer.get("completion_probabilities", [])
        ]
        return Generation(answer["content"], answer["tokens"], steps, answer["stop_type"])

    def tokenize(self, text: str, special: bool = True) -> list[int]:
        """Token ids of `text` as a prompt is read: control tokens are recognised.

        special: put BOS first where the model asks for it.
        """
        return self._post("/tokenize", {"content": text, "add_special": special, "parse_special": True})[
            "tokens"
        ]

    def render(
        self,
        messages: Sequence[dict[str, str]],
        tools: list[dict[str, Any]] | None = None,
        enable_thinking: bool | None = None,
    ) -> str:
        """`messages` through the model's chat template, ready for its answer; without the BOS that is added later.

        tools: in OpenAI's form. enable_thinking: what the template is told of it; None for nothing.
        """
        request: dict[str, Any] = {"messages": list(messages)}
        request |= {"tools": tools} if tools else {}
        if enable_thinking is not None:
            request["chat_template_kwargs"] = {"enable_thinking": enable_thinking}
        return self._post("/apply-template", request)["prompt"]

    def rerank(self, question: str, texts: Sequence[str]) -> list[float]:
        """How well each text answers the question, in the model's own scale (mostly a logit), in the texts' order.

        Raises UserError when question and text together have more tokens than the context.
        """
        answer = self._post("/rerank", {"query": question, "documents": list(texts)})
        scores = {row["index"]: float(row["relevance_score"]) for row in answer["results"]}
        return [scores[index] for index in range(len(texts))]

    @property
    def running(self) -> bool:
        """Whether the model is still loaded: False after `close`, or when llama.cpp ended by itself."""
        return not self._closed and self._process.poll() is None

    def close(self) -> None:
        """End llama.cpp and free its memory. An answer that still streams ends with a UserError. Twice is fine."""
        with self._closing:
            self._closed = True
            self._finish()

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _completion(
        self, prompt: str | list[int], max_tokens: int, temperature: float, schema: dict | None
    ) -> dict[str, Any]:
        request: dict[str, Any] = {"prompt": prompt, "n_predict": max_tokens, "temperature": temperature}
        request["cache_prompt"] = False
        if self._scales:
            request["lora"] = [{"id": index, "scale": scale} for index, scale in enumerate(self._scales)]
        if schema is None:
            return request
        # a small model may otherwise fill its whole budget with the white space that JSON allows
        return request | {"json_schema": schema | {"x-guidance": {"whitespace_flexible": False}}}

    def _post(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        with self._request(path, request) as response:
            return json.loads(response.read())

    @contextlib.contextmanager
    def _request(self, path: str, request: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
        """One request on a connection of its own, whose end tells llama.cpp to stop. Raises UserError."""
        connection = http.client.HTTPConnection("llamacpp")
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(str(self._socket))
            connection.request(
                "POST", path, json.dumps(request).encode(), {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            if response.status != 200:
                raise UserError(self._reason(response.read()))
            yield response
        except (OSError, http.client.HTTPException) as error:
            why = "the model was closed" if self._closed else f"llama.cpp ended: {self._why_it_ended()}"
            if not self._closed and self._process.returncode is None:
                raise
            raise UserError(f"{self.path.name}: {why}; load it again") from error
        finally:
            connection.close()

    def _why_it_ended(self) -> str:
        """The last thing that llama.cpp said on standard error, without its time stamps and paths."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        errors = self._folder / "stderr"
        said = errors.read_text(encoding="utf-8", errors="replace") if errors.exists() else ""
        reasons = [found[1] or found[2] for found in REASON.finditer(said)]
        return reasons[0].strip()[:200] if reasons else f"it ended with status {self._process.returncode}"

    def _reason(self, body: bytes) -> str:
        try:
            error = json.loads(body)["error"]
            message, kind = error.get("message", ""), error.get("type", "")
        except (ValueError, KeyError, AttributeError):
            message, kind = body[:200].decode("utf-8", "replace"), ""
        if kind == "exceed_context_size_error":
            needed = error.get("n_prompt_tokens", "more")
            return (
                f"{self.path.name}: the prompt has {needed} tokens, the context {self.context}; "
                "shorten it or load the model with a larger n_ctx"
            )
        return f"{self.path.name}: llama.cpp refused the request: {' '.join(str(message).split())}"


def _check_adapter(path: Path, architecture: str) -> None:
    header = read_header(path, "adapter")
    if header.architecture != architecture:
        raise UserError(
            f"{path}: an adapter for {header.architecture}, not for {architecture}; use its own base"
        )


def _start(
    gguf: Path, channel: Path, n_ctx: int, threads: int, options: dict[str, Any]
) -> subprocess.Popen[bytes]:
    """engine.py for a file. It ends when its standard input does, so not later than this process."""
    engine = Path(__file__).with_name("engine.py")
    command = [
        sys.executable,
        "-P",
        str(engine),
        str(gguf),
        str(channel),
        str(n_ctx),
        str(threads),
        json.dumps(options),
    ]
    with (channel.parent / "stderr").open("wb") as errors:
        # a session of its own: Ctrl-C in a terminal is for us, who then end it
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )


def _end(process: subprocess.Popen[bytes], folder: Path) -> None:
    process.kill()  # it holds nothing but memory
    process.wait()
    process.stdin.close()
    process.stdout.close()
    shutil.rmtree(folder, ignore_errors=True)
