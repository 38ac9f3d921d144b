"""A run on a SLURM cluster: the script by bash itself, submission by stand-ins for sbatch, squeue and scancel."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from trainer import runs
from trainer.config import RunConfig
from trainer.jobs import Jobs
from trainer.launch import local, places, processes, slurm

SLOW = Path(__file__).parent / "slow_there.py"
PYTHON = sys.executable
VALUES = {"task": "reviews", "base_model": "starter", "device": "cpu", "max_steps": 40, "save_steps": 20}


def until(condition, what, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.2)


@pytest.fixture
def slow(monkeypatch, tmp_path):
    """The compute node's python runs the slow worker."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec "{PYTHON}" "{SLOW}" "$@"\n')
    path.chmod(0o755)
    monkeypatch.setattr(slurm.sys, "executable", str(path))


def test_the_script_trains_its_run_and_a_signal_before_the_time_limit_leaves_a_checkpoint(
    tmp_path, review_file, slow
):
    config = RunConfig(**VALUES | {"max_steps": 5000}, train_file=str(review_file))
    run = runs.create(tmp_path / "home" / "tasks", config)
    script = tmp_path / "run.sbatch"
    script.write_text(slurm.script(run.path, config, places.Slurm()))
    job = subprocess.Popen(["bash", str(script)])
    until(lambda: run.status()["step"] > 0, run.status)
    os.kill(job.pid, signal.SIGTERM)  # as --signal=B:TERM@300 does
    assert job.wait(timeout=60) == 1
    assert run.status()["state"] == "cancelled" and run.saved_step() > 0

    job = subprocess.Popen(["bash", str(script)])  # submitted again: it goes on
    until(lambda: run.status()["attempt"] == 2 and run.status()["step"] > run.saved_step(), run.status)
    os.kill(job.pid, signal.SIGTERM)
    job.wait(timeout=60)


def test_the_script_says_what_the_cluster_must_give(tmp_path, review_file, config_of):
    config = config_of(device="auto", processes=4, machines=2)
    wanted = places.Slurm(partition="gpu", time="04:00:00", lines=["--account=x"], setup=["module load cuda"])
    text = slurm.script(tmp_path / "tasks" / "reviews" / "runs" / "v1", config, wanted)
    for line in (
        "nodes=2",
        "ntasks-per-node=1",
        "gpus-per-node=4",
        "partition=gpu",
        "time=04:00:00",
        "account=x",
    ):
        assert f"#SBATCH --{line}\n" in text
    assert "signal=B:TERM@" in text and "\nmodule load cuda\n" in text and "TUNESMITH_LAUNCHER=srun" in text
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    run = runs.RunFolder(tmp_path / "tasks" / "reviews" / "runs" / "v1", 3)
    command = processes.command(run, config, "cpu", None)
    assert command[:3] == ["srun", "--ntasks=2", "--ntasks-per-node=1"] and "--nnodes=2" in command
    assert any(word.startswith("--rdzv-endpoint=") for word in command)


def test_a_job_is_submitted_watched_and_cancelled_while_it_waits(tmp_path, review_file, slow, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    held = tmp_path / "hold"
    for name, text in {
        # Runs the script at once unless the cluster is full; prints the job's number.
        "sbatch": f'[ -e {held} ] || (setsid bash "$2" >/dev/null 2>&1 &)\necho 42',
        "squeue": "echo PENDING",
        "scancel": f"echo $1 >{tmp_path}/cancelled",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    home, config = tmp_path / "home", RunConfig(**VALUES, train_file=str(review_file))
    run, jobs = runs.create(home / "tasks", config), Jobs(home)
    (home / "tasks" / "reviews" / "task_definition.yaml").write_text(yaml.safe_dump({"slurm": {}}))
    # The keeper is a process of its own with the real python; the script's python is the slow one there too.
    keeper_python(monkeypatch)
    jobs.submit(run, where="slurm")
    until(lambda: jobs.dispatch() or run.status()["state"] in runs.ENDED, run.status)
    assert (run.status()["state"], run.status()["step"]) == ("done", 40), run.status()

    held.touch()
    other = runs.create(home / "tasks", config)
    jobs.submit(other, where="slurm")
    until(
        lambda: other.status()["code"] == "place_started" or (other.path / "there.json").exists(),
        other.status,
    )
    assert jobs.cancel(other.id, wait=60) == "cancelled"
    assert (tmp_path / "cancelled").read_text().strip() == "42"


def keeper_python(monkeypatch):
    """Keepers run with the real python, and the scripts that they write name the slow one."""
    code = f"import sys; from trainer import worker; sys.executable = {sys.executable!r}; sys.exit(worker.main())"

    def command(folder, kind, job, attempt):
        options = ["--kind", kind, "--job", str(job), "--attempt", str(attempt)]
        return [PYTHON, "-P", "-c", code, str(folder.path), *options]

    monkeypatch.setattr(local, "command", command)
