"""Scores of a run on its frozen test rows, beside the majority class and the untrained base.

Last stage of a run, or a job of its own. Writes RUN/eval/metrics.json and predictions.jsonl. The measures
are scikit-learn's; the interval is Wilson's.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from trainer import classifier
from trainer.baseline import with_examples
from trainer.config import RunConfig, UserError, write_atomic
from trainer.data.convert import Row
from trainer.data.stage import read_rows, thaw
from trainer.generate import answer_room, answers, load_for_inference, logprobs
from trainer.messages import coded
from trainer.methods import METHODS, rewards
from trainer.runs import RunFolder

OTHER = "other"  # an output that is none of the labels
THOUGHT = re.compile(r"\A\s*<think>.*?</think>\s*", re.DOTALL)


def evaluate(
    folder: RunFolder, which: str = "tuned", should_stop: Callable[[], bool] = lambda: False,
    examples: Sequence[Row] = (),
) -> dict[str, Any]:  # fmt: skip
    """Measure the "tuned" or the "base" model of a run on RUN/data/test.jsonl; returns the whole metrics.json.

    "few_shot" is the base model with `examples` before each question.

    {"task": "classification" | "generation" | "text" | "pairs" | "verdicts" | "prompts", "n", "labels", "majority",
    "tuned", "base"}; runs on rewards have "reward", their mean; classification has accuracy with its 95 % interval, macro_f1, per_class, confusion
    (rows: expected, columns: predicted, labels then "other"), parse_failures. Raises UserError, Stopped.
    """
    config = folder.config()
    staged = thaw(folder.path / "data")
    if staged is None:
        raise UserError(f"{folder.id}: has no frozen rows yet; train the run first")
    rows, labels = staged.splits.test, staged.card["labels"]
    scores = folder.scores()
    task = _task(rows, labels)
    scores |= {"task": task, "n": len(rows), "labels": labels if task == "classification" else None}
    if not rows:
        scores[which] = {}
        return _write(folder, scores)
    if task == "classification" and "majority" not in scores:
        train_labels = Counter(_expected(row) for row in read_rows(folder.path / "data" / "train.jsonl"))
        common = train_labels.most_common(1)[0][0]
        expected = [_expected(row) for row in rows]
        scores["majority"] = {"label": common, **classification([common] * len(rows), expected, labels)}
    began = time.monotonic()
    folder.set_status(**coded("scoring_tuned" if which == "tuned" else "scoring_base", rows=len(rows)))
    model, tokenizer, device = load_for_inference(folder, config, which)
    if examples:
        rows = [with_examples(row, list(examples)) for row in rows]
    measured, predictions = _measure(task, which, model, tokenizer, rows, labels, config, should_stop)
    scores[which] = {**measured, "seconds": round(time.monotonic() - began, 2), "device": device}
    if predictions is not None and which != "few_shot":
        _write_predictions(folder, rows, predictions, which)
    return _write(folder, scores)


def _task(rows: list[Row], labels: list[str] | None) -> str:
    first = rows[0] if rows else {}
    if "text" in first:
        return "text"
    if first and first.keys() <= {"prompt", "tools"}:
        return "prompts"
    if "chosen" in first:
        return "pairs"
    if "label" in first:
        return "verdicts"
    return "classification" if labels else "generation"


def _measure(
    task: str, which: str, model: Any, tokenizer: Any, rows: list[Row], labels: list[str] | None, config: RunConfig,
    should_stop: Callable[[], bool],
) -> tuple[dict[str, Any], list[str] | None]:  # fmt: skip
    output = METHODS[config.method].output if which == "tuned" else "text"
    if output == "labels":
        outputs = classifier.predict(model, tokenizer, rows, config.max_length, should_stop)
        return classification(outputs, [_expected(row) for row in rows], labels), outputs
    if output == "score":
        better, worse = (
            classifier.scores(model, tokenizer, rows, ending, config.max_length, should_stop)
            for ending in ("chosen", "rejected")
        )
        return pairs(better, worse), None
    if task == "classification":
        room = answer_room(tokenizer, labels)
        # A hybrid model untrained on the task would spend its room on thoughts.
        outputs = answers(model, tokenizer, rows, room, should_stop, thinking=False)
        predicted = [as_label(text, labels) for text in outputs]
        measured = classification(predicted, [_expected(row) for row in rows], labels)
        return measured | rewarded(config, rows, outputs), outputs
    if task == "prompts":
        outputs = answers(model, tokenizer, rows, config.max_new_tokens, should_stop, thinking=False)
        return rewarded(config, rows, outputs), outputs
    if task == "pairs":
        better, worse = (
            [total / count for total, count in logprobs(model, tokenizer, rows, ending, should_stop)]
            for ending in ("chosen", "rejected")
        )
        return pairs(better, worse), None
    if task == "verdicts":
        found = logprobs(model, tokenizer, rows, "completion", should_stop)
        good = [pair for pair, row in zip(found, rows, strict=True) if row["label"]]
        bad = [pair for pair, row in zip(found, rows, strict=True) if not row["label"]]
        return {"good": perplexity(good), "bad": perplexity(bad)}, None
    measured = perplexity(
        logprobs(model, tokenizer, rows, "text" if task == "text" else "completion", should_stop)
    )
    if task == "text":
        return measured, None
    outputs = answers(model, tokenizer, rows, config.max_new_tokens, should_stop, thinking=False)
    right = sum(text == _expected(row).strip() for text, row in zip(outputs, rows, strict=True))
    measured |= {"exact_match": right / len(rows), "interval": list(wilson(right, len(rows)))}
    return measured | rewarded(config, rows, outputs), outputs


def rewarded(config: RunConfig, rows: list[Row], outputs: list[str]) -> dict[str, float]:
    """The mean weighted reward of the answers, for a run that trains on rewards."""
    if config.method not in ("grpo", "rloo"):
        return {}
    found = rewards.total(rewards.parse(config.rewards), rows, outputs, rewards.labels_of(rows))
    return {"reward": sum(found) / len(rows)}


def pairs(better: list[float], worse: list[float]) -> dict[str, Any]:
    """How often the chosen answer is above the rejected one, and by how much in the mean."""
    wins = sum(a > b for a, b in zip(better, worse, strict=True))
    margin = sum(a - b for a, b in zip(better, worse, strict=True)) / len(better)
    return {"accuracy": wins / len(better), "interval": list(wilson(wins, len(better))), "margin": margin}


def classification(predicted: list[str], expected: list[str], labels: list[str]) -> dict[str, Any]:
    """scikit-learn's measures of predicted labels. Macro-F1 is over the labels that the test set holds."""
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

    present = sorted(set(expected))
    precision, recall, f1, support = precision_recall_fscore_support(
        expected, predicted, labels=present, zero_division=0
    )
    right = sum(a == b for a, b in zip(predicted, expected, strict=True))
    return {
        "accuracy": float(accuracy_score(expected, predicted)),
        "interval": list(wilson(right, len(expected))),
        "macro_f1": float(f1.mean()),
        "per_class": {
            label: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
            for label, p, r, f, n in zip(present, precision, recall, f1, support, strict=True)
        },
        "confusion": confusion_matrix(expected, predicted, labels=[*labels, OTHER]).tolist(),
        "parse_failures": predicted.count(OTHER),
    }


