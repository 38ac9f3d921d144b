"""Classification heads, reward models and runs on prompts go from a file to scores, and say what they are."""

import json

import pytest

from trainer import runs
from trainer.classifier import Classifier
from trainer.config import UserError
from trainer.export import export
from trainer.methods import METHODS, MethodEntry, sft
from trainer.train import train


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, tiny_base):
    """A BERT of two layers with the tiny base's tokenizer and no chat template."""
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, set_seed

    folder = tmp_path_factory.mktemp("encoder") / "bert"
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = None
    set_seed(1)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "initializer_range": 0.1,
    }
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("peft", "base"), [("full", "causal"), ("lora", "causal"), ("full", "encoder")])
def test_a_classifier_goes_from_a_file_to_scores_and_gives_probabilities(run_of, encoder, peft, base):
    changes = {"learning_rate": 1e-2, "max_steps": 40}
    if base == "encoder":
        changes = {"base_model": str(encoder), "learning_rate": 5e-3, "max_steps": 60}
    folder = run_of(method="classify", peft=peft, class_balance=1, **changes)
    assert train(folder) == "done"
    scores = folder.scores()
    assert scores["task"] == "classification" and "base" not in scores
    assert scores["tuned"]["accuracy"] > 0.9 > scores["majority"]["accuracy"]
    assert len(scores["tuned"]["confusion"]) == 3 and scores["tuned"]["parse_failures"] == 0
    assert (
        json.loads((folder.path / "eval" / "predictions.jsonl").read_text().splitlines()[0])["predicted"]
        in "01"
    )
    assert any("eval_macro_f1" in row for row in folder.metrics())

    shares = Classifier(folder).probabilities("the room was good and the food bed number 4")
    assert next(iter(shares)) == "1" and sum(shares.values()) == pytest.approx(1)
    with pytest.raises(UserError, match=r"a classifier gives labels, not words.*export to merged"):
        export(folder, "gguf")
    assert (export(folder, "merged")["merged"] / "model.safetensors").is_file()


def test_a_classifier_needs_labels(run_of, tmp_path):
    path = tmp_path / "texts.jsonl"
    rows = [{"prompt": f"question {i}", "completion": f"a long answer number {i}"} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="needs rows whose answers are labels"):
        train(run_of(method="classify", train_file=str(path)))


def test_a_reward_model_learns_to_tell_the_better_answer(run_of, tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"was room {i} good", "chosen": "the food was good", "rejected": "it was bad"}
        for i in range(60)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = run_of(method="reward", peft="lora", train_file=str(path), max_steps=12, learning_rate=1e-2)
    assert train(folder) == "done"
    scores = folder.scores()
    assert scores["tuned"]["accuracy"] == 1 and scores["tuned"]["margin"] > 0 and "base" not in scores
    with pytest.raises(UserError, match="a reward model gives score, not words"):
        export(folder, "ollama")


def test_prompts_without_answers_train_on_rewards_and_are_scored_by_them(run_of, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"was the room good {i}"}) + "\n" for i in range(40)))
    folder = run_of(
        method="grpo",
        train_file=str(path),
        max_steps=2,
        rewards=["length:9"],
        max_new_tokens=4,
        num_generations=4,
    )
    assert train(folder) == "done"
    scores = folder.scores()
    assert scores["task"] == "prompts" and 0 <= scores["base"]["reward"] <= 1 and "reward" in scores["tuned"]
    with pytest.raises(UserError, match="the rows have none"):
        train(run_of(method="rloo", train_file=str(path), num_generations=4))


def test_a_method_is_one_file_and_one_line(monkeypatch, run_of, tmp_path):
    """The line is in METHODS; nothing else has to know of it."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from trainer.methods import sft\n"
        "def build(config, *rest):\n"
        "    trainer = sft.build(config, *rest)\n"
        "    trainer.mine = True\n"
        "    return trainer\n"
    )
    scope: dict = {}
    exec(compile(file.read_text(), str(file), "exec"), scope)
    monkeypatch.setitem(
        METHODS, "mine", MethodEntry(scope["build"], "turns", "trl.SFTTrainer", "experimental")
    )

    folder = run_of(method="mine", max_steps=2)
    assert train(folder) == "done" and folder.scores()["task"] == "classification"
    from ui import form

    assert ("mine (experimental)", "mine") in form.choices("method", "en")
    assert (
        runs.find(folder.path.parents[2], folder.id).config().method == "mine"
        and sft.build is not scope["build"]
    )
