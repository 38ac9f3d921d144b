"""Sweeps: what is asked for becomes runs; their table, and the best with what may be chance."""

import json

import pytest

from trainer import runs, sweeps
from trainer.config import RunConfig, UserError

CONFIG = RunConfig(task="reviews", base_model="starter", train_file="x.tsv", device="cpu")


def test_a_grid_is_every_combination_with_typed_values(tmp_path):
    fields = sweeps.parse(["learning_rate=1e-4,2e-4", "r=8,16", "peft=lora"])
    sweep, made = sweeps.create(tmp_path, CONFIG, fields)
    assert sweep.id == "reviews/s1" and sweep.runs == [f"reviews/v{n}" for n in range(1, 5)]
    values = [(run.config().learning_rate, run.config().r) for run in made]
    assert values == [(1e-4, 8), (1e-4, 16), (2e-4, 8), (2e-4, 16)]
    assert made[0].lineage()["sweep"] == "reviews/s1" and made[0].lineage()["swept"]["r"] == 8
    assert sweeps.load(tmp_path, "reviews/s1") == sweep
    assert sweeps.create(tmp_path, CONFIG, sweeps.parse(["seed=1,2"]))[0].id == "reviews/s2"
    assert sweeps.all_sweeps(tmp_path) == ["reviews/s2", "reviews/s1"]


def test_a_random_search_draws_from_ranges_and_is_the_same_for_a_seed():
    fields = sweeps.parse(["learning_rate=1e-5..1e-3", "r=4..64", "use_rslora=true,false"])
    drawn = sweeps.combinations(fields, 60, seed=3)
    assert drawn == sweeps.combinations(fields, 60, seed=3) != sweeps.combinations(fields, 60, seed=4)
    rates = [one["learning_rate"] for one in drawn]
    assert all(1e-5 <= rate <= 1e-3 for rate in rates) and 15 < sum(rate < 1e-4 for rate in rates) < 45
    assert all(isinstance(one["r"], int) and 4 <= one["r"] <= 64 for one in drawn)
    assert len(sweeps.combinations(sweeps.parse(["r=1,2"]), 10)) == 2  # not more than there are


@pytest.mark.parametrize(
    ("settings", "count", "said"),
    [
        (["lr=1"], None, "no field 'lr'"),
        (["r"], None, "FIELD=VALUE"),
        (["r="], None, "FIELD=VALUE"),
        ([], None, "needs a field"),
        (["task=a,b"], None, "share task and data"),
        (["r=low..high"], None, "two numbers"),
        (["r=4..64"], None, "--random N"),
        (["r=0,8"], None, "r = 0"),
        (["peft=lora,magic"], None, "peft = 'magic'"),
        (["seed=" + ",".join(map(str, range(300)))], None, "200 is the most"),
    ],
)
def test_what_makes_no_sweep_is_told_in_a_line_and_leaves_no_run(tmp_path, settings, count, said):
    with pytest.raises(UserError, match=said) as caught:
        sweeps.create(tmp_path, CONFIG, sweeps.parse(settings), count)
    assert (
        "\n" not in str(caught.value) and runs.all_runs(tmp_path) == [] and sweeps.all_sweeps(tmp_path) == []
    )


def test_the_best_is_named_with_what_is_not_told_apart_from_it(tmp_path):
    sweep, made = sweeps.create(tmp_path, CONFIG, sweeps.parse(["r=4,8,16,32"]))
    assert sweeps.best(sweeps.table(tmp_path, sweep)) is None
    for run, accuracy in zip(made, (0.70, 0.90, 0.86, None), strict=True):
        run.append_metric({"step": 5, "eval_loss": 1.0})
        if accuracy is None:
            run.set_status(state="failed")
            continue
        (run.path / "eval").mkdir()
        tuned = {"accuracy": accuracy, "interval": [accuracy - 0.08, accuracy + 0.06]}
        (run.path / "eval" / "metrics.json").write_text(json.dumps({"n": 80, "tuned": tuned}))
        run.set_status(state="done")
    rows = sweeps.table(tmp_path, sweep)
    assert [row["values"]["r"] for row in rows] == [4, 8, 16, 32] and rows[3]["state"] == "failed"
    best = sweeps.best(rows)
    assert (best["row"]["run"], best["score"], best["value"], best["n"]) == (
        "reviews/v2",
        "accuracy",
        0.9,
        80,
    )
    assert best["margin"] == pytest.approx(0.07) and best["others"] == ["reviews/v3"]


def test_without_scores_the_evaluation_loss_decides(tmp_path):
    sweep, made = sweeps.create(tmp_path, CONFIG, sweeps.parse(["r=4,8"]))
    for run, losses in zip(made, ((2.0, 1.0, 1.5), (1.2,)), strict=True):
        for step, loss in enumerate(losses):
            run.append_metric({"step": step, "eval_loss": loss})
        run.set_status(state="done")
    best = sweeps.best(sweeps.table(tmp_path, sweep))
    assert (best["row"]["run"], best["score"], best["value"]) == ("reviews/v1", "eval_loss", 1.0)
