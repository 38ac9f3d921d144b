"""Who may talk to the app: pages of this host only, with a password beyond loopback. ASGI, around everything."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
# Gradio needs inline and evaluated script; images and requests may go nowhere but here.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; frame-ancestors 'none'"
)


class Guard:
    """ASGI middleware: only this host's pages talk to the app; a password where it listens beyond loopback."""

    def __init__(self, app: Callable, hosts: set[str], password: str | None) -> None:
        self.app, self.hosts, self.password = app, hosts, password

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        refusal = self.refusal(headers)
        if refusal:
            return await plain(send, *refusal)

        async def with_headers(message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *SAFE_HEADERS]
            await send(message)

        await self.app(scope, receive, with_headers)

    def refusal(self, headers: dict[str, str]) -> tuple[int, str, list[tuple[bytes, bytes]]] | None:
        host = headers.get("host", "")
        if hostname(host) not in self.hosts:
            return 400, f"This page is served for {', '.join(sorted(self.hosts))} only.", []
        origin = headers.get("origin")
        if origin and origin.split("://", 1)[-1] != host:
            return 403, "Requests from other sites are refused.", []
        if self.password and not self.admitted(headers.get("authorization", "")):
            return 401, "A password is needed.", [(b"www-authenticate", b'Basic realm="Tunesmith"')]
        return None

    def admitted(self, authorization: str) -> bool:
        try:
            given = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")[2]
        except ValueError:
            return False
        return hmac.compare_digest(given.encode(), (self.password or "").encode())


SAFE_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


def hostname(host: str) -> str:
    """Name part of a Host header: '127.0.0.1:7860' and '[::1]:7860' without their ports."""
    return host[1 : host.index("]")] if host.startswith("[") and "]" in host else host.partition(":")[0]


async def plain(send, status: int, text: str, extra: list[tuple[bytes, bytes]]) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *extra]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
