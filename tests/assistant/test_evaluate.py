"""Measuring answers: sets of questions, the second judge, and what the figures count."""

import json
import re
from pathlib import Path

import pytest
import yaml

from assistant import evaluate
from assistant.evaluate import Asked, judge, load, measured, scores
from assistant.llm import Settings
from assistant.types import Answer, Citation
from ingest.chunker import Chunk
from ingest.index import Index
from kb.errors import UserError

HERE = Path(__file__).parent
PASSAGE = "Start LoRA with a learning rate of 2e-4. Rank 16 fits most tasks, and it costs 0.5 GB."


@pytest.fixture(scope="module")
def index(built_home):
    opened = Index.open(built_home / "index")
    yield opened
    opened.close()


def judged(text: str, quote: str = PASSAGE.split(". ")[0] + ".", lang: str = "en", passage: str = PASSAGE):
    chunk = Chunk("c1", "kb:methods/lora", "methods/lora", "LoRA", "", lang, passage, "kb", 0)
    answer = Answer(text, [Citation(1, "c1", "methods/lora", "LoRA", quote, 0.9)], False, "x", 0.0, lang)
    return judge(answer, {"c1": chunk})


def test_the_second_judge_passes_what_the_passage_says_and_no_other_number_claim_or_quote():
    assert judged("Start LoRA with a learning rate of 2e-4 [1].")[0]["holds"]
    assert not judged("Start LoRA with a learning rate of 3e-4 [1].")[0]["holds"]
    assert not judged("Rank 16 was chosen by a committee in Geneva after long debates [1].")[0]["holds"]
    assert not judged("Rank 16 fits most tasks [1].", quote="Rank 16 fits every task.")[0]["holds"]
    uncited = judged("Rank 16 fits most tasks.")[0]
    assert uncited["cited"] == [] and not uncited["holds"] and not uncited["supported"]


def test_the_second_judge_reads_simplified_answers_beside_traditional_passages():
    said = judged(
        "LoRA 的学习率从 2e-4 开始[1]。",
        "LoRA 的學習率從 2e-4 開始。",
        "zh-CN",
        "LoRA 的學習率從 2e-4 開始。",
    )
    assert said[0]["holds"]


def test_the_figures_count_what_the_rows_say():
    sentence = {"cited": [1], "supported": True, "holds": True}
    row = {
        "answerable": True, "refused": False, "has_gold": True, "gold_in_answer": True, "gold_in_cited": True,
        "sentences": [sentence, sentence | {"holds": False}, {"cited": [], "supported": False, "holds": False}],
        "first_seconds": 1.0, "seconds": 2.0,
    }  # fmt: skip
    wrongly = row | {"refused": True, "gold_in_answer": None, "gold_in_cited": None, "sentences": []}
    strange = wrongly | {"answerable": False, "has_gold": False}
    found = scores([row, wrongly, strange, strange | {"refused": False}])
    assert found["citation_precision"] == 1.0 and found["citation_precision_second_judge"] == 0.5
    assert found["citation_recall"] == 0.6667 and found["unsupported"] == 0.3333
    assert found["gold_in_answer"] == 0.5  # a refused question holds no fact
    assert found["refusal_precision"] == found["refusal_recall"] == found["answerable_refused"] == 0.5
    assert scores([])["citation_precision"] is None


def test_a_question_is_measured_with_all_that_the_figures_come_from(index):
    row = measured(
        index, Asked("1", "Which learning rate for LoRA?", "en", "lookup", "2e-4"), Settings("extract")
    )
    assert row["answerable"] and not row["refused"] and row["gold_in_answer"] and row["gold_in_cited"]
    assert len(row["sentences"]) >= 2 and all(s["supported"] and s["holds"] for s in row["sentences"])
    assert 0 < row["first_seconds"] <= row["seconds"]
    assert set(row["answer"]["citations"][0]) >= {"marker", "id", "page", "quote", "support"}


def test_quoted_answers_cite_what_holds_them_by_both_judges(index):
    golden = load(HERE / "golden.yaml")[::9]
    found = evaluate.evaluate(index, golden, Settings("extract"), lambda *_: None)
    assert found["all"]["citation_precision"] >= 0.95
    assert found["all"]["citation_precision_second_judge"] >= 0.95
    assert found["all"]["unsupported"] <= 0.05 and found["all"]["gold_in_answer"] >= 0.55
    assert set(found["by_lang"]) == {"en", "zh-CN", "zh-TW"} and found["all"]["questions"] == len(golden)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [("a.yaml", "q: one", "expected a list"), ("a.yaml", "- {kind: x}", "row 1 has no question"),
     ("a.yaml", "- {q: why, gold: '('}", "row 1: gold is no regular expression"),
     ("a.jsonl", '{"q": "why"\n', "not readable"), ("a.yaml", "[", "not readable"), ("a.yaml", "", "expected a list")],
)  # fmt: skip
def test_a_file_that_is_no_set_is_told_in_one_line(tmp_path, name, text, complaint):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=complaint) as told:
        load(tmp_path / name)
    assert "\n" not in str(told.value)


def test_only_the_question_is_needed(tmp_path):
    (tmp_path / "own.jsonl").write_text(
        json.dumps({"q": "LoRA 的 rank 要設多少？"})
        + "\n\n"
        + json.dumps({"q": "why?", "kind": "unanswerable"})
    )
    first, second = load(tmp_path / "own.jsonl")
    assert (first.id, first.lang, first.kind, first.gold) == ("1", "zh-TW", "", "")
    assert second.id == "2" and second.lang == "en"
    with pytest.raises(UserError, match="give a file"):
        load(tmp_path / "none.yaml")


def test_questions_near_the_topic_are_half_answerable_and_evenly_split():
    rows = yaml.safe_load((HERE / "near.yaml").read_text(encoding="utf-8"))
    for known in (True, False):
        for split in ("dev", "test"):
            assert 19 <= sum((r["kind"] == "near") == known and r["split"] == split for r in rows) <= 21
    assert all(("pages" in row) == (row["kind"] == "near") for row in rows)
    assert len({row["q"] for row in rows}) == len(rows) and all(
        re.fullmatch(r"[an]\d\d", r["id"]) for r in rows
    )
