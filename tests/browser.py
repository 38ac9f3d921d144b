"""Starting the app in a process of its own and opening it in Chromium, for the tests that act as a person."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(home: Path, **environment: str) -> Iterator[str]:
    """`tunesmith ui` on a free port; yields its address, ends it afterwards.

    One at a time on a machine: two apps with two browsers on two cores are slower than one after the other.
    """
    with FileLock(Path(tempfile.gettempdir()) / "tunesmith-browser-tests.lock"):
        yield from _served(home, environment)


def _served(home: Path, environment: dict[str, str]) -> Iterator[str]:
    port = free_port()
    variables = {
        **os.environ,
        "TUNESMITH_HOME": str(home),
        "TUNESMITH_BACKEND": "extract",
        "LANG": "C.UTF-8",
        **environment,
    }
    log = (home / "ui.log").open("wb")
    command = [sys.executable, "-m", "ui.cli", "ui", "--port", str(port)]
    process = subprocess.Popen(command, env=variables, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield wait_until_served(f"http://127.0.0.1:{port}", process, home / "ui.log")
    finally:
        process.terminate()
        process.wait(20)
        log.close()
        end_runs(home)


def end_runs(home: Path) -> None:
    """A run outlives the app; a test leaves none behind."""
    from trainer.jobs import Jobs
    from trainer.runs import all_runs

    for folder in all_runs(home / "tasks"):
        if folder.status()["state"] in ("queued", "starting", "running"):
            Jobs(home).cancel(folder.id)


def wait_until_served(address: str, process: subprocess.Popen, log: Path, seconds: float = 120) -> str:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(f"the app ended: {log.read_text()[-3000:]}")
        try:
            with urllib.request.urlopen(address + "/en/", timeout=5):
                return address
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no page after {seconds} s: {log.read_text()[-3000:]}")


@contextmanager
def chromium(lang: str = "zh-TW", **context: object) -> Iterator:
    """A Chromium page; errors of the page's own scripts fail the test at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_context(locale=lang, viewport={"width": 1280, "height": 900}, **context).new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_default_timeout(60_000)
        try:
            yield page
        finally:
            browser.close()
        assert not errors, errors
