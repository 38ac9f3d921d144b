"""Endpoints and pages against a real server on this machine: paging, tokens, retries, limits, robots.txt, the guard."""

import gzip
import json
import socket
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from replay import listening

from trainer.config import UserError
from trainer.data.imports import bring_in, repeat
from trainer.data.sources.http import Getter, address_of, is_public

ROWS = [{"text": f"review number {n}", "label": "ab"[n % 2]} for n in range(25)]
TOKEN = "s3cr3t-t0ken"
TEXT = "A room of one's own, with a window to the garden and a desk of oak. " * 6
PAGE = f"""<html><head><title>Rooms</title></head><body><nav><a href="/">Home</a> Login</nav>
<article><h1>Rooms</h1><p>{TEXT}</p><p>{TEXT.replace("oak", "beech")}</p></article><footer>Imprint</footer></body></html>"""


@pytest.fixture
def server():
    """A server whose answers are functions by path: (query, headers, server) → (status, headers, body)."""
    state = SimpleNamespace(paths={}, asked=[], counts=Counter(), headers=[])

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            split = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(split.query).items()}
            state.asked.append(self.path)
            state.headers.append(dict(self.headers))
            state.counts[split.path] += 1
            make = state.paths.get(split.path, lambda *_: (404, {}, "none"))
            status, headers, body = make(query, self.headers, state)
            body = (
                body
                if isinstance(body, bytes)
                else body.encode()
                if isinstance(body, str)
                else json.dumps(body).encode()
            )
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with listening(Handler) as state.url:
        yield state


def rest(server, tmp_path, path="/rows", environ=None, **options):
    options = {"private": "true", "per_second": "100", **options}
    return bring_in(f"rest:{server.url}{path}", tmp_path / "r.jsonl", options, {}, environ or {})


def by_page(query, headers, state):
    page, size = int(query.get("page", 1)), 10
    return 200, {}, {"data": {"items": ROWS[(page - 1) * size : page * size]}, "total": len(ROWS)}


def by_offset(query, headers, state):
    start, size = int(query.get("offset", 0)), int(query.get("limit", 7))
    return 200, {}, ROWS[start : start + size]


def by_cursor(query, headers, state):
    at = int(query.get("after", 0))
    more = at + 10 if at + 10 < len(ROWS) else None
    return 200, {}, {"rows": ROWS[at : at + 10], "meta": {"cursor": more}}


def by_link(query, headers, state):
    at = int(query.get("at", 0))
    link = (
        {"Link": f'</rows?at={at + 10}>; rel="next", </rows?at=0>; rel="first"'}
        if at + 10 < len(ROWS)
        else {}
    )
    return 200, link, ROWS[at : at + 10]


def by_address(query, headers, state):
    at = int(query.get("at", 0))
    following = f"{state.url}/rows?at={at + 10}" if at + 10 < len(ROWS) else None
    return 200, {}, {"results": ROWS[at : at + 10], "next": following, "count": len(ROWS)}


PAGING = {
    "page": (by_page, {"paging": "page", "rows": "data.items"}, 4),
    "page of known size": (
        by_page,
        {"paging": "page", "rows": "data.items", "size_param": "n", "size": "10"},
        3,
    ),
    "offset": (by_offset, {"paging": "offset", "size_param": "limit", "size": "10"}, 3),
    "cursor": (by_cursor, {"paging": "cursor", "cursor": "meta.cursor", "cursor_param": "after"}, 3),
    "link": (by_link, {}, 3),
    "address": (by_address, {}, 3),
}


@pytest.mark.parametrize("name", PAGING)
def test_every_way_of_paging_gives_all_rows_once(server, tmp_path, name):
    answer, options, pages = PAGING[name]
    server.paths["/rows"] = answer
    report = rest(server, tmp_path, **options)
    assert [json.loads(line) for line in (tmp_path / "r.jsonl").open()] == ROWS
    assert (len(server.asked), report.made.counts["read"]) == (pages, 25)
    assert [again.changed for again in repeat(tmp_path / "data_source.yaml", {})] == ["same"]


