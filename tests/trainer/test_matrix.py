"""Every method × {full, LoRA}, and every kind of adapter × SFT: on real rows a tiny model moves the right way.

One core, about a minute; the cost of each training is printed at the end (pytest -s).
"""

import json
import time

import pytest

from trainer import base, runs
from trainer.config import NF4, RunConfig, UserError
from trainer.data.convert import convert
from trainer.data.detect import detect
from trainer.data.read import read_records
from trainer.data.splits import Splits
from trainer.data.stage import Staged, freeze
from trainer.data.tokens import fit
from trainer.export.merge import merge
from trainer.generate import load_for_inference
from trainer.methods import KINDS, METHODS, check
from trainer.starter import make_starter
from trainer.train import _save, weights

ROWS = 16  # of a file; one batch, so that losses of two steps compare
FILES = {
    "cpt": "llamafactory_demo/c4_demo.jsonl", "kto": "llamafactory_demo/kto_en_demo.json",
    "distillation": "gsm8k/grade_school_math__data__train.jsonl",
    **dict.fromkeys(("dpo", "orpo", "simpo", "reward"), "oasst_zh/oaast_rm_zh.json"),
    **dict.fromkeys(("sft", "classify", "grpo", "rloo"), "chnsenticorp/train.tsv"),
}  # fmt: skip
# What a few steps need: the fewer weights a kind trains, the larger its rate.
KIND_RATES = {"adalora": 5e-2, "ia3": 1e-1, "vera": 1e-1, "prefix": 1e-1, "prompt": 3e-1, "ptuning": 3e-2}
SAMPLED = {
    "max_steps": 10,
    "batch_size": 64,
    "learning_rate": 3e-3,
    "rewards": ["label"],
    "max_new_tokens": 3,
}
# LoRA takes more steps than a test has to tell reviews apart; one of the two answers it learns to give at once.
ONE_ANSWER = {"rewards": ["regex:^1"], "learning_rate": 6e-3}
COST = {}
# Kinds that a method does not train with; every other pair must.
LEFT_OUT = {"prefix", "prompt", "ptuning"}


