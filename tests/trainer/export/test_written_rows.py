"""Rows written by a GGUF file in llama.cpp: the schema holds whatever the model would rather say."""

import json

from trainer.data.propose import generate
from trainer.data.review import read_review
from trainer.export.llamacpp import LlamaCpp


def test_a_random_model_writes_rows_of_the_schema_or_none(tiny_gguf, tmp_path):
    path = tmp_path / "d.jsonl"
    rows = [{"text": f"the room number {n} was clean", "label": "good" if n else "bad"} for n in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with LlamaCpp(tiny_gguf("qwen3"), threads=1) as engine:
        ask = lambda messages, schema, seed: "".join(engine.chat(messages, 120, 1.0, schema))
        found = generate(path, tmp_path / "r.jsonl", ask, "tiny", least=3, most=2)
    assert found.made + sum(found.thrown.values()) >= 2
    if found.made:  # what a random model says need not end within its 120 tokens
        assert all(set(one["record"]) == {"text", "label"} for one in read_review(tmp_path / "r.jsonl"))
