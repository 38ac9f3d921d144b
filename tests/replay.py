"""Small HTTP servers on loopback that stand in for what a test machine cannot have: an Ollama server answering
from recordings of a real one, and a server that speaks OpenAI's chat completions."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

RECORDINGS = Path(__file__).parent / "recordings" / "ollama"


@dataclass
class Reply:
    """`body` in pieces, each sent at once; `cut` closes the connection after them as a killed server does."""

    status: int = 200
    body: list[bytes] = field(default_factory=list)
    kind: str = "application/json"
    cut: bool = False


Respond = Callable[[str, str, dict[str, Any]], Reply]  # method, path, JSON body


def recorded(name: str) -> Reply:
    """The answer of a recording."""
    found = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))
    lines = found["body"].encode().splitlines(keepends=True)
    return Reply(found["status"], lines, found["content_type"] or "application/json")


def ndjson(*parts: dict[str, Any], cut: bool = False) -> Reply:
    return Reply(200, [json.dumps(part).encode() + b"\n" for part in parts], "application/x-ndjson", cut)


def events(*parts: dict[str, Any] | str, cut: bool = False) -> Reply:
    """Server-sent events."""
    shown = [part if isinstance(part, str) else json.dumps(part) for part in parts]
    return Reply(200, [f"data: {text}\n\n".encode() for text in shown], "text/event-stream", cut)


@contextmanager
def serving(respond: Respond) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve on a free port; yields the address and the list of requests as they come (method, path, body, headers)."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            try:
                body = json.loads(raw) if raw else {}
            except ValueError:
                body = {"bytes": len(raw)}
            seen.append(
                {"method": self.command, "path": self.path, "body": body, "headers": dict(self.headers)}
            )
            reply = respond(self.command, self.path, body)
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.kind)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            if self.command == "HEAD":
                return
            for piece in reply.body:
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                self.wfile.flush()
            if reply.cut:
                self.close_connection = True
            else:
                self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_DELETE = do_HEAD = answer

        def log_message(self, *_: Any) -> None:
            pass

    with listening(Handler) as address:
        yield address, seen


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server of these answers on a free port; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def ollama(chat: Reply | Callable[[dict[str, Any]], Reply] | None = None, show: str = "show") -> Respond:
    """An Ollama server from recordings; `chat` answers /api/chat."""

    def respond(method: str, path: str, body: dict[str, Any]) -> Reply:
        if path == "/api/chat":
            return chat(body) if callable(chat) else chat or recorded("chat_stream")
        if path.startswith("/api/blobs/"):
            return Reply(404 if method == "HEAD" else 201)
        names = {
            "/api/version": "version", "/api/tags": "tags", "/api/ps": "ps", "/api/show": show,
            "/api/create": "create_from", "/api/delete": "delete",
        }  # fmt: skip
        return recorded(names[path]) if path in names else Reply(404, [b'{"error":"no such path"}'])

    return respond


def said(text: str, thinking: str = "", prompt_tokens: int = 0) -> Reply:
    """A whole Ollama answer, word by word."""
    words = [text[i : i + 7] for i in range(0, len(text), 7)]
    parts = (
        [{"message": {"role": "assistant", "content": "", "thinking": thinking}, "done": False}]
        if thinking
        else []
    )
    parts += [{"message": {"role": "assistant", "content": word}, "done": False} for word in words]
    end = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    return ndjson(*parts, end | ({"prompt_eval_count": prompt_tokens} if prompt_tokens else {}))
