"""A run folder in, a trained and measured model out; killed, stopped and torn runs go on where they were."""

import hashlib
import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import yaml

from trainer import base, checkpoints
from trainer.config import UserError
from trainer.train import rows_read, train


def weights_hash(folder):
    name = (
        "adapter/adapter_model.safetensors"
        if (folder.path / "adapter").is_dir()
        else "model/model.safetensors"
    )
    return hashlib.sha256((folder.path / name).read_bytes()).hexdigest()


def losses(folder):
    return {row["step"]: row["loss"] for row in folder.metrics() if "loss" in row}


def killed_at(folder, step):
    """Train in a process of its own that kills itself with SIGKILL in the middle of `step`."""

    def work():
        calls = iter(range(1, 1000))  # asked once before training, then once a step
        train(folder, lambda: next(calls) > step and os.kill(os.getpid(), signal.SIGKILL))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.fixture(scope="module", autouse=True)
def _loaded():
    """Import once what the forked processes need."""
    import peft  # noqa: F401
    import trl  # noqa: F401


def test_a_starter_run_goes_from_a_file_to_scores(run_of):
    folder = run_of(
        base_model="starter",
        starter_hidden_size=32,
        starter_layers=1,
        starter_vocab_size=400,
        max_steps=6,
        eval_steps=3,
    )
    assert train(folder) == "done"
    for name in (
        "base/model.safetensors",
        "model/model.safetensors",
        "model/tokenizer.json",
        "model/chat_template.jinja",
    ):
        assert (folder.path / name).is_file()
    status = folder.status()
    assert (status["step"], status["total_steps"], status["stage"]) == (6, 6, "evaluate")
    rows = folder.metrics()
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows if "eval_loss" in row] == [3, 6]
    assert all(
        {"epoch", "learning_rate", "grad_norm", "tokens_per_second"} <= row.keys()
        for row in rows
        if "loss" in row
    )
    scores = folder.scores()
    assert scores["n"] == 12 and {"tuned", "base", "majority"} <= scores.keys()
    lineage = folder.lineage()
    data = hashlib.sha256(Path(folder.config().train_file).read_bytes()).hexdigest()
    assert lineage["data"] == {folder.config().train_file: data}
    assert lineage["seed"] == 42 and {"torch", "trl", "transformers"} <= lineage["versions"].keys()
    assert lineage["hardware"]["device"] == "cpu"


def test_the_run_learns(run_of):
    folder = run_of(max_steps=40, learning_rate=1e-2, eval_fraction=0)
    train(folder)
    curve = losses(folder)
    assert curve[40] < 0.3 * curve[1]


@pytest.mark.parametrize("peft", ["full", "lora"])
def test_a_killed_run_resumes_to_the_same_weights(run_of, peft):
    values = {"peft": peft, "max_steps": 8, "save_steps": 3, "lora_dropout": 0.1, "eval_fraction": 0}
    whole, broken = run_of(**values), run_of(**values)
    train(whole)
    killed_at(broken, 5)
    assert [path.name for path in broken.checkpoints()] == ["checkpoint-3"]
    broken.set_status(attempt=2)
    assert train(broken) == "done"
    assert weights_hash(broken) == weights_hash(whole)
    assert losses(broken) == losses(whole)


def test_a_torn_checkpoint_is_passed_over(run_of):
    values = {"max_steps": 8, "save_steps": 2, "save_total_limit": 5, "eval_fraction": 0}
    whole, broken = run_of(**values), run_of(**values)
    train(whole)
    killed_at(broken, 7)
    names = [path.name for path in broken.checkpoints()]
    assert names == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]
    torn = broken.path / "checkpoints" / "checkpoint-6" / "optimizer.pt"
    torn.write_bytes(torn.read_bytes()[:100])
    (broken.path / "checkpoints" / "checkpoint-4" / checkpoints.COMPLETE).unlink()
    assert [path.name for path in broken.checkpoints()] == ["checkpoint-2"]
    train(broken)
    assert weights_hash(broken) == weights_hash(whole)


def test_a_run_that_is_asked_to_stop_keeps_a_checkpoint_and_goes_on(run_of):
    values = {"max_steps": 6, "eval_fraction": 0}
    whole, stopped = run_of(**values), run_of(**values)
    train(whole)
    calls = iter(range(1, 1000))
    assert train(stopped, lambda: next(calls) > 4) == "cancelled"
    assert [path.name for path in stopped.checkpoints()] == ["checkpoint-4"]
    assert not (stopped.path / "model").exists()
    assert train(stopped) == "done"
    assert weights_hash(stopped) == weights_hash(whole)


def test_a_run_killed_after_training_only_evaluates_again(run_of, monkeypatch):
    folder = run_of()
    train(folder)
    before = weights_hash(folder)
    (folder.path / "eval" / "metrics.json").unlink()
    monkeypatch.setattr("trainer.train.run_loop", lambda *args: pytest.fail("it trained again"))
    assert train(folder) == "done"
    assert weights_hash(folder) == before and folder.scores()["tuned"]


def test_a_short_run_renders_only_the_rows_it_reads(config_of):
    rows = [{"text": str(i)} for i in range(100)]
    assert rows_read(config_of(max_steps=3, batch_size=4, gradient_accumulation=2), rows) == rows[:24]
    assert rows_read(config_of(max_steps=-1), rows) == rows_read(config_of(packing=True), rows) == rows


