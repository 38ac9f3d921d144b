"""Rows of a paged endpoint that answers in JSON. Source name: `rest:https://host/path?query`.

Pages are followed by number, offset, cursor, a Link header or an address in the answer. A token comes from an
environment variable and goes to that host alone.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import httpx
from pydantic import Field

from trainer.config import UserError
from trainer.data.lines import json_name, loader
from trainer.data.sources.http import AGENT, Getter, Page, address_of, origin, shown
from trainer.data.sources.incoming import Environ, Incoming, Item, Options, Part

TOKENS = "TUNESMITH_"  # a recipe of somebody else must not send any other variable away
# Where APIs put the address of the next page: Django REST, JSON:API, OData, Elasticsearch-like.
NEXT = ("next", "links.next", "links.next.href", "_links.next.href", "@odata.nextLink", "paging.next", "meta.next", "next_page_url")  # fmt: skip


class RestOptions(Options):
    """rows: where in the answer the rows stand, as data.items. paging: auto follows a Link header or an address.

    page: page_param counts from first. offset: offset_param grows by the rows given. cursor: the value at `cursor`
    in the answer becomes cursor_param. size_param is sent with size where it is given. auth: bearer, header:NAME or
    query:NAME, with the token in the variable token_env.
    """

    rows: str = ""
    paging: Literal["auto", "none", "page", "offset", "cursor"] = "auto"
    page_param: str = "page"
    first: int = 1
    offset_param: str = "offset"
    cursor: str = "next_cursor"
    cursor_param: str = "cursor"
    size_param: str = ""
    size: int = Field(default=100, ge=1)
    token_env: str = "TUNESMITH_REST_TOKEN"
    auth: str = Field(default="bearer", pattern=r"^(bearer|header:[\w-]+|query:[\w.-]+)$")
    per_second: float = Field(default=5.0, gt=0, le=100)
    seconds: float = Field(default=60.0, gt=0)
    max_pages: int = Field(default=10_000, ge=1)
    max_mb: int = Field(default=64, ge=1)
    private: bool = False
    agent: str = AGENT


def open_rest(target: str, options: RestOptions, environ: Environ) -> Incoming:
    """Open an endpoint without asking it yet. Raises UserError for a bad address or option."""
    url = address_of(target)
    if not options.token_env.startswith(TOKENS):
        raise UserError(f"token_env {options.token_env!r}: give a variable whose name begins with {TOKENS}")
    token = environ.get(options.token_env, "").strip()
    incoming = Incoming(f"rest:{url}", [])
    incoming.parts = [Part("rows", lambda: _rows(url, options, token, incoming))]
    return incoming


def _rows(url: httpx.URL, options: RestOptions, token: str, incoming: Incoming) -> Iterator[Item]:
    getter = Getter(options.per_second, options.seconds, options.max_mb << 20, options.private, options.agent)
    mended: Counter[str] = Counter()
    try:
        for number, (page, answer) in enumerate(_pages(url, options, token, getter, mended), start=1):
            for at, row in enumerate(_rows_in(answer, options.rows, page), start=1):
                if not isinstance(row, dict):
                    raise UserError(
                        f"{shown(page.url)}, page {number}, row {at}: expected an object, found {json_name(row)}; "
                        f"say where the rows are: --set rows=data.items"
                    )
                yield f"page {number}, row {at}", row
            incoming.facts["pages"] = number
    finally:
        incoming.counts.update(mended)
        getter.close()


def _pages(
    url: httpx.URL, options: RestOptions, token: str, getter: Getter, mended: Counter[str]
) -> Iterator[tuple[Page, Any]]:
    headers = {"Accept": "application/json"} | _authorisation(options, token)
    asked: httpx.URL | None = _at(url, options, options.first, 0)
    seen: set[str] = set()
    count = 0
    for number in range(options.max_pages):
        page = getter.get(_with_key(asked, options, token), headers)
        answer = _answer(page, options, token, mended)
        if options.paging == "page" and page.status == 404 and number:
            return
        digest = hashlib.sha256(page.body).hexdigest()
        rows = _rows_in(answer, options.rows, page)
        if rows and digest in seen:
            raise UserError(
                f"{shown(url)}: the same page came twice, so the server does not read what is asked for; "
                f"see its way of paging: --set paging=page|offset|cursor, page_param=…, cursor_param=…"
            )
        seen.add(digest)
        yield page, answer
        count += len(rows)
        asked = _next(url, asked, options, page, answer, rows, number, count)
        if asked is None:
            return
    raise UserError(
        f"{shown(url)}: more than {options.max_pages:,} pages; --set max_pages=N, or --limit ROWS"
    )


def _next(
    url: httpx.URL, asked: httpx.URL, options: RestOptions, page: Page, answer: Any, rows: list[Any], number: int, count: int
) -> httpx.URL | None:  # fmt: skip
    """The address of the next page; None after the last."""
    if options.paging == "none":
        return None
    if options.paging in ("page", "offset"):
        short = options.size_param and len(rows) < options.size
        return None if not rows or short else _at(url, options, options.first + number + 1, count)
    if options.paging == "cursor":
        cursor = _reach(answer, options.cursor)
        return None if cursor in (None, "", False) else _at(url, options, 0, 0, str(cursor))
    link = httpx.Response(200, headers=page.headers).links.get("next", {}).get("url")
    for place in NEXT if link is None else ():
        found = _reach(answer, place)
        if isinstance(found, str) and found:
            link = found
            break
    if not link:
        return None
    following = asked.join(link)
    if origin(following) != origin(url):
        raise UserError(
            f"{shown(url)}: the next page is at {shown(following)}, another host; import it by its own name"
        )
    return following


def _at(url: httpx.URL, options: RestOptions, page: int, offset: int, cursor: str = "") -> httpx.URL:
    """The address of one page."""
    if options.size_param:
        url = url.copy_set_param(options.size_param, options.size)
    if options.paging == "page":
        url = url.copy_set_param(options.page_param, page)
    if options.paging == "offset":
        url = url.copy_set_param(options.offset_param, offset)
    return url.copy_set_param(options.cursor_param, cursor) if cursor else url


def _authorisation(options: RestOptions, token: str) -> dict[str, str]:
    kind, _, name = options.auth.partition(":")
    if not token or kind == "query":
        return {}
    return {name: token} if kind == "header" else {"Authorization": f"Bearer {token}"}


def _with_key(url: httpx.URL, options: RestOptions, token: str) -> httpx.URL:
    kind, _, name = options.auth.partition(":")
    return url.copy_set_param(name, token) if token and kind == "query" else url


def _answer(page: Page, options: RestOptions, token: str, mended: Counter[str]) -> Any:
    where = shown(page.url)
    if page.status in (401, 403):
        state = "is set, but was refused" if token else "is not set"
        raise UserError(
            f"{where}: status {page.status}: {options.token_env} {state}; see also --set auth=header:NAME"
        )
    if page.status == 404 and options.paging == "page":
        return []
    if page.status >= 400:
        raise UserError(f"{where}: status {page.status}; check the address")
    try:
        return loader(mended)(page.body.decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        told = str(error).splitlines()[0][:120]
        raise UserError(f"{where}: the answer is no JSON ({told}); check the address") from None


def _rows_in(answer: Any, place: str, page: Page) -> list[Any]:
    """The list of rows: at `place`, or the answer itself, or its only list."""
    if place:
        rows = _reach(answer, place)
        if rows is None:
            rows = []  # an endpoint may leave the list out of an empty page
    elif isinstance(answer, dict):
        lists = {name: value for name, value in answer.items() if isinstance(value, list)}
        if len(lists) != 1:
            names = ", ".join(list(lists or answer)[:8])
            raise UserError(f"{shown(page.url)}: where are the rows? --set rows=NAME, one of: {names}")
        rows = next(iter(lists.values()))
    else:
        rows = answer
    if not isinstance(rows, list):
        raise UserError(
            f"{shown(page.url)}: expected a list of rows, found {json_name(rows)}; --set rows=data.items"
        )
    return rows


def _reach(value: Any, place: str) -> Any:
    if isinstance(value, dict) and place in value:
        return value[place]
    for part in place.split("."):
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value
