"""GET for sources: addresses checked, sizes and times bounded, tried again, no faster than asked. For rest.py, web.py.

A name is resolved once and the connection goes to the very address that was checked, so that neither a redirect nor
a name that changes its answer (DNS rebinding) leads into the own network.
"""

from __future__ import annotations

import ipaddress
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from trainer.config import UserError

AGENT = "Tunesmith/0.1 (import of training data)"
RETRIED = {429, 500, 502, 503, 504}
TRIES = 4
LONGEST_WAIT = 60.0  # seconds that a server may ask to wait
REDIRECTS = 5


@dataclass(frozen=True)
class Page:
    """What came back. `url` is the last one after redirects, `body` the content without its compression."""

    url: httpx.URL
    status: int
    headers: httpx.Headers
    body: bytes


@dataclass
class Getter:
    """`per_second` requests a host; `seconds` and `largest` (bytes) bound one answer; `private` opens own networks.

    `allowed` is asked before every address, those of redirects too, and raises UserError.
    """

    per_second: float = 1.0
    seconds: float = 30.0
    largest: int = 32 << 20
    private: bool = False
    agent: str = AGENT
    allowed: Callable[[httpx.URL], None] = lambda url: None
    sleep: Callable[[float], None] = time.sleep
    _next: dict[str, float] = field(default_factory=dict)  # host → when it may be asked again
    _apart: dict[str, float] = field(default_factory=dict)
    _client: httpx.Client | None = None

    def get(self, url: httpx.URL, headers: dict[str, str] | None = None) -> Page:
        """Content of an address, redirects followed. `headers` go to its own origin alone. Raises UserError."""
        first = origin(url)
        for _ in range(REDIRECTS + 1):
            self.allowed(url)
            page = self._tried(url, headers or {} if origin(url) == first else {})
            if page.status not in (301, 302, 303, 307, 308) or "location" not in page.headers:
                return page
            url = url.join(page.headers["location"])
        raise UserError(f"{shown(url)}: more than {REDIRECTS} redirects; give the last address")

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _tried(self, url: httpx.URL, headers: dict[str, str]) -> Page:
        for attempt in range(1, TRIES + 1):
            self._wait_for_turn(url)
            try:
                page = self._once(url, headers)
            except httpx.HTTPError as error:
                if attempt == TRIES or isinstance(error, httpx.UnsupportedProtocol):
                    told = str(error) or type(error).__name__
                    raise UserError(
                        f"{shown(url)}: no answer ({told}); check the address and try again"
                    ) from None
                page = None
            if page is not None and (page.status not in RETRIED or attempt == TRIES):
                return page
            self.sleep(_pause(attempt, page))
        raise AssertionError("the last attempt returns or raises")

    def _once(self, url: httpx.URL, headers: dict[str, str]) -> Page:
        if self._client is None:
            # Without the guard the ordinary client is used, which also knows the proxies of the environment.
            transport = None if self.private else Guarded()
            self._client = httpx.Client(transport=transport, timeout=min(self.seconds, 20.0))
        end = time.monotonic() + self.seconds
        sent = {"User-Agent": self.agent, "Accept-Encoding": "gzip, deflate", **headers}
        body = bytearray()
        with self._client.stream("GET", url, headers=sent) as answer:
            for data in answer.iter_bytes(1 << 16):
                body += data
                if len(body) > self.largest:
                    raise UserError(
                        f"{shown(url)}: more than {self.largest >> 20} MB in one answer; ask for less"
                    )
                if time.monotonic() > end:
                    raise UserError(f"{shown(url)}: not finished after {self.seconds:.0f} s")
            return Page(url, answer.status_code, answer.headers, bytes(body))

    def slow_down(self, url: httpx.URL, seconds: float) -> None:
        """Let at least `seconds` pass between requests to a host, as its robots.txt may ask."""
        self._apart[url.host] = seconds

    def _wait_for_turn(self, url: httpx.URL) -> None:
        now = time.monotonic()
        due = self._next.get(url.host, now)
        if due > now:
            self.sleep(due - now)
        self._next[url.host] = max(now, due) + max(1 / self.per_second, self._apart.get(url.host, 0.0))


