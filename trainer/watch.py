"""What a curve shows while it grows: not a number, divergence, overfitting, no learning, a slowdown; each with its page.

The measures are those of kb/facts/measures.yaml that metrics.jsonl yields, the conditions those of symptoms.yaml, so
that a run is judged alike while it trains and when it has ended. Called by the worker, the Runs tab and `run show`.
No torch.
"""

from __future__ import annotations

import operator
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kb.facts import Symptom, Text, table
from trainer.config import STARTER, RunConfig
from trainer.runs import RunFolder

# Symptoms that a growing curve can show; the others need the end of the run, its rows or its answers.
LIVE = (
    "nan-loss", "overfitting", "loss-not-falling", "loss-spikes", "training-hangs", "dpo-collapse", "easy-pairs",
)  # fmt: skip
LEAST_POINTS = 10  # of the training loss, before its shape is judged; NaN is told at once
LEAST_EVALUATIONS = 3
BOUNDS = {"min": operator.ge, "max": operator.le, "gt": operator.gt, "lt": operator.lt, "not": operator.ne}
PREFERENCE = ("dpo", "orpo", "simpo", "kto")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Flag:
    """A symptom that the curve shows: names and sentences by language, the page, the measures that met its condition."""

    symptom: str
    name: dict[str, str]
    text: dict[str, str]
    remedy: dict[str, str]
    page: str
    measured: dict[str, float]


def flags(folder: RunFolder) -> list[Flag]:
    """What the run's curve shows now, in the order of LIVE. An empty list for a damaged run."""
    if folder.fault():
        return []
    return judge(measures(folder.metrics(), folder.config()))


def judge(measured: Mapping[str, float | None]) -> list[Flag]:
    """The live symptoms of which a signal holds for these measures; None meets no condition."""
    rows: dict[str, Symptom] = {row.id: row for row in table("symptoms")}
    found = []
    for row in (rows[name] for name in LIVE if name in rows):
        for signal in row.signals:
            known = signal.when and all(name in measured for name in signal.when)
            if known and all(_holds(wanted, measured[name]) for name, wanted in signal.when.items()):
                values = {name: float(measured[name] or 0) for name in signal.when}
                texts = [_plain(text) for text in (row.name, signal.text, row.remedies[0].text)]
                found.append(Flag(row.id, *texts, row.page, values))
                break
    return found


def _plain(text: Text) -> dict[str, str]:
    return {lang: text.get(lang) for lang in ("en", "zh-TW")}


def _holds(wanted: Any, actual: float | None) -> bool:
    if actual is None:
        return False
    if isinstance(wanted, Mapping):
        return all(BOUNDS[bound](actual, limit) for bound, limit in wanted.items())
    return actual == wanted


def measures(rows: Sequence[Row], config: RunConfig) -> dict[str, float | None]:
    """The measures of the curve so far; None where it does not say yet."""
    points = [row for row in rows if "loss" in row]
    losses = [row["loss"] for row in points if row["loss"] is not None]
    evaluations = [row for row in rows if row.get("eval_loss") is not None]
    found: dict[str, float | None] = {
        "steps": max((row["step"] for row in rows), default=0),
        "nan_steps": sum(row["loss"] is None for row in points),
        "learning_rate": config.learning_rate,
        "full_training": float(config.peft == "full"),
        "pretrained_base": float(config.base_model != STARTER),
        "preference_training": float(config.method in PREFERENCE),
    }
    return {
        **found,
        **_of_losses(losses),
        **_of_norms([row["grad_norm"] for row in points if row.get("grad_norm") is not None]),
        **_of_evaluations(evaluations, losses),
        **_of_times(rows, points),
        **_of_rewards(points, config.beta or 0.0),
    }


def ends(values: Sequence[float]) -> tuple[float, float]:
    """Means of the first and the last tenth, at least one point each."""
    part = max(1, len(values) // 10)
    return statistics.fmean(values[:part]), statistics.fmean(values[-part:])


def _of_losses(losses: Sequence[float]) -> dict[str, float | None]:
    names = ("loss_first", "loss_last", "loss_drop", "loss_spike")
    if len(losses) < LEAST_POINTS:
        return dict.fromkeys(names)
    first, last = ends(losses)
    median = statistics.median(losses)
    later = losses[max(1, len(losses) // 10) :]
    spike = max(later) / median if median > 0 else None
    return dict(zip(names, (first, last, (first - last) / first if first > 0 else None, spike), strict=True))


def _of_norms(norms: Sequence[float]) -> dict[str, float | None]:
    if len(norms) < LEAST_POINTS:
        return {"grad_norm_max": None, "grad_norm_ratio": None}
    median = statistics.median(norms)
    return {"grad_norm_max": max(norms), "grad_norm_ratio": max(norms) / median if median > 0 else None}


def _of_evaluations(evaluations: Sequence[Row], losses: Sequence[float]) -> dict[str, float | None]:
    names = ("eval_loss_rise", "eval_best_at", "train_eval_gap")
    if len(evaluations) < LEAST_EVALUATIONS or not losses:
        return dict.fromkeys(names)
    best, last = min(evaluations, key=lambda row: row["eval_loss"]), evaluations[-1]
    _, trained = ends(losses)
    rise = last["eval_loss"] / best["eval_loss"] - 1 if best["eval_loss"] > 0 else None
    gap = last["eval_loss"] / trained - 1 if trained > 0 else None
    return dict(zip(names, (rise, best["step"] / last["step"] if last["step"] else None, gap), strict=True))


def _of_times(rows: Sequence[Row], points: Sequence[Row]) -> dict[str, float | None]:
    rates = [row["tokens_per_second"] for row in points if row.get("tokens_per_second")]
    part = len(rates) // 5
    kept = None
    if len(rates) >= LEAST_POINTS:
        kept = statistics.median(rates[-part:]) / statistics.median(
            rates[1 : part + 1]
        )  # the first loads kernels
    spent = sum(row.get("eval_runtime") or 0.0 for row in rows)
    whole = rows[-1]["time"] - rows[0]["time"] if len(rows) > 1 else 0.0
    return {"tokens_per_second_kept": kept, "eval_time_share": min(1.0, spent / whole) if whole > 0 else None}


def _of_rewards(points: Sequence[Row], beta: float) -> dict[str, float | None]:
    def series(name: str) -> list[float]:
        return [row[name] for row in points if row.get(name) is not None]

    accuracies, margins, chosen = (series(f"rewards/{name}") for name in ("accuracies", "margins", "chosen"))
    enough = len(accuracies) >= LEAST_POINTS
    return {
        "reward_accuracy_first": ends(accuracies)[0] if enough else None,
        "reward_accuracy": ends(accuracies)[1] if enough else None,
        "reward_margin": ends(margins)[1] if len(margins) >= LEAST_POINTS else None,
        "chosen_logp_drop": -ends(chosen)[1] / beta if len(chosen) >= LEAST_POINTS and beta else None,
    }
