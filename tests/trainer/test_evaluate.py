"""Scores: scikit-learn's measures on frozen rows, beside the majority class and the untrained base."""

import json

import pytest

from trainer import runs
from trainer.config import RunConfig, UserError
from trainer.evaluate import OTHER, as_label, classification, evaluate, perplexity, wilson
from trainer.generate import Stopped, answer_room, answers, load_for_inference, logprobs
from trainer.train import train


def test_measures_are_those_of_a_hand_counted_example():
    expected = ["a", "a", "a", "b", "b", "c"]
    predicted = ["a", "a", "b", "b", OTHER, "a"]
    found = classification(predicted, expected, ["a", "b", "c"])
    assert found["accuracy"] == pytest.approx(3 / 6)
    assert found["per_class"]["a"] == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3}
    )
    assert found["per_class"]["b"]["f1"] == pytest.approx(0.5) and found["per_class"]["c"]["f1"] == 0
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0.5 + 0) / 3)
    # expected in rows, predicted in columns; the last is "other"
    assert found["confusion"] == [[2, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert found["parse_failures"] == 1


@pytest.mark.parametrize(
    ("output", "label"),
    [
        ("positive", "positive"), (" Positive.\n", "positive"), ("「positive」", "positive"), ("1", "1"),
        ("<think>\nhm\n</think>\n\npositive", "positive"), ("positively", OTHER), ("", OTHER), ("???", OTHER),
    ],
)  # fmt: skip
def test_outputs_are_read_as_labels_give_or_take_case_and_punctuation(output, label):
    assert as_label(output, ["1", "negative", "positive"]) == label


def test_interval_is_wilsons():
    # Wilson 1927; values as statsmodels.stats.proportion.proportion_confint(8, 10, method="wilson") gives them
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == pytest.approx(1)
    assert wilson(0, 0) == (0.0, 1.0)


def test_perplexity_is_the_exponential_of_the_mean_loss_a_token():
    assert perplexity([(-2.0, 2), (-4.0, 1)]) == pytest.approx({"loss": 2.0, "perplexity": 7.389056})
    assert perplexity([]) == {"loss": None, "perplexity": None}


def talk(index):
    """A row whose answer says back what was said."""
    return row(f"say the room number {index % 10}", f"the room number {index % 10} was good and warm")


@pytest.fixture(scope="module")
def model(tiny_base, tmp_path_factory):
    """A tiny model that has learnt to talk, and its tokenizer."""
    folder = tmp_path_factory.mktemp("talker")
    write_rows(folder / "talk.jsonl", [talk(index) for index in range(64)])
    config = RunConfig(
        task="talker", base_model=str(tiny_base), train_file=str(folder / "talk.jsonl"), peft="full", max_length=64,
        batch_size=16, gradient_accumulation=1, learning_rate=1e-2, max_steps=40, eval_fraction=0, test_fraction=0,
        gradient_checkpointing=False, device="cpu",
    )  # fmt: skip
    run = runs.create(folder, config)
    train(run)
    net, tokenizer, _ = load_for_inference(run, config, "tuned")
    return net, tokenizer


def write_rows(path, rows):
    path.write_text("".join(json.dumps(line) + "\n" for line in rows))


def row(text, answer="good"):
    return {
        "prompt": [{"role": "user", "content": text}],
        "completion": [{"role": "assistant", "content": answer}],
    }


def test_a_batch_of_mixed_lengths_answers_as_each_row_alone(model):
    rows = [row("the room was good " * k) for k in (1, 7, 2, 12)] + [talk(3), talk(4)]
    together = answers(*model, rows, 12)
    assert together == [answers(*model, [one], 12)[0] for one in rows]
    assert all(together) and together[-1].startswith("the room number")
    assert len(answers(*model, [talk(3)], 2)[0]) < len(together[-1])


def test_thoughts_are_switched_off_where_a_template_has_the_switch(model):
    net, tokenizer = model
    plain = answers(net, tokenizer, [talk(3)], 12)
    template = tokenizer.chat_template
    tokenizer.chat_template = (
        template + "{% if enable_thinking is false %}{{ 'good and bad and' }}{% endif %}"
    )
    try:
        assert answers(net, tokenizer, [talk(3)], 12) == plain
        assert answers(net, tokenizer, [talk(3)], 12, thinking=False) != plain
    finally:
        tokenizer.chat_template = template


def test_logprobs_are_those_of_the_whole_models_logits(model):
    import torch

    net, tokenizer = model
    rows = [row("the room"), row("the food was cold and bad", "bad and cold")]
    found = logprobs(net, tokenizer, rows, "completion")
    for one, (total, count) in zip(rows, found, strict=True):
        ids = tokenizer.apply_chat_template(one["prompt"] + one["completion"], return_dict=True)["input_ids"]
        head = tokenizer.apply_chat_template(one["prompt"], return_dict=True, add_generation_prompt=True)[
            "input_ids"
        ]
        with torch.no_grad():
            scores = net(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = sum(scores[i - 1, ids[i]].item() for i in range(len(head), len(ids)))
        assert (total, count) == (pytest.approx(expected, abs=1e-3), len(ids) - len(head))


def test_answers_get_the_room_of_the_longest_label(model):
    _, tokenizer = model
    assert answer_room(tokenizer, ["1"]) == 3  # the label, its end mark, the line end after it
    assert answer_room(tokenizer, ["1", "good and bad and good"]) > 6


def test_a_trained_run_beats_majority_and_base(run_of):
    folder = run_of(
        base_model="starter", starter_hidden_size=64, starter_layers=1, starter_vocab_size=400, max_steps=120,
        learning_rate=3e-3, batch_size=16, eval_fraction=0, test_fraction=0.3,
    )  # fmt: skip
    train(folder)
    scores = json.loads((folder.path / "eval" / "metrics.json").read_text())
    assert scores["task"] == "classification" and scores["labels"] == ["0", "1"]
    assert scores["tuned"]["accuracy"] > 0.8 > scores["majority"]["accuracy"] >= 0.4
    assert scores["base"]["accuracy"] < scores["tuned"]["accuracy"]
    low, high = scores["tuned"]["interval"]
    assert low < scores["tuned"]["accuracy"] <= high
    lines = [
        json.loads(line) for line in (folder.path / "eval" / "predictions.jsonl").read_text().splitlines()
    ]
    assert len(lines) == scores["n"] == 36
    assert lines[3].keys() == {"row", "prompt", "expected", "predicted", "base_predicted"}
    right = sum(as_label(line["predicted"], ["0", "1"]) == line["expected"] for line in lines)
    assert right / 36 == pytest.approx(scores["tuned"]["accuracy"])
    matrix = scores["tuned"]["confusion"]
    assert sum(map(sum, matrix)) == 36 and len(matrix) == 3


def test_an_adapter_is_measured_on_its_base_and_the_base_without_it(run_of):
    folder = run_of(peft="lora", max_steps=2)
    train(folder)
    scores = evaluate(folder, "base")
    assert scores["tuned"]["seconds"] >= 0 and scores["base"]["parse_failures"] == scores["n"]


def test_free_answers_are_compared_and_their_room_is_the_runs(run_of, tmp_path, monkeypatch):
    write_rows(tmp_path / "talk.jsonl", [talk(index) for index in range(40)])
    rooms = []
    monkeypatch.setattr(
        "trainer.evaluate.answers",
        lambda model, tokenizer, rows, room, *_, **__: rooms.append(room) or [""] * len(rows),
    )
    folder = run_of(train_file=str(tmp_path / "talk.jsonl"), max_steps=2, max_new_tokens=7)
    train(folder)
    scores = folder.scores()
    assert rooms == [7, 7] and scores["task"] == "generation"
    assert scores["tuned"]["perplexity"] > 1 and scores["tuned"]["exact_match"] == 0


def test_an_empty_test_set_is_no_fault(run_of):
    folder = run_of(test_fraction=0, max_steps=1)
    train(folder)
    assert folder.scores()["n"] == 0


def test_evaluating_an_untrained_run_says_what_to_do(run_of):
    folder = run_of(max_steps=3)
    with pytest.raises(UserError, match="train the run first"):
        evaluate(folder)
    stops = iter([False, True])
    train(folder, lambda: next(stops, True))
    with pytest.raises(UserError, match="train the run to its end first"):
        evaluate(folder)


def test_evaluation_stops_when_asked(run_of):
    folder = run_of(max_steps=1)
    train(folder)
    with pytest.raises(Stopped):
        evaluate(folder, should_stop=lambda: True)
