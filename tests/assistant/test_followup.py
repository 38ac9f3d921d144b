"""Follow-up questions in three scripts: ten dialogues, what the last question becomes, and what it then finds."""

import pytest

from assistant.answer import ask
from assistant.followup import carried_over, leans, names
from assistant.llm import Settings
from ingest.index import Index

# The turns of a person (an answer after ">" where it matters), and words that the last one, made to stand alone, must
# have, and must not have.
DIALOGUES = [
    (["QLoRA 微調 8B 要多少記憶體？", "那 70B 呢？"], ["QLoRA", "70B", "記憶體"], ["8B"]),
    (["LoRA 的學習率要設多少？", "那 rank 呢？", "那 QLoRA 呢？"], ["QLoRA", "rank"], ["學習率"]),
    (["哪一種方法適合成對的偏好資料？", "> DPO 適合成對的偏好資料 [1]。", "它要多少資料？"], ["DPO", "多少資料"], []),
    (["怎麼用 9000 筆評論做情感分類？", "那 NER 呢？"], ["NER", "9000"], ["情感"]),
    (["QLoRA 微调 Qwen3-8B 需要多少显存？", "换成 Llama-3.1-70B 呢？"], ["QLoRA", "Llama-3.1-70B", "显存"], ["Qwen3"]),
    (["DPO 的学习率应该设多少？", "那 KTO 呢？", "为什么？"], ["KTO", "学习率"], ["DPO"]),
    (["用 4090 可以微调 14B 模型吗？", "那 A100 呢？"], ["A100", "14B"], ["4090"]),
    (["Which learning rate for LoRA?", "and for full fine-tuning?"], ["learning rate", "full fine-tuning"], ["LoRA"]),
    (["How much memory does QLoRA need for a 7B model?", "What about 13B?", "and with LoRA?"], ["LoRA", "13B", "memory"], ["QLoRA", "7B"]),
    (["How do I export a model to GGUF?", "And why does it talk nonsense in Ollama?"], ["GGUF", "Ollama", "nonsense"], []),
]  # fmt: skip


def history(turns: list[str]) -> list[dict[str, str]]:
    messages = []
    for turn in turns:
        told = turn.startswith("> ")
        if messages and messages[-1]["role"] == "user" and not told:
            messages.append({"role": "assistant", "content": "It depends [1]."})
        messages.append({"role": "assistant" if told else "user", "content": turn.removeprefix("> ")})
    return messages


@pytest.mark.parametrize(("turns", "has", "lacks"), DIALOGUES)
def test_a_follow_up_takes_over_what_it_lacks_and_nothing_that_it_replaces(turns, has, lacks):
    alone = carried_over(turns[-1], history(turns[:-1]))
    words = alone.replace("？", " ").replace("?", " ").split()
    assert all(word in alone for word in has), alone
    assert not any(word in words or (word in alone and not word.isascii()) for word in lacks), alone


@pytest.mark.parametrize(
    "question",
    [
        "How do I split my data into training and test parts?",
        "What is overfitting?",
        "DPO 是什麼？",
        "為什麼訓練的 loss 突然變成 NaN？",
        "训练数据太少的时候应该怎么办？",
        "How do I know that my data has duplicates?",
        "Which rank does QLoRA need?",
    ],
)
def test_a_question_that_stands_alone_stays_as_it_is(question):
    assert not leans(question)
    assert carried_over(question, history(["Which learning rate for LoRA?"])) == question


def test_a_greeting_and_an_empty_history_carry_nothing():
    assert carried_over("and the rank?", []) == "and the rank?"
    assert carried_over("那 rank 呢？", history(["你好"])) == "那 rank 呢？"


def test_of_users_own_subjects_the_whole_question_is_carried():
    assert "阿里山" in carried_over("那冬茶呢？", history(["阿里山春茶什麼時候採收？"]))
    assert "Ardley" in carried_over("how long is it?", history(["What did the Ardley canal carry?"]))


def test_names_know_their_kind():
    kinds = {
        (name.kind, name.text) for name in names("Can a 4090 fine-tune Qwen3-8B with QLoRA and DPO on 24 GB?")
    }
    assert kinds == {
        ("gpu", "4090"), ("model", "Qwen3-8B"), ("size", "8B"), ("peft", "QLoRA"), ("method", "DPO"), ("memory", "24 GB"),
    }  # fmt: skip


def test_a_long_conversation_is_quick_to_carry_over():
    import time

    long = history(["LoRA " * 400, "那 " + "rank " * 400 + "呢？"] * 50)
    start = time.monotonic()
    carried_over("那 70B 呢？", long)
    assert time.monotonic() - start < 2


@pytest.fixture(scope="module")
def index(built_home):
    opened = Index.open(built_home / "index")
    yield opened
    opened.close()


@pytest.mark.parametrize(("turns", "has", "lacks"), DIALOGUES)
def test_a_follow_up_is_answered(index, turns, has, lacks):
    answer = ask(index, turns[-1], history(turns[:-1]), settings=Settings("extract"))
    assert not answer.refused and answer.citations, carried_over(turns[-1], history(turns[:-1]))


def test_a_follow_up_beside_the_topic_is_refused_all_the_same(index):
    told = history(["Which learning rate for LoRA?"])
    assert ask(index, "what about sourdough bread?", told, settings=Settings("extract")).refused
    assert ask(
        index, "那明天的天氣呢？", history(["LoRA 的學習率要設多少？"]), settings=Settings("extract")
    ).refused
