"""Rows divided into training, evaluation and test rows, and frozen for a run."""

from collections import Counter

import pytest
from written import write

from trainer.config import UserError
from trainer.data import split
from trainer.data.splits import key
from trainer.data.stage import freeze, label_set, stage, thaw


def labelled(count, labels=("a", "b", "c")):
    return [
        {
            "prompt": [{"role": "user", "content": f"text {i}"}],
            "completion": [{"role": "assistant", "content": labels[i % len(labels)]}],
        }
        for i in range(count)
    ]


def test_split_keeps_the_share_of_every_label_and_is_seeded():
    rows = labelled(90) + labelled(10, ("rare",))[:0]
    parts = split(rows, 0.1, 0.2, seed=1)
    for part, expected in ((parts.test, 6), (parts.eval, 3), (parts.train, 21)):
        assert Counter(row["completion"][0]["content"] for row in part) == dict.fromkeys("abc", expected)
    again, other = split(rows, 0.1, 0.2, seed=1), split(rows, 0.1, 0.2, seed=2)
    assert again.test == parts.test and other.test != parts.test


def test_rows_with_the_same_question_stay_in_one_split():
    rows = labelled(60)
    rows += [
        {**row, "prompt": [{"role": "user", "content": row["prompt"][0]["content"].upper() + "  "}]}
        for row in rows
    ]
    parts = split(rows, 0.2, 0.3, seed=3)
    keys = [{key(row) for row in part} for part in (parts.train, parts.eval, parts.test)]
    assert not keys[0] & keys[1] and not keys[0] & keys[2] and not keys[1] & keys[2]
    assert sum(map(len, (parts.train, parts.eval, parts.test))) == 120


def test_a_few_rows_still_fill_every_split_that_is_wanted():
    parts = split(labelled(6), 0.05, 0.1, seed=1)
    assert len(parts.test) == 1 and len(parts.eval) == 1 and len(parts.train) == 4


def test_held_out_files_are_used_and_their_rows_leave_the_training_set(tmp_path, config_of):
    train = write(tmp_path / "train.csv", "text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(40)))
    test = write(tmp_path / "test.csv", "text,label\nTEXT 1,1\nnew,0\n")
    evaluation = write(tmp_path / "eval.csv", "text,label\ntext 2,0\nnew,0\nother,1\n")
    staged = stage(config_of(train_file=str(train), test_file=str(test), eval_file=str(evaluation)))
    splits = staged.splits
    assert (len(splits.train), len(splits.eval), len(splits.test)) == (38, 2, 2)
    assert staged.card["overlap"] == 2
    assert {row["prompt"][0]["content"] for row in splits.eval} == {"text 2", "other"}


def test_fractions_of_zero_hold_nothing_out(config_of):
    splits = stage(config_of(eval_fraction=0, test_fraction=0)).splits
    assert (len(splits.train), splits.eval, splits.test) == (120, [], [])
    splits = stage(config_of(eval_fraction=0.25, test_fraction=0.5)).splits
    assert (len(splits.train), len(splits.eval), len(splits.test)) == (30, 30, 60)


def test_a_test_file_that_holds_every_row_leaves_nothing_to_train(config_of, review_file):
    with pytest.raises(UserError, match="no rows are left to train on"):
        stage(config_of(test_file=str(review_file)))


def test_a_method_that_does_not_fit_the_file_is_refused(config_of):
    with pytest.raises(UserError, match=r"reviews\.csv: method dpo needs rows of prompt, chosen, rejected"):
        stage(config_of(method="dpo"))


def test_frozen_rows_come_back_as_they_were(tmp_path, config_of):
    staged = stage(config_of())
    freeze(staged, tmp_path / "data")
    again = thaw(tmp_path / "data")
    assert again.splits == staged.splits and again.card == staged.card
    assert again.card["labels"] == ["0", "1"]
    (tmp_path / "data" / "card.json").unlink()
    assert thaw(tmp_path / "data") is None


def test_labels_are_told_from_texts():
    assert label_set(labelled(30), "alpaca") == ["a", "b", "c"]
    assert label_set(labelled(30, [f"answer {i}" for i in range(30)]), "text+label") is None
    assert label_set(labelled(30, ["a long answer " * 9, "b"]), "alpaca") is None
