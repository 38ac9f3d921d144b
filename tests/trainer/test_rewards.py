"""Reward functions: what each gives, and a user's file that is slow, wrong or missing."""

import json
import time

import pytest

from trainer.config import UserError
from trainer.methods import rewards


def scored(spec, answers, references=None, labels=("no", "yes")):
    rows = [
        {"prompt": [{"role": "user", "content": "q"}]}
        | ({"completion": [{"role": "assistant", "content": reference}]} if reference is not None else {})
        for reference in (references or [None] * len(answers))
    ]
    return rewards.parse([spec])[0].score(rows, answers, list(labels))


@pytest.mark.parametrize(
    ("spec", "answer", "reference", "expected"),
    [
        ("exact", " Paris ", "paris", 1), ("exact", "Lyon", "paris", 0),
        ("exact", "so 1 + 1\n#### 1,200", "…\n#### 1200.0", 1), ("exact", r"thus \boxed{7}", "#### 7", 1), ("exact", "", "", 0),
        ("label", "Yes.", "yes", 1), ("label", "maybe", "yes", 0), ("label", "<think>no</think> yes", "yes", 1),
        (r"regex:^\d+$", "words\n42", None, 1), (r"regex:^\d+$", "42 words", None, 0),
        ("json", '{"a": 1}', None, 1), ("json", "```json\n[1]\n```", None, 1), ("json", "{a: 1}", None, 0),
        ("length:4", "four", None, 1), ("length:4", "six..6", None, 0.5), ("length:4", "x" * 99, None, 0),
    ],
)  # fmt: skip
def test_a_reward_is_what_its_name_says(spec, answer, reference, expected):
    assert scored(spec, [answer], [reference]) == [expected]


def test_json_that_breaks_the_schema_is_worth_half(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({"type": "object", "required": ["name"]}))
    assert scored(f"json:{path}", ['{"name": 1}', "{}", "no"]) == [1, 0.5, 0]
    path.write_text('{"type": 7}')
    with pytest.raises(UserError, match="not a JSON schema"):
        rewards.parse([f"json:{path}"])


def test_weights_add_up():
    parsed = rewards.parse(["exact", "-0.5*length:1"])
    rows = [
        {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}
    ]
    assert rewards.total(parsed, rows * 2, ["a", "wrong"], ["a"]) == [0.5, 0.0]


def test_a_users_file_judges_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("A_SECRET", "key")
    (tmp_path / "beside.py").write_text("HALF = 0.5\n")
    path = tmp_path / "mine.py"
    path.write_text(
        "import os\nfrom beside import HALF\nprint('noise')\n"
        "def reward(prompt, answer, reference):\n"
        "    return HALF * len(answer) + 100 * ('A_SECRET' in os.environ) + (reference == 'r')\n"
    )
    assert scored(f"file:{path}", ["ab", "abcd"], ["r", "x"]) == [2.0, 2.0]


def test_a_users_file_that_fails_on_some_rows_leaves_those_out_and_says_where(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text("def reward(prompt, answer, reference):\n    return 1 / len(answer)\n")
    assert scored(f"file:{path}", ["a", ""]) == [1.0, None]
    assert f"{path}:2: ZeroDivisionError" in capsys.readouterr().out


def test_a_users_file_that_never_ends_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(rewards, "ROW_SECONDS", 1)
    path = tmp_path / "mine.py"
    path.write_text("def reward(prompt, answer, reference):\n    while answer: pass\n    return 1\n")
    began = time.monotonic()
    assert scored(f"file:{path}", ["", "x"]) == [1.0, None]
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def reward(prompt, answer:\n", r"mine\.py:1: SyntaxError"),
        ("import nowhere_at_all\n", r"mine\.py:1: ModuleNotFoundError"),
        ("def score(): pass\n", r"has no function reward\(prompt, answer, reference\)"),
        ("def reward(*row): raise ValueError('bad')\n", r"mine\.py:1: ValueError: bad"),
        ("import os\nos._exit(3)\n", "ended early"),
    ],
)
def test_a_users_file_that_cannot_judge_is_told_in_one_line(tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as told:
        scored(f"file:{path}", ["a", "b"])
    assert "\n" not in str(told.value)


def test_a_reward_that_compares_needs_answers_to_compare_with():
    with pytest.raises(UserError, match="rewards that need none: regex, json, length, file"):
        rewards.require_references(rewards.parse(["length:9", "exact"]), [{"prompt": []}])
