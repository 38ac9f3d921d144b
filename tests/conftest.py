"""Fixtures of all tests: one CPU thread for the numeric libraries, and the shared public data."""

import os
from pathlib import Path

import pytest

# Two threads slow a busy two-core machine two- to fivefold; tests must not depend on its load.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public data beside the checkout; a test that needs it is skipped where it is missing."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("shared/data is not beside the checkout")
    return folder


@pytest.fixture(scope="session")
def built_home(tmp_path_factory) -> Path:
    """A home folder whose index holds the knowledge base; for tests that only read it."""
    from ingest.sync import build_kb

    folder = tmp_path_factory.mktemp("home")
    build_kb(folder / "index")
    return folder
