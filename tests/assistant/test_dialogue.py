"""One question at a time: an answer fills its slot, by words or by a model, and nothing is asked twice."""

import json

import pytest

from assistant import dialogue
from assistant.dialogue import advised, fill, next_question, reply, talk
from assistant.types import Answer

SAID = Answer("…", [], False, "extract", 0.1, "en")


class Model:
    """Stands for a server that answers in the wanted shape."""

    name, model, context = "ollama", "test", 8192

    def __init__(self, **values):
        self.values, self.asked = values, []

    def count(self, text):
        return len(text)

    def stream(self, messages, max_tokens=768, schema=None, on_thought=None):
        self.asked.append((messages, schema))
        yield json.dumps(dict.fromkeys(schema["properties"]) | self.values)


@pytest.mark.parametrize(
    ("slot", "words", "value"),
    [
        ("rows", "大約兩千筆", {"rows": 2000}), ("rows", "2000", {"rows": 2000}), ("rows", "about 3k", {"rows": 3000}),
        ("rows", "沒有", {"rows": 0}), ("rows", "none yet", {"rows": 0}), ("rows", "What is a rank?", None),
        ("rows", "不知道", {}), ("rows", "don't know", {}), ("knowledge_update", "每週會改", {"knowledge_update": "weekly"}),
        ("knowledge_update", "never", {"knowledge_update": "static"}), ("knowledge_update", "會，每天", {"knowledge_update": "daily"}),
        ("language", "繁體中文", {"language": "zh-TW"}), ("language", "English", {"language": "en"}),
        ("gpu_name", "RTX 4090", {"gpus": 1, "gpu_name": "RTX 4090"}), ("gpu_name", "沒有", {"gpus": 0}),
        ("gpu_name", "one 16 GB card", {"gpus": 1, "gpu_vram_gb": 16.0}), ("gpu_name", "怎麼選 GPU？", None),
        ("task", "translate letters", {"task": "translation"}), ("task", "分類成三種", {"task": "classification"}),
    ],
)  # fmt: skip
def test_an_answer_is_read_by_its_words(slot, words, value):
    assert fill(slot, words) == value


def converse(first, answers, lang="en", backend=None):
    """A conversation as the Ask tab has it: (turns, the last answer)."""
    turns = []
    said = SAID
    state = talk([(first, SAID)])
    said = Answer(
        "…", [], False, "extract", 0.1, lang, ask=next_question(state, first, advised(state, None, lang))
    )
    turns.append((first, said))
    while (state := talk(turns)).pending and answers:
        words = answers[state.pending["slot"]]
        filled = fill(state.pending["slot"], words, backend)
        assert filled is not None, (state.pending, words)
        said = reply(filled, advised(dialogue.told(state, filled), None, lang), lang)
        turns.append((words, said))
    return turns, said


def test_a_described_task_leads_through_its_questions_to_a_cited_proposal():
    answers = {
        "rows": "about 4000",
        "knowledge_update": "never",
        "language": "English",
        "gpu_name": "RTX 4090",
        "task": "chat",
    }
    turns, last = converse("I want to fine-tune a support chat bot", answers)
    slots = [answer.ask["slot"] for _, answer in turns if answer.ask]
    assert len(slots) >= 3 and len(slots) == len(set(slots)) and last.ask is None
    state = talk(turns)
    assert state.values["rows"] == 4000 and state.words == "I want to fine-tune a support chat bot"
    plan = advised(state)
    assert plan.run and plan.ask is None and plan.estimate["available_gb"] == 24
    assert (
        last.backend == "plan"
        and last.citations
        and all(f"[{c.marker}]" in last.text for c in last.citations)
    )
    assert all(c.id.startswith("kb:") and c.sources for c in last.citations)


def test_the_same_in_chinese():
    answers = {
        "rows": "四千筆",
        "knowledge_update": "不會變",
        "language": "繁體中文",
        "gpu_name": "一張 4090",
        "task": "對話",
    }
    turns, last = converse("想微調一個客服機器人", answers, "zh-TW")
    assert last.ask is None and "記下了" in last.text and talk(turns).values["rows"] == 4000


def test_what_is_not_known_is_not_asked_again():
    turns, last = converse(
        "I want a classifier",
        dict.fromkeys(["rows", "language", "gpu_name", "knowledge_update"], "I don't know"),
    )
    slots = [answer.ask["slot"] for _, answer in turns if answer.ask]
    assert len(slots) == len(set(slots)) and last.ask is None


def test_another_question_in_between_leaves_the_open_one_open():
    first = Answer("…", [], False, "extract", 0.1, "en", ask={"slot": "rows", "question": "How many?"})
    state = talk([("I want a support chat bot", first), ("What is LoRA?", SAID)])
    assert state.pending["slot"] == "rows" and state.asked == ["rows"]
    assert next_question(state, "What is LoRA?", advised(state)) is None


def test_a_question_of_the_library_describes_no_task():
    assert not talk([("What learning rate for LoRA?", SAID)]).described
    assert advised(talk([("What learning rate for LoRA?", SAID)])) is None


def test_a_model_fills_what_patterns_miss_and_its_inventions_do_not_count():
    model = Model(rows=1200, language="ja", gpus=7)
    assert fill("rows", "twelve hundred-ish, 1200 I think, maybe?", model) == {"rows": 1200, "language": "ja"}
    assert "'rows'" in model.asked[0][0][0]["content"] and model.asked[0][1]["properties"]["rows"]
    assert fill("rows", "hmm, hard to say?", Model(rows=5000)) is None
    assert fill("language", "the tongue of Goethe", Model(language="de")) == {"language": "de"}


def test_a_model_that_breaks_or_answers_nonsense_changes_nothing():
    class Broken(Model):
        def stream(self, *args, **kwargs):
            yield "{not json"

    assert fill("task", "hmm", Broken()) is None
    assert fill("task", "hmm", Model(task="poetry")) is None
    assert dialogue.described(
        "5000 English reviews to classify", Model(task="chat", rows=9999, sensitive=True)
    ) == {"sensitive": True}
