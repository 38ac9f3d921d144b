"""The gate: names that no passage on top has."""

from pathlib import Path

import pytest
import yaml

from assistant import refusal
from assistant.answer import found
from ingest.index import Index

ROWS = yaml.safe_load((Path(__file__).parent / "near.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def index(built_home):
    opened = Index.open(built_home / "index")
    yield opened
    opened.close()


def refuses(index, question: str, lang: str | None = None) -> bool:
    return refusal.answerable(question, found(index, question, lang), index) < refusal.THRESHOLD


@pytest.mark.parametrize(
    ("question", "names"),
    [("axolotl 的 turbo_lora_mode 要設 true 還是 false", {"turboloramode"}), ("Qwen7 什麼時候會開源", {"qwen7"}),
     ("Midjourney 的訂閱費用是多少？", {"midjourney"}), ("7B 全參微調要吃多少 VRAM", set()), ("Trainer 的 seed 怎麼設", set()),
     ("does TRL have a --quantum_reward flag", {"quantumreward"}), ("what is DoRA", set()), ("RTX 4090 跑 8B 夠嗎", set())],
)  # fmt: skip
def test_a_name_that_no_passage_has_is_absent_and_a_size_or_another_spelling_is_not(index, question, names):
    assert refusal.absent(question, found(index, question, None), index.idf) == names


def test_near_the_topic_most_of_what_the_library_lacks_is_refused_and_little_else(index):
    dev = [row for row in ROWS if row["split"] == "dev"]
    refused = {row["id"]: refuses(index, row["q"], row["lang"]) for row in dev}
    assert sum(refused[row["id"]] for row in dev if row["kind"] == "unanswerable") >= 15
    assert sum(refused[row["id"]] for row in dev if row["kind"] == "near") <= 1
