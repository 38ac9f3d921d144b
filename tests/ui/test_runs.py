"""The Runs tab and `run show` of a run that trains: newest figures, what the curve shows, what was changed."""

import json
from types import SimpleNamespace

import pytest

from trainer import repeat, runs, sweeps, watch
from trainer.config import RunConfig
from trainer.memory import ADJUSTED
from ui import render_runs, render_sweep, terminal_runs
from ui.i18n import STRINGS, translator
from ui.tabs import runs as tab
from ui.tabs import sweeps as part


@pytest.fixture
def run(tmp_path):
    config = RunConfig(task="t", base_model="starter", train_file="x", device="cpu")
    run = runs.create(tmp_path / "tasks", config)
    for step in range(1, 21):
        point = {
            "step": step,
            "loss": 2 - step / 20,
            "learning_rate": 2e-4,
            "grad_norm": 1.25,
            "memory_gb": 3.5,
        }
        run.append_metric({**point, "tokens_per_second": 12345.0, "gpu_use": 0.87})
        if step % 5 == 0:
            run.append_metric({"step": step, "eval_loss": 1 + abs(step - 10) / 10, "eval_runtime": 0.0})
    run.add_lineage(**{ADJUSTED: [{"step": 7, "batch_size": 2, "gradient_accumulation": 8}]})
    run.set_status(state="running", step=20, total_steps=40, eta_seconds=60, peak_gb=3.5, step_seconds=0.5)
    return run


@pytest.mark.parametrize(("lang", "words"), [("en", ("Overfitting", "87%", "12,345", "2.0e-04")), ("zh-TW", ("過擬合", "學習率", "每秒 token 數"))])  # fmt: skip
def test_the_tab_shows_figures_and_flags(run, lang, words):
    t = translator(lang)
    html = render_runs.live(run.metrics(), t) + render_runs.flags(
        watch.flags(run), run.lineage()[ADJUSTED], lang, t
    )
    html += render_runs.status(run.id, run.status(), t)
    for word in words:
        assert word in html
    assert 'href="#page:troubleshooting/overfitting' in html and "batch_size 2" in html and "3.5 GB" in html


def test_every_figure_and_state_has_a_name():
    assert all(f"runs.{name}" in STRINGS for name in render_runs.MORE)
    assert all(f"state.{state}" in STRINGS for state in runs.STATES)
    assert set(tab.RESUMABLE) == set(runs.ENDED) - {"done"}


def test_another_measure_is_drawn_on_request(run):
    frame = tab.curve(run.metrics(), translator("en"), ("grad_norm",))
    assert list(frame["value"]) == [1.25] * 20 and str(frame["step"].dtype) == "int64"


def test_the_terminal_shows_them_too(run, monkeypatch):
    said = []
    monkeypatch.setattr(terminal_runs.console, "print", lambda text="", **_: said.append(str(text)))
    terminal_runs.print_live(run, "zh-TW")
    text = "\n".join(said)
    assert "還要" in text and "評估損失 2" in text and "過擬合" in text and "batch_size 2" in text


@pytest.fixture
def swept(tmp_path):
    config = RunConfig(task="t", base_model="starter", train_file="x", device="cpu")
    sweep, made = sweeps.create(
        tmp_path / "tasks", config, sweeps.parse(["learning_rate=1e-4,2e-4", "r=8,16"])
    )
    for number, run in enumerate(made[:3]):
        (run.path / "eval").mkdir()
        tuned = {"accuracy": 0.8 + number / 100, "interval": [0.7, 0.9]}
        (run.path / "eval" / "metrics.json").write_text(json.dumps({"n": 60, "tuned": tuned}))
        run.set_status(state="done")
    return SimpleNamespace(home=SimpleNamespace(tasks=tmp_path / "tasks")), sweep


@pytest.mark.parametrize("lang", ["en", "zh-TW"])
def test_a_sweep_shows_its_table_plot_best_and_caveat(swept, lang, monkeypatch):
    context, sweep = swept
    t = translator(lang)
    _, _, html, _ = part.update(context, lang, t, None)
    assert "t/v3" in html and 'class="best"' in html and "60" in html and "t/v1, t/v2" in html
    rows = sweeps.table(context.home.tasks, sweep)
    frame = render_sweep.points(sweep, rows)
    assert list(frame["x"]) == [1e-4, 1e-4, 2e-4] and set(frame["series"]) == {"r 8", "r 16"}
    said = []
    monkeypatch.setattr(terminal_runs.console, "print", lambda text="", **_: said.append(str(text)))
    terminal_runs.print_sweep(sweep, rows, lang)
    assert any("t/v3" in line and "0.820" in line for line in said)


def test_no_sweep_shows_nothing(tmp_path):
    context = SimpleNamespace(home=SimpleNamespace(tasks=tmp_path))
    assert len(part.update(context, "en", translator("en"), None)) == 4


@pytest.mark.parametrize("lang", ["en", "zh-TW"])
def test_a_repeated_run_tells_whether_it_is_the_same(run, lang):
    tasks = run.path.parents[2]
    run.add_lineage(result={"loss": 1.0, "weights_sha256": "a"}, versions={"torch": "2"})
    child = runs.create(tasks, run.config(), parent=run)
    child.add_lineage(repeats=run.id, result={"loss": 1.0, "weights_sha256": "a"}, versions={"torch": "2"})
    assert ("equal", "一致")[lang != "en"] in render_sweep.repeat_text(
        repeat.comparison(tasks, child), translator(lang)
    )
    child.add_lineage(result={"loss": 1.5, "weights_sha256": "b"}, versions={"torch": "3"})
    assert "versions.torch 2 → 3" in render_sweep.repeat_text(
        repeat.comparison(tasks, child), translator(lang)
    )
