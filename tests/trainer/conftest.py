"""A tiny base model made once a session, configs and runs of it for tests that train for real."""

from pathlib import Path

import pytest

from trainer import runs
from trainer.config import RunConfig

WORDS = ["room", "food", "staff", "price", "view", "bed", "quiet", "noisy", "warm", "cold", "clean", "dirty"]


def review(index: int) -> tuple[str, str]:
    """A made-up review and its label, which one of its words decides."""
    good = index % 2 == 0
    others = [WORDS[(index * 7 + k) % 12] for k in range(3)]
    verdict = "good" if good else "bad"
    return f"the {others[0]} was {verdict} and the {others[1]} {others[2]} number {index}", str(int(good))


@pytest.fixture
def review_file(tmp_path) -> Path:
    """120 text+label rows in CSV."""
    path = tmp_path / "reviews.csv"
    lines = [",".join(review(index)) for index in range(120)]
    path.write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    """A base model folder of 40,000 weights, untrained."""
    from trainer.starter import make_starter

    config = RunConfig(
        task="tiny", base_model="starter", train_file="none",
        starter_hidden_size=32, starter_layers=2, starter_vocab_size=400,
    )  # fmt: skip
    texts = [part for index in range(200) for part in review(index)]
    return make_starter(config, texts, tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def config_of(review_file, tiny_base):
    """RunConfig of the tiny base and the review file, with changes."""

    def make(**changes) -> RunConfig:
        values = {
            "task": "reviews", "base_model": str(tiny_base), "train_file": str(review_file), "method": "sft",
            "peft": "full", "max_length": 64, "batch_size": 8, "gradient_accumulation": 1, "learning_rate": 1e-3,
            "max_steps": 4, "gradient_checkpointing": False, "logging_steps": 1, "device": "cpu", "smoke": False,
        }  # fmt: skip
        return RunConfig(**{**values, **changes})

    return make


@pytest.fixture
def built(config_of, tmp_path):
    """The TRL trainer of a config on rows of its method's shape."""
    from building import build

    return lambda evaluation=4, **changes: build(config_of(**changes), tmp_path, evaluation)


@pytest.fixture
def run_of(tmp_path, config_of):
    """A new run folder of the tiny base, with changes."""

    def make(**changes) -> runs.RunFolder:
        return runs.create(tmp_path / "tasks", config_of(**changes))

    return make
