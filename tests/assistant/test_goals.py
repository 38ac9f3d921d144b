"""What is wanted of the result changes the advice or is warned of; what a data file measures is used."""

import json

import pytest

from assistant import recommend as advice
from assistant.goals import goals_in
from assistant.recommend import recommend, situation, to_json

BASE = {"task": "classification", "rows": 6000, "language": "en", "gpu_name": "RTX 4090"}


def warned(**have):
    return "\n".join(to_json(recommend(situation({**BASE, **have})))["warnings"])


@pytest.mark.parametrize(
    ("words", "goals"),
    [
        ("must answer in under 50 ms, will be served on CPU", {"latency_ms": 50, "serve_on": "cpu"}),
        ("準確率要達到 95%，部署在手機上，3 天內完成", {"metric": "accuracy", "metric_target": 0.95, "serve_on": "phone", "deadline_hours": 72}),
        ("at least 0.85 macro-F1 by tomorrow", {"metric": "macro-f1", "metric_target": 0.85, "deadline_hours": 12}),
        ("模型要能商用，回應 1 秒內", {"latency_ms": 1000, "licence": "commercial"}),
        ("Apache-2.0 only, within 6 hours", {"licence": "permissive", "deadline_hours": 6}),
        ("for non-commercial research", {}),
        ("5000 reviews, RTX 4090", {}),
    ],
)  # fmt: skip
def test_goals_are_read_out_of_words(words, goals):
    assert goals_in(words) == goals


@pytest.mark.parametrize(
    ("have", "words"),
    [
        ({"latency_ms": 5}, "Latency"), ({"serve_gb": 1.5, "wanted_model": "Qwen3-8B"}, "Serving"),
        ({"serve_on": "phone", "wanted_model": "Qwen3-8B"}, "phone"), ({"deadline_hours": 0.1}, "Deadline"),
        ({"deadline_hours": 0.1, "sensitive": True}, "may not leave your machines"),
        ({"metric": "bleu"}, "does not measure"), ({"metric": "accuracy", "class_ratio": 9}, "misleads"),
        ({"metric": "accuracy", "task": "summarization"}, "many right ones"), ({"metric_target": 0.9}, "tunesmith baseline"),
        ({"metric_target": 0.9, "rows": 600}, "points on 120 test rows"), ({"metric_target": 0.99}, "labels allow"),
        ({"licence": "commercial", "wanted_model": "Qwen/Qwen2.5-3B-Instruct"}, "licence forbids"),
        ({"licence": "permissive", "wanted_model": "Llama-3.1-8B-Instruct"}, "permissive"),
        ({"licence": "commercial", "wanted_model": "Llama-3.1-8B-Instruct"}, "has conditions"),
        ({"licence": "commercial", "wanted_model": "my/own-7b"}, "not in the table"),
    ],
)  # fmt: skip
def test_each_goal_that_cannot_be_met_is_told(have, words):
    assert words in warned(**have)


def test_goals_that_are_met_say_nothing():
    told = warned(latency_ms=5000, serve_gb=16, deadline_hours=500, metric="macro-f1", licence="commercial")
    assert not any(word in told for word in ("Latency", "Serving", "Deadline", "misleads", "licence"))


def test_serving_and_latency_choose_a_smaller_model():
    size = lambda **have: recommend(situation({**BASE, "task": "chat", **have})).model_b
    assert size(serve_gb=4) <= 4.4 < size() and size(serve_on="phone") < 2
    assert size(latency_ms=2000) < size() and size(serve_on="cpu", latency_ms=2000) < size(latency_ms=2000)


def test_labels_may_be_better_answered_by_a_head():
    def head(**have):
        found = to_json(recommend(situation({**BASE, **have})))["alternatives"]
        (one,) = [item for item in found if item.get("method") == "classification"]
        assert one["citation"]["anchor"] == "classification-head"
        return one["rule"], one["because"]

    assert head()[0] == "alt-classification-head"
    assert "better answer" in head(latency_ms=20)[1] and head(serve_on="cpu")[0] == "alt-head-serving"


def rows_file(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_what_a_data_file_measures_is_told(tmp_path):
    rows = [{"text": f"review {n} " + "good " * (n % 9), "label": ("good", "bad")[n % 2]} for n in range(600)]
    rows += [{"text": "the same words", "label": "good"}] * 40
    rows += [{"text": "torn", "label": "good"}, {"text": "torn", "label": "bad"}]
    rows += [{"text": f"rare {n}", "label": "odd"} for n in range(3)]
    data = rows_file(tmp_path / "reviews.jsonl", rows)
    test = rows_file(
        tmp_path / "test.jsonl", [{"text": f"t {n}", "label": ("good", "new")[n % 2]} for n in range(30)]
    )
    told = "\n".join(advice.from_inputs({"gpu_name": "RTX 4090"}, data=data, test=test).warnings)
    for words in ("repeat an earlier row", "same text under different labels", "lack: new", "lacks labels that are trained: bad, odd", "only 30 rows"):  # fmt: skip
        assert words in told, (words, told)
    alone = advice.from_inputs({"gpu_name": "RTX 4090"}, data=data)
    assert "it may have none" in "\n".join(alone.warnings) and "test_file" not in alone.run


def test_tokens_are_counted_with_the_models_own_tokenizer_where_it_is_here(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "own-7b").mkdir()
    words.save(str(tmp_path / "own-7b" / "tokenizer.json"))
    rows = [{"text": f"review number {n}", "label": ("good", "bad")[n % 2]} for n in range(300)]
    data = rows_file(tmp_path / "reviews.jsonl", rows)
    given = situation({"base_model": str(tmp_path / "own-7b"), "gpus": 0})
    _, measured = advice.on_file(given, None, data)
    assert (
        measured.tokenizer.endswith("tokenizer.json")
        and measured.tokens.max == 4
        and measured.loss_share == 0.25
    )
    _, estimated = advice.on_file(situation({"base_model": "Qwen/Qwen3-8B"}), None, data)
    assert estimated.tokenizer == "" and estimated.tokens != measured.tokens
