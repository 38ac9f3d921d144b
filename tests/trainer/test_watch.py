"""What a growing curve shows: every live symptom on a curve that has it, none on one that has not."""

import json

import pytest

from kb.facts import table
from trainer import runs, watch
from trainer.config import RunConfig

CONFIG = RunConfig(task="t", base_model="starter", train_file="x", device="cpu")


def falling(n=40, top=2.0, bottom=0.4):
    return [top - (top - bottom) * i / (n - 1) for i in range(n)]


def rows(losses, evals=(), **series):
    points = [
        {"step": 5 * (i + 1), "time": 10.0 * i, "attempt": 1, "loss": loss, "grad_norm": 1.0,
         **{name: values[i] for name, values in series.items()}}
        for i, loss in enumerate(losses)
    ]  # fmt: skip
    every = max(1, len(points) // max(len(evals), 1))
    for i, value in enumerate(evals):
        at = points[min(len(points), (i + 1) * every) - 1]
        points.append({"step": at["step"], "time": at["time"], "attempt": 1, "eval_loss": value})
    return sorted(points, key=lambda row: row["step"])


CURVES = {
    "healthy": (rows(falling(), [1.5, 1.0, 0.8, 0.7]), []),
    "too short to say": (rows([2.0, 2.0, 2.0]), []),
    "not a number": (rows([2.0, 1.5, None]), ["nan-loss"]),
    "diverging": (rows([2.0] * 20 + [2.0 + i for i in range(20)]), ["nan-loss"]),
    "overfitting": (rows(falling(), [1.5, 0.9, 1.0, 1.3]), ["overfitting"]),
    "flat": (rows([2.0, 2.01] * 15), ["loss-not-falling"]),
    "no gradient": (rows(falling(), grad_norm=[0.0] * 40), ["loss-not-falling"]),
    "a spike": (rows([*falling(20), 3.0, *falling(19, 1.0)]), ["loss-spikes"]),
    "slower": (rows(falling(), tokens_per_second=[1000.0] * 20 + [300.0] * 20), ["training-hangs"]),
    "pairs at once": (
        rows(falling(), **{"rewards/accuracies": [1.0] * 40, "rewards/margins": [3.0] * 40}), ["dpo-collapse"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_shows_what_it_has(name):
    curve, expected = CURVES[name]
    assert [flag.symptom for flag in watch.judge(watch.measures(curve, CONFIG))] == expected


def test_every_live_symptom_is_one_of_the_tables_and_can_be_told():
    measured = watch.measures(CURVES["healthy"][0], CONFIG)
    known = {row.id: row for row in table("symptoms")}
    for name in watch.LIVE:
        assert any(signal.when and set(signal.when) <= set(measured) for signal in known[name].signals), name


def test_a_flag_has_its_page_and_both_languages(tmp_path):
    run = runs.create(tmp_path, CONFIG)
    for row in CURVES["overfitting"][0]:
        run.append_metric(row)
    (flag,) = watch.flags(run)
    assert flag.page.startswith("troubleshooting/overfitting")
    assert flag.name == {"en": "Overfitting", "zh-TW": "過擬合"} and flag.text["zh-TW"] and flag.remedy["en"]
    assert flag.measured["eval_loss_rise"] > 0.05


def test_a_loop_that_went_back_within_an_attempt_counts_once(tmp_path):
    run = runs.create(tmp_path, CONFIG)
    for step in (1, 2, 3, 4, 3, 4, 5):
        run.append_metric({"step": step, "loss": float(step)})
    run.append_metric({"step": 5, "eval_loss": 1.0})
    assert [row["step"] for row in run.metrics()] == [1, 2, 3, 4, 5, 5]
    assert json.loads((run.path / "metrics.jsonl").read_text().splitlines()[0])["step"] == 1
