"""Trackers get the run's curve, on this machine and nowhere else."""

import os
import sqlite3
import sys
import urllib.request

import pytest

from trainer import trackers
from trainer.config import RunConfig, UserError
from trainer.train import train

QUICK = {"eval_fraction": 0, "test_fraction": 0, "max_steps": 3}


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in (
        "TRACKIO_DIR",
        "TENSORBOARD_LOGGING_DIR",
        "WANDB_MODE",
        "WANDB_SILENT",
        "WANDB_DIR",
        "WANDB_PROJECT",
    ):
        monkeypatch.setenv(name, "")  # what a run sets goes again with the test
        monkeypatch.delenv(name)


def curve(folder):
    return [round(row["loss"], 4) for row in folder.metrics() if "loss" in row]


def test_tensorboard_gets_event_files_with_the_curve(run_of):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run_of(report_to="tensorboard", smoke=True, **QUICK)
    train(folder)
    events = EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    assert [round(event.value, 4) for event in events.Scalars("train/loss")] == curve(folder)
    assert (
        len(list((folder.path / "tensorboard").glob("events*"))) == 1
    )  # the trial of the longest rows left none


def test_trackio_keeps_the_curve_in_the_home_and_shows_it(run_of, monkeypatch):
    pytest.importorskip("trackio")
    folder = run_of(report_to=["trackio"], **QUICK)
    home = folder.path.parents[3]
    for name, module in list(sys.modules.items()):  # a worker imports it once; this process may have before
        if name.startswith("trackio") and hasattr(module, "TRACKIO_DIR"):
            monkeypatch.setattr(module, "TRACKIO_DIR", home / "trackio")
    train(folder)
    kept = list((home / "trackio").glob("*.db"))
    assert [path.stem for path in kept] == ["reviews"]
    with sqlite3.connect(kept[0]) as db:
        text = str(db.execute("SELECT * FROM metrics").fetchall())
    assert "v1" in text and "train/loss" in text
    dashboard = trackers.Dashboard(home)
    try:
        address = dashboard.open()
        assert address.startswith("http://127.0.0.1:") and dashboard.open() == address
        assert urllib.request.urlopen(address, timeout=20).status == 200
    finally:
        dashboard.close()


def test_wandb_writes_an_offline_run_and_sends_nothing(run_of):
    pytest.importorskip("wandb")
    folder = run_of(report_to=["wandb"], **QUICK)
    train(folder)
    assert os.environ["WANDB_MODE"] == "offline"
    assert list((folder.path / "wandb").glob("offline-run-*/*.wandb"))


def test_a_tracker_that_is_missing_is_told_with_the_command(run_of, monkeypatch):
    folder = run_of(report_to=["wandb"], **QUICK)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'tunesmith\[wandb\]'"):
        train(folder)
    assert folder.status()["stage"] == ""


def test_trackers_may_be_one_text():
    values = {"task": "t", "base_model": "starter", "train_file": "x"}
    assert RunConfig(**values, report_to="trackio, wandb").report_to == ["trackio", "wandb"]
    assert RunConfig(**values, report_to="none").report_to == []
    with pytest.raises(ValueError, match="trackio"):
        RunConfig(**values, report_to="mlflow")
