"""What a worker makes of errors, of its environment and of its log; and the real one on a real mistake."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainer import runs, worker
from trainer.config import RunConfig
from trainer.jobs import Jobs
from trainer.launch import local
from trainer.messages import message

sys.path.insert(0, str(Path(__file__).parent))
import slow_worker


def new_run(home, **changes):
    values = {
        "task": "reviews",
        "base_model": "starter",
        "train_file": "x.tsv",
        "device": "cpu",
        "max_steps": 2,
    }
    return runs.create(home / "tasks", RunConfig(**{**values, "save_steps": 1, **changes}))


def to_its_end(home, run, seconds=60.0):
    jobs = Jobs(home)
    jobs.submit(run)
    end = time.monotonic() + seconds
    while run.status()["state"] in runs.ACTIVE:
        jobs.dispatch()
        assert time.monotonic() < end, run.log_tail()
        time.sleep(0.05)
    return run.status()


@pytest.fixture
def slow(monkeypatch):
    monkeypatch.setattr(local, "command", slow_worker.command)


def test_a_users_mistake_fails_in_one_line_without_a_traceback(tmp_path, slow, monkeypatch):
    monkeypatch.setenv("SLOW_MODE", "mistake")
    run = new_run(tmp_path)
    status = to_its_end(tmp_path, run)
    assert (status["state"], status["message"]) == ("failed", "train.tsv:3: no label; give every row one")
    assert "Traceback" not in run.log_tail()


def test_a_bug_fails_in_one_line_and_leaves_its_traceback_in_the_log(tmp_path, slow, monkeypatch):
    monkeypatch.setenv("SLOW_MODE", "bug")
    run = new_run(tmp_path)
    status = to_its_end(tmp_path, run)
    assert status["state"] == "failed" and status["message"].startswith("KeyError: 'no such key'; log.txt")
    assert "Traceback" in run.log_tail() and "slow_worker.py" in run.log_tail()


def test_out_of_memory_is_a_state_of_its_own_and_says_what_to_change(tmp_path, slow, monkeypatch):
    monkeypatch.setenv("SLOW_MODE", "oom")
    run = new_run(tmp_path, batch_size=8)
    status = to_its_end(tmp_path, run)
    assert status["state"] == "oom" and status["code"] == "oom"
    assert "halve batch_size (8)" in status["message"] and "step 1" in status["message"]
    assert "減半" in message(status, "zh-TW")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MemoryError(), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"), "oom"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (ValueError("two\nlines"), "bug"),
    ],
)
def test_errors_are_told_apart(tmp_path, error, code):
    told = worker.explain(error, new_run(tmp_path))
    assert told["code"] == code and "\n" not in told["message"]


def test_the_real_worker_names_a_missing_data_file(tmp_path):
    run = new_run(tmp_path, train_file=str(tmp_path / "gone.tsv"))
    status = to_its_end(tmp_path, run)
    assert status["state"] == "failed"
    assert "gone.tsv" in status["message"] and "Traceback" not in run.log_tail()


def test_a_real_run_that_is_killed_goes_on_and_is_scored(tmp_path):
    texts = [("房間很乾淨，服務很好", "pos"), ("早餐難吃，又吵又髒", "neg")]
    rows = [f"{text} {i}\t{label}" for i in range(60) for text, label in texts]
    (tmp_path / "rows.tsv").write_text("\n".join(["text\tlabel", *rows]))
    shape = {"peft": "full", "starter_hidden_size": 32, "starter_layers": 1, "starter_vocab_size": 300}
    speed = {"max_length": 48, "max_steps": 100, "save_steps": 10, "logging_steps": 10, "max_new_tokens": 4}
    run = new_run(tmp_path, train_file=str(tmp_path / "rows.tsv"), threads=1, **shape, **speed)
    jobs = Jobs(tmp_path)
    jobs.submit(run)
    end = time.monotonic() + 240
    while not run.checkpoints():
        assert time.monotonic() < end and run.status()["state"] in runs.ACTIVE, run.log_tail()
        time.sleep(0.01)
    os.kill(run.status()["pid"], signal.SIGKILL)
    while run.status()["state"] == "running":
        jobs.dispatch()
        time.sleep(0.05)
    assert run.status()["state"] == "lost" and 10 <= run.saved_step() < 100
    jobs.resume(run.id)
    while run.status()["state"] in runs.ACTIVE:
        assert time.monotonic() < end, run.log_tail()
        time.sleep(0.05)
    assert run.status()["state"] == "done", run.log_tail()
    assert [row["step"] for row in run.metrics() if "loss" in row] == list(range(10, 101, 10))
    assert run.scores()["n"] > 0 and run.scores()["tuned"]["accuracy"] >= 0


def test_a_run_file_damaged_in_the_queue_is_named(tmp_path):
    run = new_run(tmp_path)
    jobs = Jobs(tmp_path)
    jobs.store.enqueue(run, "train", "cpu")
    (run.path / "run.yaml").write_text("task: [")
    jobs.dispatch()
    end = time.monotonic() + 20
    while run.status()["state"] in runs.ACTIVE and time.monotonic() < end:
        time.sleep(0.05)
    assert run.status()["state"] == "failed" and "run.yaml:1: not valid YAML" in run.status()["message"]


def test_a_worker_cannot_be_shadowed_by_a_file_of_the_tasks(tmp_path, slow):
    run = new_run(tmp_path)
    (tmp_path / "tasks" / "reviews" / "json.py").write_text("raise SystemExit('not the library')")
    assert to_its_end(tmp_path, run)["state"] == "done"


def test_threads_and_device_are_set_before_torch_is_imported(tmp_path, monkeypatch):
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "5")
    config = new_run(tmp_path, threads=3).config()
    worker.prepare_environment(config)
    assert (os.environ["OMP_NUM_THREADS"], os.environ["CUDA_VISIBLE_DEVICES"]) == ("3", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    worker.prepare_environment(config.model_copy(update={"threads": 0}))
    assert os.environ["OMP_NUM_THREADS"] == "5"
    script = (
        "import sys, trainer.worker; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_a_log_that_grows_too_long_keeps_its_head_and_tail(tmp_path):
    log = tmp_path / "log.txt"
    with log.open("ab") as writer:  # as the worker's own output is opened
        for i in range(20_000):
            writer.write(f"line {i}\n".encode())
        writer.flush()
        worker.cap_log(log, 100_000)
        writer.write(b"after\n")
    text = log.read_text()
    assert len(text) < 70_000
    assert text.startswith("line 0\nline 1\n") and text.endswith("line 19999\nafter\n")
    assert "bytes dropped" in text
    worker.cap_log(log, 100_000)
    assert log.read_text() == text
