"""Thumbs on answers: kept with their reasons, and handed to the trainer as data that it reads."""

import sqlite3

import pytest

from assistant import conversations, preferences
from assistant.conversations import Vote
from assistant.types import Answer
from kb.errors import UserError
from trainer.data import profile
from trainer.data.convert import convert
from trainer.data.detect import detect
from trainer.data.read import read_records

QUESTION = "Which learning rate for LoRA?"


def answer(text):
    return Answer(text, [], False, "extract", 0.1, "en")


@pytest.fixture
def store(tmp_path):
    return tmp_path / "chat.sqlite"


def told(store, *pairs):
    """A conversation of (question, answer text) pairs."""
    key = conversations.create(store)
    for question, text in pairs:
        conversations.append(store, key, question, answer(text))
    return key


def test_a_vote_is_kept_changed_and_taken_back(store):
    key = told(store, (QUESTION, "2e-4"), ("And the rank?", "16"))
    assert conversations.vote(store, key, 2, True)
    assert conversations.vote(store, key, 2, False, " too short ")
    assert conversations.votes(store, key) == {2: Vote(False, "too short")}
    conversations.vote(store, key, 2, None)
    assert conversations.votes(store, key) == {}
    assert not conversations.vote(
        store, key, 3, True
    )  # a stopped answer is on the screen but not in the store


def test_a_deleted_conversation_takes_its_votes_along(store):
    kept, gone = told(store, (QUESTION, "2e-4")), told(store, (QUESTION, "0.1"))
    for key in (kept, gone):
        conversations.vote(store, key, 1, True)
    conversations.delete(store, gone)
    assert conversations.voted(store) == [kept] and len(preferences.rows(store, "kto")) == 1


def test_a_store_from_before_there_were_votes_still_opens(store):
    key = told(store, (QUESTION, "2e-4"))
    with sqlite3.connect(store) as old:
        old.execute("DROP TABLE votes")
    assert conversations.votes(store, key) == {}
    assert conversations.vote(store, key, 1, True)
    assert [question for question, _ in conversations.load(store, key)] == [QUESTION]


def test_votes_become_rows_that_kto_trains_on(store, tmp_path):
    key = told(store, (QUESTION, "Start at 2e-4 [1]."), ("and the rank?", "Use 16 [1][2]."))
    conversations.vote(store, key, 1, True)
    conversations.vote(store, key, 2, False, "no reason given")
    target = tmp_path / "votes.jsonl"
    assert preferences.export(store, target) == 2
    records = read_records(target)
    found = detect(records)
    rows = convert(records, found, "kto").rows
    assert found.format == "kto" and [row["label"] for row in rows] == [True, False]
    assert rows[0]["prompt"] == [{"role": "user", "content": QUESTION}]
    assert rows[0]["completion"] == [{"role": "assistant", "content": "Start at 2e-4."}]
    # a follow-up means nothing without what it follows
    assert [turn["role"] for turn in rows[1]["prompt"]] == ["user", "assistant", "user"]
    assert profile(target).thumbs_up == profile(target).thumbs_down == 1


def test_a_liked_and_a_disliked_answer_to_one_question_become_a_pair(store, tmp_path):
    again = told(store, (QUESTION, "0.1"), (QUESTION, "2e-4"))  # asked again in the same conversation
    elsewhere = told(store, (QUESTION, "1e-4"), ("Which rank for LoRA?", "16"))
    for key, number, liked in (
        (again, 1, False),
        (again, 2, True),
        (elsewhere, 1, True),
        (elsewhere, 2, True),
    ):
        conversations.vote(store, key, number, liked)
    conversations.vote(store, again, 1, False, "it diverges")
    target = tmp_path / "pairs.jsonl"
    assert preferences.export(store, target, "dpo") == 2
    assert [row["reason"] for row in preferences.rows(store, "dpo")] == ["it diverges"] * 2
    records = read_records(target)
    rows = convert(records, detect(records), "dpo").rows
    texts = [(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows]
    assert texts == [("2e-4", "0.1"), ("1e-4", "0.1")]
    assert all(row["prompt"] == [{"role": "user", "content": QUESTION}] for row in rows)
    assert profile(target).preference_pairs == 2


def test_one_text_liked_here_and_disliked_there_is_no_pair(store):
    for liked in (True, False):
        conversations.vote(store, told(store, (QUESTION, "2e-4")), 1, liked)
    assert preferences.rows(store, "dpo") == []


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [("a.jsonl", "kto", "thumb"), ("a.jsonl", "dpo", "answer again"), ("a.csv", "kto", "a.jsonl"), ("a.jsonl", "x", "kto, dpo")],
)  # fmt: skip
def test_what_cannot_be_exported_is_told_with_the_next_step(store, tmp_path, name, kind, said):
    with pytest.raises(UserError, match=said):
        preferences.export(store, tmp_path / name, kind)
    assert not (tmp_path / name).exists()
