"""Score models/<version> on data/<version>/test.jsonl → benchmarks/<version>.json.

Answers that are labels: accuracy and macro-F1; other answers: exact match and perplexity; pairs: how often the chosen
answer is the likelier one a token; raw text: perplexity.
"""

from __future__ import annotations

import json
import math
import re

import torch
from common import ROOT, base_model, load_model, load_tokenizer, read_config, read_rows
from transformers import GenerationConfig

THOUGHT = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)
config = read_config()
folder = ROOT / "models" / config["version"]
if config["peft"]:
    from peft import PeftModel

    base = load_model(base_model(config), config, training=False)
    model, tokenizer = PeftModel.from_pretrained(base, folder / "adapter"), load_tokenizer(folder / "adapter")
else:
    model = load_model(str(folder / "model"), config, training=False)
    tokenizer = load_tokenizer(str(folder / "model"))
model.eval()
rows = read_rows(ROOT / config["data"] / "test.jsonl")


def render(messages: list[dict], **options) -> list[int]:
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **options)["input_ids"]


def answer(row: dict, room: int) -> str:
    """The greedy answer to one row, thoughts left out."""
    ids = render(row["prompt"], add_generation_prompt=True, enable_thinking=False)
    stops = model.generation_config.eos_token_id
    stops = {*(stops if isinstance(stops, list) else [stops]), tokenizer.eos_token_id} - {None}
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=room, pad_token_id=tokenizer.pad_token_id, eos_token_id=sorted(stops)
    )
    given = torch.tensor([ids], device=model.device)
    with torch.inference_mode():
        made = model.generate(
            input_ids=given, attention_mask=torch.ones_like(given), generation_config=settings
        )
    return tokenizer.decode(made[0, len(ids) :], skip_special_tokens=True).strip()


def logprob(row: dict, ending: str) -> tuple[float, int]:
    """(summed log-probability, tokens) of an ending."""
    if ending == "text":
        ids, start = tokenizer(row["text"])["input_ids"] + [tokenizer.eos_token_id], 1
    else:
        prompt, ids = render(row["prompt"], add_generation_prompt=True), render(row["prompt"] + row[ending])
        start = max(
            1, next((i for i, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b), len(prompt))
        )
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0, start - 1 : -1].float()
    targets = torch.tensor(ids[start:], device=logits.device)
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
    return -loss, max(1, len(ids) - start)


def perplexity(ending: str) -> float:
    found = [logprob(row, ending) for row in rows]
    return math.exp(-sum(total for total, _ in found) / sum(count for _, count in found))


def label_of(text: str) -> str:
    """The label that an output names, give or take case and punctuation around it."""
    text = THOUGHT.sub("", text).strip()
    bare = lambda s: re.sub(r"^\W+|\W+$", "", s).casefold()
    same = [name for name in config["labels"] if bare(name) == bare(text)]
    return text if text in config["labels"] else same[0] if same and bare(text) else "other"


scores: dict = {"n": len(rows), "base_model": config["base_model"], "method": config["method"]}
predictions = []
if rows and config["labels"]:
    from sklearn.metrics import accuracy_score, f1_score

    empty = len(render([{"role": "user", "content": "?"}], add_generation_prompt=True))
    room = max(
        len(render([{"role": "user", "content": "?"}, {"role": "assistant", "content": name}])) - empty
        for name in config["labels"]
    )
    predictions = [answer(row, room) for row in rows]
    expected = [row["completion"][-1]["content"] for row in rows]
    found = [label_of(text) for text in predictions]
    scores["accuracy"] = float(accuracy_score(expected, found))
    present = sorted(set(expected))
    scores["macro_f1"] = float(f1_score(expected, found, labels=present, average="macro", zero_division=0))
    scores["parse_failures"] = found.count("other")
elif rows and "chosen" in rows[0]:
    pairs = [(logprob(row, "chosen"), logprob(row, "rejected")) for row in rows]
    scores["accuracy"] = sum(a / m > b / n for (a, m), (b, n) in pairs) / len(rows)
elif rows and "text" in rows[0]:
    scores["perplexity"] = perplexity("text")
elif rows:
    scores["perplexity"] = perplexity("completion")
    if "label" not in rows[0]:
        predictions = [answer(row, config["max_new_tokens"]) for row in rows]
        right = sum(
            text == row["completion"][-1]["content"].strip()
            for text, row in zip(predictions, rows, strict=True)
        )
        scores["exact_match"] = right / len(rows)

(ROOT / "benchmarks").mkdir(exist_ok=True)
out = ROOT / "benchmarks" / f"{config['version']}.json"
out.write_text(json.dumps(scores, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
if predictions:
    with (ROOT / "benchmarks" / f"{config['version']}.predictions.jsonl").open("w", encoding="utf-8") as file:
        for row, text in zip(rows, predictions, strict=True):
            wanted = row["completion"][-1]["content"]
            file.write(json.dumps({"expected": wanted, "output": text}, ensure_ascii=False) + "\n")
print(json.dumps(scores, ensure_ascii=False))
