"""The page: one Gradio app per language inside a FastAPI parent that guards them. `tunesmith ui` serves it."""

from __future__ import annotations

import base64
import hmac
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from kb.errors import UserError
from ui import i18n
from ui.context import Context
from ui.home import Home, home

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
PASSWORD = "TUNESMITH_PASSWORD"
TABS = ("ask", "plan", "runs", "test")
# Gradio needs inline and evaluated script; images and requests may go nowhere but here.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; frame-ancestors 'none'"
)
HEAD = """<script>
document.addEventListener('click', (event) => {
  const cite = event.target.closest('a.cite');
  if (cite) {
    const passage = document.getElementById(cite.getAttribute('href').slice(1));
    if (passage) { event.preventDefault(); passage.open = true; passage.scrollIntoView({behavior: 'smooth', block: 'nearest'}); }
  }
  const language = event.target.closest('a[data-lang]');
  if (language) { event.preventDefault(); document.cookie = 'lang=' + language.dataset.lang + ';path=/;samesite=strict;max-age=31536000';
    location.href = '/' + language.dataset.lang + '/' + location.search; }
});
</script>"""


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


def blocks(context: Context, lang: str):
    """The page in one language."""
    import gradio as gr

    from ui.tabs import ask, plan, runs, test

    t = i18n.translator(lang)
    with gr.Blocks(title=t("title"), analytics_enabled=False) as demo:
        gr.HTML(masthead(lang, t))
        with gr.Tabs(selected="ask") as tabs:
            pages = {}
            for name, module in zip(TABS, (ask, plan, runs, test), strict=True):
                with gr.Tab(t("tab." + name), id=name) as tab:
                    pages[name] = module.build(context, lang, t)
                remember = f"() => {{ const url = new URL(location); url.searchParams.set('tab', '{name}'); history.replaceState(null, '', url); }}"
                tab.select(None, js=remember)
        ask.connect(context, lang, t, pages["ask"], pages["plan"], tabs)
        plan.connect(context, lang, t, pages["plan"], pages["runs"], tabs)
        runs.connect(context, lang, t, pages["runs"], pages["test"], tabs)
        test.connect(context, lang, t, pages["test"])

        def restore(request: gr.Request):
            wanted = request.query_params.get("tab", "ask")
            return gr.Tabs(selected=wanted if wanted in TABS else "ask")

        demo.load(restore, None, tabs, show_progress="hidden")
    return demo


def masthead(lang: str, t: i18n.Translate) -> str:
    names = {"zh-TW": "繁體中文", "en": "English"}
    links = "".join(
        f'<a href="/{code}/" data-lang="{code}"{" aria-current=page" if code == lang else ""}>{names[code]}</a>'
        for code in i18n.LANGS
    )
    return f'<div class="masthead"><h1>{t("title")}</h1><span>{t("tagline")}</span><nav>{links}</nav></div>'


def build(where: Home, hosts: set[str] = LOOPBACK, password: str | None = None):
    """The FastAPI app with both languages mounted, and the thread that keeps the job queue moving."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    if os.environ.get("GRADIO_VIBE_MODE"):
        raise UserError("GRADIO_VIBE_MODE is set: it lets any visitor run code; unset it and start again")
    import gradio as gr
    from fastapi import FastAPI, Request
    from fastapi.responses import RedirectResponse

    context = Context(where)
    app = FastAPI(title="Tunesmith", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/")
    def front(request: Request) -> RedirectResponse:
        lang = request.cookies.get("lang")
        lang = lang if lang in i18n.LANGS else i18n.choose(request.headers.get("accept-language"))
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"/{lang}/{query}", status_code=307)

    font = gr.themes.LocalFont("Source Sans Pro", weights=(400, 700))
    theme = gr.themes.Base(
        primary_hue="teal", neutral_hue="slate", font=[font, "sans-serif"], font_mono=["Menlo", "monospace"]
    )
    for lang in i18n.LANGS:
        gr.mount_gradio_app(
            app, blocks(context, lang), f"/{lang}", theme=theme, css_paths=Path(__file__).parent / "theme.css", head=HEAD,
            run_history=False, footer_links=[], ssr_mode=False, max_file_size="2gb", show_error=False,
        )  # fmt: skip
    app.add_middleware(Guard, hosts=hosts, password=password)
    app.state.context = context
    context.keep_queue_moving()
    return app


def serve(host: str, port: int, progress: Callable[[int, int, str], None]) -> None:
    """Bring the index up to date, then serve until Ctrl-C. Raises UserError when the port is taken."""
    password = os.environ.get(PASSWORD)
    if host not in LOOPBACK and not password:
        raise UserError(
            f"--host {host} listens beyond this machine: set {PASSWORD} first, or leave --host away"
        )
    claim_port(host, port)
    from ingest.sync import build_kb

    where = home()
    importing = threading.Thread(
        target=__import__, args=("gradio",)
    )  # four seconds that the index need not wait for
    importing.start()
    build_kb(where.index, progress)
    importing.join()
    import uvicorn

    app = build(where, LOOPBACK | {host}, password)
    print(f"Tunesmith: http://{host}:{port}  (Ctrl-C stops it; runs go on)", flush=True)
    uvicorn.run(app, host=host, port=port, log_level="warning")


def claim_port(host: str, port: int) -> None:
    """Tell at once that the port is taken, before the seconds of start-up."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(
                f"port {port} on {host}: {error.strerror}; stop what runs there, or choose another: tunesmith ui --port {port + 1}"
            ) from None
