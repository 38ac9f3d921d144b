"""Only this machine's page talks to the app."""

import base64

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from kb.errors import UserError
from ui.app import claim_port, serve
from ui.guard import LOOPBACK, Guard, hostname


def client(password=None, hosts=LOOPBACK):
    inner = Starlette(routes=[Route("/", lambda request: PlainTextResponse("page"), methods=["GET", "POST"])])
    return TestClient(Guard(inner, hosts, password), base_url="http://127.0.0.1:7860")


def test_the_page_is_served_to_loopback_with_safe_headers():
    answer = client().get("/")
    assert answer.status_code == 200 and answer.text == "page"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", ""])
def test_a_foreign_host_is_refused(host):
    assert client().get("/", headers={"host": host}).status_code == 400


def test_a_foreign_origin_is_refused_and_our_own_is_not():
    assert client().post("/", headers={"origin": "http://evil.example"}).status_code == 403
    assert client().post("/", headers={"origin": "null"}).status_code == 403
    assert client().post("/", headers={"origin": "http://127.0.0.1:7860"}).status_code == 200


def test_a_password_is_asked_for_and_checked():
    page = client(password="open sesame 密碼")
    assert page.get("/").status_code == 401
    for given, status in (("x:wrong", 401), ("x:open sesame 密碼", 200)):
        token = base64.b64encode(given.encode()).decode()
        assert page.get("/", headers={"authorization": f"Basic {token}"}).status_code == status
    assert page.get("/", headers={"authorization": "Basic %%%"}).status_code == 401


def test_beyond_loopback_needs_a_password(monkeypatch, tmp_path):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path))
    monkeypatch.delenv("TUNESMITH_PASSWORD", raising=False)
    with pytest.raises(UserError, match="TUNESMITH_PASSWORD"):
        serve("0.0.0.0", 7860, lambda *_: None)


def test_a_taken_port_is_told_with_the_next_step():
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(UserError, match=f"{port}.*--port {port + 1}"):
            claim_port("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "name"),
    [("127.0.0.1:7860", "127.0.0.1"), ("localhost", "localhost"), ("[::1]:7860", "::1"), ("[", "[")],
)
def test_host_names_are_read_without_their_port(host, name):
    assert hostname(host) == name