def test_frozen_rows_outlive_a_change_of_the_users_file(run_of, review_file):
    folder = run_of(max_steps=2)
    train(folder, lambda: (folder.path / "data" / "card.json").exists())
    frozen = (folder.path / "data" / "train.jsonl").read_bytes()
    review_file.write_text("text,label\nchanged,1\nother,0\n")
    train(folder)
    assert (folder.path / "data" / "train.jsonl").read_bytes() == frozen


def test_rows_over_the_window_are_cut_and_counted(run_of):
    folder = run_of(max_length=20, max_steps=1)
    train(folder)
    card = json.loads((folder.path / "data" / "card.json").read_text())
    assert card["fitted"]["cut"] == sum(card["rows"].values()) == 120


def test_the_adapter_names_its_base(run_of, tiny_base):
    folder = run_of(peft="lora", max_steps=1)
    train(folder)
    values = json.loads((folder.path / "adapter" / "adapter_config.json").read_text())
    assert values["base_model_name_or_path"] == str(tiny_base)
    assert (folder.path / "adapter" / "chat_template.jinja").is_file()


def test_a_bf16_model_is_stored_as_bf16_again(run_of, tiny_base, tmp_path):
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(tiny_base, dtype="bfloat16").save_pretrained(tmp_path / "half")
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path / "half")
    folder = run_of(base_model=str(tmp_path / "half"), max_steps=1)
    train(folder)
    with safe_open(folder.path / "model" / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118


def test_threads_are_those_of_the_config(run_of):
    import torch

    before = torch.get_num_threads()
    try:
        train(run_of(threads=2, max_steps=1, test_fraction=0, eval_fraction=0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_continued_pretraining_and_pairs_run_to_their_scores(run_of, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"the room was good and the food number {i} was cold" for i in range(40)))
    folder = run_of(method="cpt", train_file=str(texts), max_steps=2)
    train(folder)
    assert folder.scores()["task"] == "text" and folder.scores()["tuned"]["perplexity"] > 1
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"is {i} good", "chosen": "yes it is", "rejected": "no"} for i in range(40)]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = run_of(method="dpo", peft="lora", train_file=str(pairs), max_steps=12, learning_rate=2e-2)
    train(folder)
    scores = folder.scores()
    assert scores["task"] == "pairs" and scores["tuned"]["margin"] > scores["base"]["margin"]
    folder = run_of(method="kto", train_file=str(pairs), max_steps=2)
    train(folder)
    assert folder.scores()["task"] == "verdicts"


# base models that are refused: (what is done to a good folder, what the one line says)


def edited(**changes):
    def change(path):
        values = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**values, **changes}))

    return change


def without_a_weight(path):
    from safetensors.torch import load_file, save_file

    weights = load_file(path / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, path / "model.safetensors", {"format": "pt"})


def pickled(path):
    (path / "model.safetensors").rename(path / "pytorch_model.bin")


REFUSED = {
    "no config.json": (lambda path: (path / "config.json").unlink(), "no config.json"),
    "broken config.json": (lambda path: (path / "config.json").write_text("{"), "not readable as JSON"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "no weights"),
    "pickled weights": (pickled, r"only pytorch_model\.bin, which can run code"),
    "no tokenizer": (lambda path: (path / "tokenizer.json").unlink(), r"no tokenizer\.json"),
    "code of its own": (edited(auto_map={"AutoModel": "evil.Model"}), "'auto_map' would run code"),
    "code in a part": (edited(text_config={"auto_map": {"AutoModel": "x.M"}}), "'auto_map' would run code"),
    "a lying attention": (edited(_attn_implementation_internal="evil/kernel"), "would run code"),
    "broken safetensors": (
        lambda path: (path / "model.safetensors").write_bytes(b"\xff" * 99),
        "cannot be loaded",
    ),
    "lying sizes": (edited(hidden_size=64), "cannot be loaded"),
    "a missing weight": (without_a_weight, r"1 weights are missing, such as model\.norm\.weight"),
    "unknown architecture": (edited(model_type="nonesuch"), "cannot be loaded"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_model_folder_is_refused_in_one_line(run_of, tiny_base, tmp_path, name):
    import shutil

    spoil, expected = REFUSED[name]
    path = tmp_path / "model"
    shutil.copytree(tiny_base, path)
    spoil(path)
    with pytest.raises(UserError, match=expected) as caught:
        train(run_of(base_model=str(path), max_steps=1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "nobody/no-such-model",
            r"'nobody/no-such-model': not on this machine and the Hub cannot be reached; copy",
        ),
        ("/no/such/folder", "no such folder"),
        ("../../etc", "no such folder|no config"),
        ("bad name", "not a Hub id"),
        ("-x/y", "not a Hub id"),
    ],
)
def test_a_model_that_cannot_be_had_is_named_with_the_way_out(config_of, tmp_path, name, expected):
    with pytest.raises(UserError, match=expected):
        base.locate(config_of(base_model=name), tmp_path)


def test_a_run_that_cannot_start_leaves_its_folder_as_it_was(run_of, tmp_path):
    folder = run_of(train_file=str(tmp_path / "gone.csv"))
    before = sorted(path.name for path in folder.path.iterdir())
    with pytest.raises(UserError, match=r"gone\.csv: no such file"):
        train(folder)
    after = sorted(path.name for path in folder.path.iterdir() if path.name != ".lock")
    assert after == [name for name in before if name != ".lock"]
    assert yaml.safe_load((folder.path / "run.yaml").read_text())["task"] == "reviews"
