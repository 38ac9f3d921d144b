"""`tunesmith ui`: claim the port, bring the index up to date, serve the page."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable

from kb.errors import UserError
from ui.guard import LOOPBACK
from ui.home import home

PASSWORD = "TUNESMITH_PASSWORD"


def serve(host: str, port: int, progress: Callable[[int, int, str], None]) -> None:
    """Bring the index up to date, then serve until Ctrl-C. Raises UserError when the port is taken."""
    password = os.environ.get(PASSWORD)
    if host not in LOOPBACK and not password:
        raise UserError(
            f"--host {host} listens beyond this machine: set {PASSWORD} first, or leave --host away"
        )
    if os.environ.get("GRADIO_VIBE_MODE"):
        raise UserError("GRADIO_VIBE_MODE is set: it lets any visitor run code; unset it and start again")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    claim_port(host, port)
    from ingest.sync import build_kb

    where = home()
    importing = threading.Thread(
        target=__import__, args=("gradio",)
    )  # four seconds that the index need not wait for
    importing.start()
    kept = where.stores()
    if kept["server"] and kept["server"].warning:
        print(f"warning: {kept['server'].warning}", file=sys.stderr)
    build_kb(where.index, progress, **kept)
    importing.join()
    import uvicorn

    from ui.page import build

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
