"""Blind votes: appended, counted with an interval, and taken by the trainer as pairs for DPO."""

import json
from types import SimpleNamespace

import pytest

from kb.errors import UserError
from trainer import votes
from trainer.data.check import check
from trainer.served_score import count


def vote(number, winner="b", left="a", **changes):
    return {
        "a": "reviews/v1", "b": "reviews/v2", "winner": winner, "left": left,
        "prompt": [{"role": "user", "content": f"question number {number}, how was the room?"}],
        "answers": {"a": f"It was number {number}, fine.", "b": f"The room {number} was clean and quiet."},
    } | changes  # fmt: skip


def test_votes_are_appended_and_a_torn_line_costs_one_vote(tmp_path):
    votes.add(tmp_path, vote(1))
    with (tmp_path / votes.FILE).open("ab") as file:
        file.write(b'{"a": "half')
    votes.add(tmp_path, vote(2, "tie"))
    assert [one["winner"] for one in votes.read(tmp_path)] == ["b", "tie"]


def test_the_win_rate_has_its_interval_whichever_way_round_they_stood():
    found = [vote(n, "b", left="a") for n in range(6)]
    found += [vote(9, "a", left="a", a="reviews/v2", b="reviews/v1"), vote(10, "a", left="a"), vote(11, "tie"), vote(12, "bad")]  # fmt: skip
    (row,) = votes.tally(found)
    assert row["wins"] == {"reviews/v1": 1, "reviews/v2": 7} and (row["tie"], row["bad"]) == (1, 1)
    assert row["rate"] == 7 / 8 and row["left"] == 2 / 8
    low, high = row["interval"]
    assert low == pytest.approx(0.529, abs=0.001) and high == pytest.approx(0.978, abs=0.001)
    assert votes.tally([vote(1, "tie")])[0]["rate"] is None


def test_votes_make_pairs_that_the_trainer_takes(tmp_path):
    task = tmp_path / "reviews"
    task.mkdir()
    with pytest.raises(UserError, match="no vote for one of two answers yet"):
        votes.export(task, tmp_path / "pairs.jsonl")
    for number in range(20):
        votes.add(task, vote(number, "ab"[number % 2]))
    votes.add(task, vote(30, "tie"))
    votes.add(task, vote(31, answers={"a": "same", "b": "same "}))
    assert votes.export(task, tmp_path / "pairs.jsonl") == 20
    profile = check(tmp_path / "pairs.jsonl")
    assert (profile.format, profile.rows) == ("preference", 20)
    assert not [one for one in profile.findings if one.severity == "error"]
    first = json.loads((tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["chosen"][0]["content"].startswith("It was number 0")


def test_a_pair_does_not_carry_what_the_next_run_adds_again():
    config = SimpleNamespace(instruction="Good or bad?", system_prompt="You judge.")
    prompt = [
        {"role": "system", "content": "You judge."},
        {"role": "user", "content": "Good or bad?\nThe bed."},
    ]
    assert votes.bare(config, prompt) == [{"role": "user", "content": "The bed."}]
    assert votes.bare(SimpleNamespace(instruction="", system_prompt=""), prompt) == prompt


def test_rows_are_counted_as_the_evaluation_counts_them():
    rows = [{"prompt": [{"role": "user", "content": text}], "completion": [{"role": "assistant", "content": label}]}
            for text, label in (("a", "good"), ("b", "bad"), ("c", "good"), ("d", "bad"))]  # fmt: skip
    said = {"a": " Good.", "b": "good", "c": "I like it", "d": "bad"}
    rooms = []

    def ask(messages, room):
        rooms.append(room)
        return said[messages[-1]["content"]]

    counts = [(one.n, one.right) for one in count(rows, ["good", "bad"], ask, 500)]
    assert counts == [(1, 1), (2, 1), (3, 1), (4, 2)]
    *_, last = count(rows, ["good", "bad"], ask, 500)
    assert last.share == 0.5 and last.interval == pytest.approx((0.150, 0.850), abs=0.001)
    assert [(one["row"], one["label"]) for one in last.wrong] == [(1, "good"), (2, None)]
    assert set(rooms) == {12}, "a label needs few tokens"