def as_label(output: str, labels: list[str]) -> str:
    """The label that an output names, give or take case and punctuation around it; "other" for none."""
    text = THOUGHT.sub("", output).strip()
    if text in labels:
        return text
    bare = _bare(text)
    return next((label for label in labels if _bare(label) == bare), OTHER) if bare else OTHER


def _bare(text: str) -> str:
    return re.sub(r"^\W+|\W+$", "", text).casefold()


def wilson(right: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): honest for small n and shares near 0 or 1."""
    if not n:
        return 0.0, 1.0
    share, square = right / n, z * z / n
    centre = share + square / 2
    spread = z * math.sqrt(share * (1 - share) / n + square / (4 * n))
    return max(0.0, (centre - spread) / (1 + square)), min(1.0, (centre + spread) / (1 + square))


def perplexity(found: list[tuple[float, int]]) -> dict[str, float | None]:
    """Mean loss in nats a token over (summed log-probability, tokens), and its exponential."""
    tokens = sum(count for _, count in found)
    if not tokens:
        return {"loss": None, "perplexity": None}
    loss = -sum(total for total, _ in found) / tokens
    return {"loss": loss, "perplexity": math.exp(min(loss, 50.0))}


def _expected(row: Row) -> str:
    return row["completion"][-1]["content"]


def _write(folder: RunFolder, scores: dict[str, Any]) -> dict[str, Any]:
    write_atomic(folder.path / "eval" / "metrics.json", json.dumps(scores, ensure_ascii=False, indent=1))
    return scores


def _write_predictions(folder: RunFolder, rows: list[Row], outputs: list[str], which: str) -> None:
    """One line a test row, with both models' outputs once both were measured."""
    path = folder.path / "eval" / "predictions.jsonl"
    before = read_rows(path) if path.is_file() else []
    column = "predicted" if which == "tuned" else "base_predicted"
    lines = []
    for index, (row, output) in enumerate(zip(rows, outputs, strict=True)):
        expected = _expected(row) if "completion" in row else None
        line = {"row": index, "prompt": row["prompt"][-1]["content"], "expected": expected}
        old = before[index] if index < len(before) else {}
        line |= {name: old[name] for name in ("predicted", "base_predicted") if name in old}
        lines.append(json.dumps({**line, column: output}, ensure_ascii=False) + "\n")
    write_atomic(path, "".join(lines))