@pytest.fixture(scope="module")
def rows(shared_data):
    """Rows of real files, in the shape of a method."""
    read = {}

    def of(method):
        path = shared_data / FILES[method]
        if method not in read:
            records = read_records(path)
            records.rows = records.rows[:200]
            found = convert(records, detect(records), method).rows
            if "chnsenticorp" in FILES[method]:  # both labels
                labels = [row["completion"][0]["content"] for row in found]
                found = [row for _, row in sorted(zip(labels, found, strict=True), key=lambda pair: pair[0])]
                found = [*found[: ROWS // 2], *found[-ROWS // 2 :]]
            read[method] = found[:ROWS]
        return read[method]

    return of


@pytest.fixture(scope="module")
def student(rows, tmp_path_factory):
    """An untrained base of 120,000 weights whose tokenizer knows these files."""
    config = RunConfig(
        task="t",
        base_model="starter",
        train_file="x",
        starter_hidden_size=64,
        starter_layers=2,
        starter_vocab_size=800,
    )
    texts = [
        text
        for method in METHODS
        for row in rows(method)
        for text in json.dumps(row, ensure_ascii=False).split(". ")
    ]
    return make_starter(config, texts, tmp_path_factory.mktemp("matrix") / "base")


@pytest.fixture(scope="module")
def teacher(student, rows, tmp_path_factory):
    """The student after some SFT on the questions of the distillation."""
    return taught(student, rows("distillation"), tmp_path_factory.mktemp("teacher"), 20)


@pytest.fixture(scope="module")
def guesser(student, rows, tmp_path_factory):
    """The student after so much SFT that it answers with one of the labels, and guesses which."""
    return taught(student, rows("sft"), tmp_path_factory.mktemp("guesser"), 8)


def taught(student, rows, folder, steps):
    trainer, config, tokenizer = built(student, rows, folder, peft="full", max_steps=steps)
    trainer.train()
    _save(trainer, tokenizer, folder / "model", config, student)
    return folder / "model"


def built(student, rows, folder, **changes):
    """(trainer, config, tokenizer) of a run on rows."""
    values = {
        "task": "matrix", "base_model": str(student), "train_file": "x", "peft": "lora", "max_length": 96,
        "batch_size": ROWS, "gradient_accumulation": 1, "learning_rate": 1e-2, "max_steps": 8, "lr_scheduler": "constant",
        "warmup_ratio": 0.0, "gradient_checkpointing": False, "logging_steps": 1, "device": "cpu", "max_new_tokens": 12,
        "num_generations": 8,
    }  # fmt: skip
    config = RunConfig(**{**values, **changes})
    entry = check(config)
    tokenizer = base.load_tokenizer(student)
    rows, _ = fit(rows, tokenizer, config.max_length) if entry.output != "labels" else (rows, None)
    labels = {
        "labels": sorted({row["completion"][0]["content"] for row in rows if "completion" in row}),
        "score": ("score",),
    }
    model = base.load_model(student, config, "cpu", labels=labels.get(entry.output))
    return (
        entry.build(config, model, tokenizer, rows, [], folder / "checkpoints", "cpu", []),
        config,
        tokenizer,
    )


def moved(trainer, name, over=2):
    """(first, last) of a figure of the curve, each the mean of `over` points."""
    values = [row[name] for row in trainer.state.log_history if name in row]
    some = min(over, len(values) // 2)
    return sum(values[:some]) / some, sum(values[-some:]) / some


# What must rise; the loss must fall where nothing is named.
RISES = {
    "dpo": "rewards/margins", "orpo": "rewards/margins", "simpo": "rewards/margins", "kto": "rewards/margins",
    "reward": "margin", "grpo": "reward", "rloo": "reward",
}  # fmt: skip


@pytest.mark.parametrize("peft", ["full", "lora"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_moves_the_right_way(method, peft, student, teacher, guesser, rows, tmp_path):
    began = time.process_time()
    changes = {"teacher_model": str(teacher)} if method == "distillation" else {}
    start = student
    if method in ("grpo", "rloo"):
        start, changes = guesser, SAMPLED | (ONE_ANSWER if peft == "lora" else {})
    trainer, _, _ = built(start, rows(method), tmp_path, method=method, peft=peft, **changes)
    trainer.train()
    COST[f"{method} {peft}"] = time.process_time() - began
    if method in RISES:
        sampled = method in ("grpo", "rloo")  # their answers scatter
        first, last = moved(trainer, RISES[method], over=3 if sampled else 2)
        assert last > first + 0.05
    else:
        first, last = moved(trainer, "loss")
        assert last < first - 0.1


@pytest.mark.parametrize("peft", [kind for kind in KINDS if kind not in ("full", "lora")])
def test_every_kind_trains_is_saved_whole_and_merges_or_says_why_not(peft, student, rows, tmp_path):
    import torch

    began = time.process_time()
    trainer, config, tokenizer = built(
        student, rows("sft"), tmp_path, peft=peft, max_steps=12, learning_rate=KIND_RATES.get(peft, 1e-2)
    )
    trainer.train()
    first, last = moved(trainer, "loss")
    COST[f"sft {peft}"] = time.process_time() - began
    assert last < first - 0.3

    folder = runs.create(tmp_path / "tasks", config)
    freeze(Staged(Splits(rows("sft"), [], []), {"labels": None}), folder.path / "data")
    _save(trainer, tokenizer, weights(folder, config), config, student)
    loaded, _, _ = load_for_inference(folder, config, "tuned")
    ids = torch.tensor([tokenizer("房間很好")["input_ids"]])
    with torch.inference_mode():
        trained = trainer.model.eval()(input_ids=ids).logits
        again = loaded(input_ids=ids).logits
    apart = float((again - trained).abs().mean() / trained.std())
    assert apart < (
        0.05 if peft in NF4 else 1e-3
    )  # adapters on 4 bits are trained in bf16 and read in float32
    if KINDS[peft].merges:
        assert (merge(folder) / "model.safetensors").is_file()
    else:
        with pytest.raises(UserError, match="cannot be merged"):
            merge(folder)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("peft", sorted(LEFT_OUT))
def test_virtual_tokens_are_trained_or_refused_in_one_line(method, peft, student, teacher, rows, tmp_path):
    if not METHODS[method].virtual:
        with pytest.raises(UserError, match="set peft to lora"):
            built(student, rows(method), tmp_path, method=method, peft=peft, teacher_model=str(teacher))
    elif method != "sft":
        trainer, _, _ = built(student, rows(method), tmp_path, method=method, peft=peft, learning_rate=1e-1)
        trainer.train()
        first, last = moved(trainer, "loss")
        assert last < first


def test_the_whole_matrix_stays_cheap():
    """Runs last in this file, after the trainings that it adds up."""
    if len(COST) < len(METHODS) * 2:
        pytest.skip("only a part of the matrix was run")
    print(
        "\n"
        + "\n".join(
            f"{seconds:5.1f} s  {name}" for name, seconds in sorted(COST.items(), key=lambda one: -one[1])
        )
    )
    print(f"{sum(COST.values()):.0f} CPU seconds, {len(COST)} trainings")
    assert sum(COST.values()) < 180
