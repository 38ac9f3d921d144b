"""Web pages as texts for continued pre-training. Source name: `web:https://…`, several apart by spaces, or `web:FILE`.

robots.txt is honoured, a host is asked once a second, only public addresses are read, and what is around a page's own
text (menus, footers) is left out by trafilatura. A page that cannot be had is named and the others go on.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.robotparser import RobotFileParser

import httpx
from pydantic import Field

from trainer.config import UserError
from trainer.data.sources.http import AGENT, Getter, Page, address_of, shown
from trainer.data.sources.incoming import Environ, Incoming, Item, Options, Part, note

LONGEST_DELAY = 60.0  # seconds that a robots.txt may ask for between two pages


class WebOptions(Options):
    """per_second: pages a second from one host. private: also pages of the own network."""

    per_second: float = Field(default=1.0, gt=0, le=100)
    seconds: float = Field(default=30.0, gt=0)
    max_mb: int = Field(default=10, ge=1)
    private: bool = False
    agent: str = AGENT


def open_web(target: str, options: WebOptions, environ: Environ) -> Incoming:
    """Open a list of pages without asking for any yet. Raises UserError for a bad address, with its line."""
    text = target.strip()
    if text.startswith(("http://", "https://")):
        urls = [address_of(one) for one in text.split()]
    else:
        urls = _listed(Path(text).expanduser())
        text = str(Path(text).expanduser().resolve())
    urls = list(dict.fromkeys(urls))
    incoming = Incoming(f"web:{text}", [], total=len(urls))
    incoming.parts = [Part("pages", lambda: _pages(urls, options, incoming))]
    return incoming


def _listed(path: Path) -> list[httpx.URL]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"web:{path}: cannot be read: {error}; give https://…, or a file with an address a line"
        ) from None
    urls = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                urls.append(address_of(line))
            except UserError as error:
                raise UserError(f"{path}:{number}: {error}") from None
    if not urls:
        raise UserError(f"{path}:1: no address in it; give one a line")
    return urls


def _pages(urls: list[httpx.URL], options: WebOptions, incoming: Incoming) -> Iterator[Item]:
    robots = Robots(options)
    getter = Getter(
        options.per_second,
        options.seconds,
        options.max_mb << 20,
        options.private,
        options.agent,
        robots.allow,
    )
    robots.getter = getter
    hashes = incoming.facts.setdefault("pages", {})
    failed = []
    try:
        for url in urls:
            try:
                page = getter.get(url)
                record = _record(page)
            except UserError as error:
                failed.append(str(error))
                incoming.counts["page_left_out"] += 1
                incoming.notes.append(note("failed", error=str(error)))
                continue
            hashes[str(url)] = hashlib.sha256(page.body).hexdigest()
            yield shown(url), record
    finally:
        getter.close()
    if not hashes:
        raise UserError(f"no page could be read: {failed[0]}")


class Robots:
    """What each host's robots.txt allows, read once a host (RFC 9309)."""

    def __init__(self, options: WebOptions) -> None:
        self._options = options
        self._rules: dict[str, RobotFileParser | UserError] = {}
        # Its own, so that asking for robots.txt does not ask for leave in turn.
        self._own = Getter(options.per_second, options.seconds, 1 << 20, options.private, options.agent)
        self.getter = self._own

    def allow(self, url: httpx.URL) -> None:
        """Raises UserError where the page may not be read."""
        rules = self._rules.get(_host(url))
        if rules is None:
            try:
                rules = self._read(url)
            except UserError as error:  # a host that does not answer is not asked again for each page
                rules = error
            self._rules[_host(url)] = rules
        if isinstance(rules, UserError):
            raise rules
        name = self._options.agent.split("/")[0]
        if not rules.can_fetch(name, str(url)):
            raise UserError(f"{shown(url)}: robots.txt of {url.host} does not allow it")
        delay = rules.crawl_delay(name)
        if delay:
            self.getter.slow_down(url, min(float(delay), LONGEST_DELAY))

    def _read(self, url: httpx.URL) -> RobotFileParser:
        rules = RobotFileParser()
        page = self._own.get(url.copy_with(raw_path=b"/robots.txt", fragment=None))
        if page.status >= 500:  # "unreachable": nothing may be read (section 2.3.1.4)
            rules.disallow_all = True
        elif page.status >= 400:  # "unavailable": everything may (section 2.3.1.3)
            rules.allow_all = True
        else:
            rules.parse(page.body.decode("utf-8", "replace").splitlines())
        return rules


def _host(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _record(page: Page) -> dict[str, Any]:
    """{"text", "title", "url", "date"} of a page. Raises UserError where there is no text in it."""
    if page.status != 200:
        raise UserError(f"{shown(page.url)}: status {page.status}")
    kind = page.headers.get("content-type", "text/html").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        record = _of_html(page)
    elif kind == "application/pdf":
        record = {"text": _of_pdf(page)}
    elif kind in ("text/plain", "text/markdown"):
        record = {"text": page.body.decode("utf-8-sig", "replace")}
    else:
        raise UserError(f"{shown(page.url)}: {kind[:60]} is no text; give pages of HTML, PDF or text")
    if not record["text"].strip():
        raise UserError(f"{shown(page.url)}: no text in it; it may be made by a script in the browser")
    return {**record, "url": str(page.url)}


def _of_html(page: Page) -> dict[str, Any]:
    import trafilatura

    text = trafilatura.extract(
        page.body,
        url=str(page.url),
        output_format="markdown",
        include_formatting=True,
        include_comments=False,
    )
    told = trafilatura.extract_metadata(page.body, default_url=str(page.url)) if text else None
    extra = {"title": told.title, "date": told.date} if told else {}
    return {"text": text or "", **{name: value for name, value in extra.items() if value}}


def _of_pdf(page: Page) -> str:
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(io.BytesIO(page.body))
        return "\n\n".join(one.get_textpage().get_text_range().replace("\r\n", "\n") for one in document)
    except pypdfium2.PdfiumError as error:
        raise UserError(f"{shown(page.url)}: not a readable PDF: {error}") from None
