"""The untrained model's scores, which training has to beat."""

import pytest

from trainer import baseline, runs
from trainer.config import UserError
from trainer.jobs import Jobs


def row(question, answer, system=None):
    prompt = [{"role": "system", "content": system}] if system else []
    return {
        "prompt": [*prompt, {"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
    }


def test_examples_differ_in_their_answers():
    rows = [row(str(index), "yes" if index < 50 else "no") for index in range(60)]
    assert [one["completion"][0]["content"] for one in baseline.chosen(rows, 4)] == ["yes", "no", "yes", "no"]
    assert len(baseline.chosen(rows[:3], 9)) == 3


def test_examples_are_earlier_turns_after_the_one_system_message():
    made = baseline.with_examples(row("q", "a", "be brief"), [row("q1", "a1", "be brief")])
    assert [(turn["role"], turn["content"]) for turn in made["prompt"]] == [
        ("system", "be brief"), ("user", "q1"), ("assistant", "a1"), ("user", "q"),
    ]  # fmt: skip
    assert made["completion"] == row("q", "a")["completion"]


def test_the_base_model_is_scored_without_and_with_examples_and_nothing_is_trained(
    tmp_path, config_of, monkeypatch
):
    monkeypatch.setattr(Jobs, "submit", lambda self, folder: 1)
    folder = baseline.begin(tmp_path / "home", config_of(), shots=2)
    scores = baseline.perform(folder)
    assert scores["n"] == 12 and {"base", "few_shot", "majority"} <= scores.keys() and "tuned" not in scores
    assert not (folder.path / "model").exists() and runs.all_runs(tmp_path / "home" / "tasks") == []


def test_the_starter_has_no_baseline(tmp_path, config_of):
    with pytest.raises(UserError, match="nothing to measure"):
        baseline.begin(tmp_path, config_of(base_model="starter"), shots=5)