def _pause(attempt: int, page: Page | None) -> float:
    """Seconds until the next attempt: what the server asks for, or 1, 2, 4 with some chance in it."""
    asked = page.headers.get("retry-after", "") if page is not None else ""
    if asked.isdecimal():
        return min(float(asked), LONGEST_WAIT)
    return 2 ** (attempt - 1) * random.uniform(0.5, 1.0)


class Guarded(httpx.BaseTransport):
    """Connections to public addresses alone; TLS is checked against the name, the bytes go to the address."""

    def __init__(self) -> None:
        self._hosts: dict[str, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        name = request.url.host
        addresses = public_addresses(name, request.url.port or (443 if request.url.scheme == "https" else 80))
        request.headers["Host"] = request.url.netloc.decode("ascii")
        request.extensions = {**request.extensions, "sni_hostname": request.url.raw_host.decode("ascii")}
        # One pool a name: two names on one address must not share a connection made for the other.
        pool = self._hosts.setdefault(name, httpx.HTTPTransport())
        for address in addresses[:-1]:
            try:
                request.url = request.url.copy_with(host=address)
                return pool.handle_request(request)
            except httpx.ConnectError:  # a machine without IPv6, for one
                continue
        request.url = request.url.copy_with(host=addresses[-1])
        return pool.handle_request(request)

    def close(self) -> None:
        for transport in self._hosts.values():
            transport.close()


def public_addresses(name: str, port: int) -> list[str]:
    """The addresses to connect to. Raises UserError where any that the name has is not public."""
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(f"the name {name} is not known: {error}") from None
    addresses = [item[4][0] for item in found]
    closed = [address for address in addresses if not is_public(address)]
    if closed or not addresses:
        raise UserError(
            f"{name}: {closed[0] if closed else 'no address'} is no public address; pages and endpoints of the own "
            f"network are read only with --set private=true"
        )
    return list(dict.fromkeys(addresses))[:4]


def is_public(address: str) -> bool:
    """Whether an address lies in the open internet, also one that is wrapped in another (IPv4 in IPv6)."""
    ip: Any = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6:
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.ip_address(int(ip) & 0xFFFFFFFF)
        if inner is not None and not is_public(str(inner)):
            return False
    return ip.is_global and not ip.is_multicast


def address_of(text: str) -> httpx.URL:
    """An address as a URL. Raises UserError for another scheme, a password or a key in it."""
    try:
        url = httpx.URL(text.strip() if len(text.split()) == 1 else "")
    except httpx.InvalidURL as error:
        raise UserError(f"{text[:80]!r}: not an address: {error}; give https://…") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise UserError(f"{text[:80]!r}: not an address that can be read; give https://…")
    if url.userinfo:
        raise UserError(
            f"{shown(url)}: a password in an address is stored with it; give it by --set token_env=NAME"
        )
    keys = [name for name in url.params if any(word in name.lower() for word in SECRET_WORDS)]
    if keys:
        raise UserError(
            f"{shown(url)}: {keys[0]}=… in an address is stored with it; set TUNESMITH_REST_TOKEN to it and give "
            f"--set auth=query:{keys[0]}"
        )
    return url


SECRET_WORDS = (
    "token",
    "secret",
    "password",
    "passwd",
    "api_key",
    "apikey",
    "access_key",
    "signature",
    "auth",
)


def origin(url: httpx.URL) -> tuple[str, str, int | None]:
    """What a secret may be sent to: scheme, host and port."""
    return url.scheme, url.host, url.port


def shown(url: httpx.URL) -> str:
    """An address for a message: without user, password and query."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))