@pytest.mark.parametrize(
    ("auth", "sent"), [("bearer", "authorization"), ("header:X-Api-Key", "x-api-key"), ("query:key", "")]
)
def test_a_token_is_sent_and_never_stored_or_shown(server, tmp_path, auth, sent):
    def guarded(query, headers, state):
        given = f"{headers.get('Authorization', '')} {headers.get('X-Api-Key', '')} {query.get('key', '')}"
        return by_link(query, headers, state) if TOKEN in given else (401, {}, {"error": given})

    server.paths["/rows"] = guarded
    environ = {"TUNESMITH_REST_TOKEN": TOKEN}
    if sent:
        rest(server, tmp_path, environ=environ, auth=auth)
        assert TOKEN not in "".join(path.read_text() for path in tmp_path.iterdir())
    else:
        server.paths["/rows"] = lambda query, *_: (
            200,
            {},
            ROWS if query.get("key") == TOKEN else {"error": "no"},
        )
        rest(server, tmp_path, environ=environ, auth=auth)
        assert TOKEN not in (tmp_path / "data_source.yaml").read_text()
        server.paths["/rows"] = lambda *_: (500, {}, "broken")
    server.paths["/rows"] = lambda *_: (403, {}, "no")
    for variables, said in ((environ, "was refused"), ({}, "is not set")):
        with pytest.raises(UserError, match=said) as told:
            rest(server, tmp_path, environ=variables, auth=auth)
        assert TOKEN not in str(told.value)


def test_a_token_goes_to_its_own_host_alone(server, tmp_path):
    other = server.url.replace("127.0.0.1", "localhost")
    server.paths["/rows"] = lambda *_: (302, {"Location": f"{other}/there"}, "")
    server.paths["/there"] = lambda *_: (200, {}, ROWS)
    rest(server, tmp_path, environ={"TUNESMITH_REST_TOKEN": TOKEN}, auth="header:X-Api-Key")
    assert ["X-Api-Key" in headers for headers in server.headers] == [True, False]
    server.paths["/rows"] = lambda *_: (200, {}, {"data": ROWS, "next": f"{other}/there"})
    with pytest.raises(UserError, match="another host"):
        rest(server, tmp_path)


def test_only_our_own_variables_can_be_sent(server, tmp_path):
    with pytest.raises(UserError, match="begins with TUNESMITH_"):
        rest(server, tmp_path, environ={"AWS_SECRET_ACCESS_KEY": "x"}, token_env="AWS_SECRET_ACCESS_KEY")
    assert server.asked == []


def test_busy_servers_are_asked_again_with_patience(server, monkeypatch):
    waits = []
    answers = [(429, {"Retry-After": "7"}, ""), (503, {}, ""), (200, {}, "done")]
    server.paths["/x"] = lambda q, h, state: answers[state.counts["/x"] - 1]
    getter = Getter(per_second=100, private=True, sleep=waits.append)
    assert getter.get(httpx.URL(f"{server.url}/x")).body == b"done"
    assert waits[0] == 7 and 1 <= max(waits[1:]) <= 2
    server.paths["/y"] = lambda *_: (503, {}, "")
    assert getter.get(httpx.URL(f"{server.url}/y")).status == 503 and server.counts["/y"] == 4


def test_a_host_is_asked_no_faster_than_said(server):
    server.paths["/x"] = lambda *_: (200, {}, "x")
    getter, start = Getter(per_second=20, private=True), time.monotonic()
    for _ in range(4):
        getter.get(httpx.URL(f"{server.url}/x"))
    assert time.monotonic() - start >= 3 / 20


