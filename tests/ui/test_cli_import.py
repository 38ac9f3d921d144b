"""`tunesmith data import` as a person types it: looks, names columns, writes into a task, tells in their language."""

import json

import pytest
from typer.testing import CliRunner

from ui import cli
from ui.tabs.data_import import options_of


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LANG", "en_US.UTF-8")
    monkeypatch.delenv("LC_ALL", raising=False)
    (tmp_path / "in.csv").write_text("Frage,Antwort\nWas?,Das.\nWer?,\n", "utf-8")
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments, status=0):
        done = CliRunner().invoke(cli.app, ["data", "import", *arguments])
        assert done.exit_code == status or type(done.exception).__name__ == "UserError", done.output
        return done.output + (str(done.exception) if done.exception else "")

    return invoke


def test_look_shows_columns_confidence_and_the_first_row_and_writes_nothing(run, tmp_path):
    said = run("in.csv", "--look")
    assert "prompt" in said and "← Frage  0.80" in said and '"prompt": "Was?"' in said
    part = json.loads(run("in.csv", "--look", "--json"))["parts"][0]
    assert [(one["role"], one["column"]) for one in part["columns"]] == [
        ("prompt", "Frage"),
        ("completion", "Antwort"),
    ]
    assert not list(tmp_path.rglob("*.yaml"))


def test_an_import_goes_into_a_task_and_is_told_in_both_languages(run, tmp_path, monkeypatch):
    assert "no such task" in run("in.csv", "--task", "reviews")
    CliRunner().invoke(cli.app, ["new", "reviews"])
    said = run("in.csv", "--task", "reviews", "--map", "instruction=Frage", "--map", "output=Antwort")
    assert "2 rows read, 2 written, 1 of them can be trained on" in said and "in.csv:3" in said
    folder = tmp_path / "home" / "tasks" / "reviews" / "data"
    assert json.loads((folder / "in.jsonl").read_text().splitlines()[0]) == {
        "instruction": "Was?",
        "output": "Das.",
    }
    monkeypatch.setenv("LANG", "zh_TW.UTF-8")
    assert "內容和上次相同" in run(str(folder / "data_source.yaml"))
    assert json.loads(run(str(folder / "data_source.yaml"), "--json"))[0]["changed"] == "same"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["in.csv"], "give the file to write"),
        (["in.csv", "r.jsonl", "--map", "prompt"], "give NAME=VALUE"),
        (["in.csv", "r.csv"], "ends in .jsonl"),
        (["in.csv", "r.jsonl", "--set", "foo=1"], "path knows: only"),
        (["https://x.org", "r.jsonl"], "give rest:https://x.org"),
        (["no.csv", "r.jsonl"], "no such file"),
        (["sql:DROP TABLE x", "r.jsonl"], "does not read"),
    ],
    ids=range(7),
)
def test_mistakes_are_one_line(run, arguments, said):
    assert said in run(*arguments, status=2)


def test_the_page_cannot_open_the_own_network():
    from kb.errors import UserError

    assert options_of("paging=cursor\n\ncursor = next") == {"paging": "cursor", "cursor": "next"}
    with pytest.raises(UserError, match="command line alone"):
        options_of("private=true")
