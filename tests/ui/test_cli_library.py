"""The library on the command line: add, list, filter, remove, look again; as people and programs call it."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from kb.errors import UserError
from ui import cli
from ui.home import Home


@pytest.fixture(scope="module")
def own(built_home, tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("own")
    shutil.copytree(built_home / "index", home / "index")
    (home / "docs" / "old").mkdir(parents=True)
    (home / "docs" / "zebra.md").write_text("# Zebra\n\nThe zebra enclosure opens at nine in the morning.")
    (home / "docs" / "old" / "zebra.txt").write_text("The old zebra enclosure opened at noon.")
    os.utime(home / "docs" / "old" / "zebra.txt", (1_500_000_000, 1_500_000_000))
    return home


@pytest.fixture
def tunesmith(own, monkeypatch, capsys):
    """Calls the command in this process: status, what it printed, what it complained."""
    monkeypatch.setenv("TUNESMITH_HOME", str(own))
    monkeypatch.setenv("TUNESMITH_BACKEND", "extract")

    def call(*arguments: object, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tunesmith", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), *capsys.readouterr()

    return call


def listed(tunesmith) -> list[str]:
    documents = json.loads(tunesmith("library", "--json")[1])["documents"]
    assert {"source", "chunks", "modified", "ingested", "sha256"} <= documents[0].keys()
    assert all(document["id"].startswith(("kb:", "file:")) for document in documents)
    return [Path(d["source"]).name for d in documents if d["source"] != "kb"]


def test_the_librarys_commands_from_adding_to_removing(own, tunesmith):
    docs = own / "docs"
    status, said, _ = tunesmith("ingest", docs)
    assert status == 0 and said.startswith("2 added")
    assert listed(tunesmith) == ["zebra.txt", "zebra.md"]
    assert "2 documents of yours" in tunesmith("library")[1]

    batch = [
        {"question": "zebra enclosure"},
        {"question": "zebra enclosure", "source": str(docs / "old")},
        {"question": "zebra enclosure", "since": "2020-01-01", "source": str(docs)},
        {"question": "zebra enclosure", "since": "yesterday"},
        {"question": "zebra enclosure", "source": "/nowhere"},
    ]
    status, said, _ = tunesmith("search", "--batch", stdin="\n".join(map(json.dumps, batch)))
    replies = [json.loads(line) for line in said.splitlines()]
    pages = [{Path(hit["page"]).name for hit in reply.get("hits", [])} for reply in replies]
    assert status == 2 and pages[0] >= {"zebra.md", "zebra.txt"}
    assert pages[1:3] == [{"zebra.txt"}, {"zebra.md"}]
    assert "2026-01-31" in replies[3]["error"] and "not in the library" in replies[4]["error"]

    (docs / "zebra.md").write_text("# Zebra\n\nThe zebra has moved to the north gate.")
    report = json.loads(tunesmith("library", "sync", "--json")[1])
    assert (report["changed"], report["unchanged"], report["skipped"]) == (1, 1, [])
    assert tunesmith("library", "remove", docs / "old")[1].startswith("0 added, 0 changed, 1 removed")
    assert listed(tunesmith) == ["zebra.md"] and (docs / "old" / "zebra.txt").exists()
    assert tunesmith("library", "--remove", docs)[0] == 0 and listed(tunesmith) == []


def test_ask_and_search_take_the_filters_as_options(own, tunesmith):
    tunesmith("ingest", own / "docs")
    status, said, _ = tunesmith(
        "ask", "--json", "--source", own / "docs" / "old", "When did the old zebra enclosure open?"
    )
    answer = json.loads(said)
    assert status == 0 and {Path(c["page"]).name for c in answer["citations"]} <= {"zebra.txt"}
    assert not any(hit["page"].startswith("methods/") for hit in answer.get("nearest", []))
    found = json.loads(tunesmith("search", "LoRA rank", "--source", "kb", "--json")[1])["hits"]
    assert found and {hit["source"] for hit in found} == {"kb"}
    status, _, error = tunesmith("search", "zebra", "--since", "soon")
    assert status == 2 and "soon" in error and "Traceback" not in error


def test_a_chroma_server_is_asked_for_by_one_variable_only(tmp_path, monkeypatch, tunesmith):
    for name in ("TUNESMITH_CHROMA_URL", "CHROMA_TENANT", "CHROMA_DATABASE", "CHROMA_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CHROMA_API_KEY", "key")  # another program's
    assert Home(tmp_path).stores() == {"embedder": None, "server": None}
    monkeypatch.setenv("TUNESMITH_CHROMA_URL", "cloud")
    with pytest.raises(UserError, match="tenant, database not set"):
        Home(tmp_path).stores()
    monkeypatch.setenv("CHROMA_TENANT", "t")
    monkeypatch.setenv("CHROMA_DATABASE", "d")
    cloud = Home(tmp_path).stores()["server"]
    assert (cloud.tenant, cloud.database, cloud.api_key) == ("t", "d", "key")
    monkeypatch.setenv("TUNESMITH_CHROMA_URL", "http://192.0.2.1:1/path")
    status, said, error = tunesmith("library")
    assert status == 2 and said == "" and "not an address" in error


def test_a_chroma_server_in_the_open_is_warned_of_and_one_that_is_away_is_told(tunesmith, monkeypatch):
    monkeypatch.setenv(
        "TUNESMITH_CHROMA_URL", "http://0.0.0.0:1"
    )  # this machine, by the address of all its nets
    status, said, error = tunesmith("library", "--json")
    warning, trouble = error.strip().splitlines()
    assert status == 2 and said == "" and warning.startswith("warning: Chroma at http://0.0.0.0:1")
    assert "TUNESMITH_CHROMA_URL" in trouble
    monkeypatch.delenv("TUNESMITH_CHROMA_URL")
    assert tunesmith("search", "LoRA rank", "--json")[0] == 0  # what is on this machine has not suffered
