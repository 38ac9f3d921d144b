"""`tunesmith eval-answers` as people and programs call it."""

import json
import sys

import pytest

from ui import cli


@pytest.fixture
def tunesmith(built_home, monkeypatch, capsys):
    monkeypatch.setenv("TUNESMITH_HOME", str(built_home))

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tunesmith", "eval-answers", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), *capsys.readouterr()

    return call


def test_own_questions_are_measured_for_people_and_for_programs(tunesmith, tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        '- {q: "Which learning rate for LoRA?", gold: "2e-4"}\n- {q: 紅燒肉怎麼做, kind: unanswerable}\n'
    )
    status, out, _ = tunesmith("--set", own, "--backend", "extract", "--json")
    found = json.loads(out)
    assert status == 0 and found["set"] == str(own) and found["backends"] == ["extract"]
    assert found["all"]["gold_in_answer"] == found["all"]["refusal_recall"] == 1.0
    assert [row["refused"] for row in found["rows"]] == [False, True] and found["rows"][0]["sentences"]
    status, out, _ = tunesmith("--set", own, "--backend", "extract", "--limit", 1)
    assert status == 0 and "citation" in out


def test_a_missing_file_is_one_line_and_status_2(tunesmith, tmp_path):
    status, out, told = tunesmith("--set", tmp_path / "none.yaml")
    assert status == 2 and out == "" and told.count("\n") == 1 and "none.yaml" in told