@pytest.mark.parametrize(
    ("body", "options", "said"),
    [
        ("<html>", {}, "no JSON"),
        ({"a": [], "b": []}, {}, "where are the rows"),
        ([1, 2], {}, "expected an object, found a number"),
        ({"data": "x"}, {"rows": "data"}, "expected a list of rows"),
        ([], {}, "no row"),
        ("[" * 100_000, {}, "no JSON"),
        (gzip.compress(b" " * (3 << 20)), {"max_mb": "1"}, "more than 1 MB"),
    ],
    ids=range(7),
)
def test_bad_answers_are_one_line_and_leave_nothing(server, tmp_path, body, options, said):
    head = {"Content-Encoding": "gzip"} if isinstance(body, bytes) else {}
    server.paths["/rows"] = lambda *_: (200, head, body)
    with pytest.raises(UserError, match=said):
        rest(server, tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_gives_the_same_page_for_ever_is_noticed(server, tmp_path):
    server.paths["/rows"] = lambda *_: (200, {}, ROWS)
    with pytest.raises(UserError, match="same page came twice"):
        rest(server, tmp_path, paging="page")
    server.paths["/rows"] = lambda q, h, state: (200, {}, [{"text": str(state.counts["/rows"]), "label": 1}])
    with pytest.raises(UserError, match="more than 5 pages"):
        rest(server, tmp_path, paging="page", max_pages="5")


def test_a_slow_answer_ends(server):
    def slow(*_):
        time.sleep(0.5)
        return 200, {}, "x"

    server.paths["/x"] = slow
    with pytest.raises(UserError, match="no answer"):
        Getter(per_second=100, seconds=0.1, private=True, sleep=lambda s: None).get(
            httpx.URL(f"{server.url}/x")
        )


# pages


def pages(server, tmp_path, *paths, **options):
    (tmp_path / "list.txt").write_text("# pages\n" + "\n".join(server.url + path for path in paths))
    options = {"private": "true", "per_second": "100", **options}
    return bring_in(f"web:{tmp_path}/list.txt", tmp_path / "out" / "r.jsonl", options, {}, {})


def html(*_):
    return 200, {"Content-Type": "text/html; charset=utf-8"}, PAGE


def test_pages_become_texts_without_what_is_around_them(server, tmp_path):
    server.paths |= {"/a": html, "/b.txt": lambda *_: (200, {"Content-Type": "text/plain"}, "plain words")}
    report = pages(server, tmp_path, "/a", "/b.txt", "/a")
    rows = [json.loads(line) for line in (tmp_path / "out" / "r.jsonl").open()]
    assert [row["url"] for row in rows] == [f"{server.url}/a", f"{server.url}/b.txt"]
    assert "window to the garden" in rows[0]["text"] and rows[0]["title"] == "Rooms"
    assert "Login" not in rows[0]["text"] and "Imprint" not in rows[0]["text"]
    assert report.made.formats == {"r.jsonl": "text"} and len(report.made.facts["pages"]) == 2
    assert server.asked[0] == "/robots.txt" and server.counts["/robots.txt"] == 1
    assert all("Tunesmith" in headers["User-Agent"] for headers in server.headers)


def test_robots_txt_is_honoured_and_what_fails_is_named(server, tmp_path):
    rules = "User-agent: *\nDisallow: /closed\nUser-agent: Tunesmith\nDisallow: /ours\nCrawl-delay: 0.1\n"
    server.paths |= {
        "/robots.txt": lambda *_: (200, {}, rules), "/a": html, "/ours": html, "/closed": html,
        "/to": lambda *_: (302, {"Location": "/ours"}, ""), "/image": lambda *_: (200, {"Content-Type": "image/png"}, "x"),
        "/empty": lambda *_: (200, {"Content-Type": "text/html"}, "<html><script>1</script></html>"),
    }  # fmt: skip
    report = pages(server, tmp_path, "/a", "/ours", "/closed", "/to", "/image", "/empty", "/gone")
    told = [note["en"] for note in report.notes]
    assert [note.split(": ", 1)[1].removeprefix(server.url) for note in told] == [
        "/ours: robots.txt of 127.0.0.1 does not allow it", "/ours: robots.txt of 127.0.0.1 does not allow it",
        "/image: image/png is no text; give pages of HTML, PDF or text",
        "/empty: no text in it; it may be made by a script in the browser", "/gone: status 404",
    ]  # fmt: skip
    assert report.made.counts["read"] == 2 and "/ours" not in server.asked


def test_nothing_is_read_where_robots_txt_cannot_be_had(server, tmp_path, monkeypatch):
    monkeypatch.setattr("trainer.data.sources.http._pause", lambda attempt, page: 0)
    server.paths |= {"/robots.txt": lambda *_: (500, {}, ""), "/a": html}
    with pytest.raises(UserError, match=r"no page could be read: .*robots\.txt"):
        pages(server, tmp_path, "/a")
    assert "/a" not in server.asked


def test_pages_are_saved_as_files_that_the_library_reads(server, tmp_path):
    from ingest.readers import read_file
    from trainer.data.sources.saved import save_pages

    server.paths |= {"/guide/a": html, "/gone": lambda *_: (404, {}, "")}
    options = {"private": "true", "per_second": "100"}
    files, notes = save_pages(f"web:{server.url}/guide/a {server.url}/gone", tmp_path, options, {})
    assert len(files) == len(notes) == 1 and files[0].name.endswith("-guide-a.md")
    document = read_file(files[0])
    assert document.title == "Rooms" and "window to the garden" in document.text
    with pytest.raises(UserError, match=r"only pages"):
        save_pages("in.csv", tmp_path, {}, {})


# the guard


@pytest.mark.parametrize(
    "name",
    ["127.0.0.1", "localhost", "[::1]", "0x7f000001", "2130706433", "169.254.169.254", "10.0.0.1", "[::ffff:127.0.0.1]", "[fd00::1]", "0.0.0.0", "[64:ff9b::7f00:1]"],
)  # fmt: skip
def test_addresses_of_the_own_network_are_refused(name):
    with pytest.raises(UserError, match="no public address"):
        Getter(sleep=lambda s: None).get(httpx.URL(f"http://{name}:9/x"))


@pytest.mark.parametrize(
    "address", ["100.64.0.1", "224.0.0.1", "2002:7f00:1::", "192.168.1.1", "::", "fe80::1%eth0"]
)
def test_what_is_not_public(address):
    assert not is_public(address)
    assert is_public("93.184.215.14") and is_public("2606:2800:21f:cb07:6820:80da:af6b:8b2c")


def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch):
    """A name that answers first with a public and then with a private address (DNS rebinding) gains nothing."""
    answers = ["93.184.215.14", "127.0.0.1"]
    real = socket.getaddrinfo
    asked, connected = [], []

    def resolve(name, port, *args, **kwargs):
        if name != "rebinding.example":
            return real(name, port, *args, **kwargs)
        asked.append(name)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers[min(len(asked), 2) - 1], port))]

    def connect(address, *args, **kwargs):
        connected.append(address[0])
        raise OSError("not in a test")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(UserError):
        Getter(sleep=lambda s: None).get(httpx.URL("http://rebinding.example/x"))
    assert set(connected) == {"93.184.215.14"}


def test_a_redirect_into_the_own_network_is_refused(server, monkeypatch):
    server.paths["/x"] = lambda *_: (302, {"Location": "http://169.254.169.254/latest/meta-data"}, "")
    from trainer.data.sources import http

    real = http.is_public
    monkeypatch.setattr(http, "is_public", lambda address: address == "127.0.0.1" or real(address))
    with pytest.raises(UserError, match=r"169\.254\.169\.254 is no public address"):
        Getter(sleep=lambda s: None).get(httpx.URL(f"{server.url}/x"))


@pytest.mark.parametrize(
    "text", ["file:///etc/passwd", "ftp://x.org/a", "https://me:pw@x.org/", "https://x.org/?api_key=1", "javascript:1", "https://", "http://a b"]
)  # fmt: skip
def test_other_schemes_and_secrets_in_an_address_are_refused(text):
    with pytest.raises(UserError) as told:
        address_of(text)
    assert "pw" not in str(told.value)
