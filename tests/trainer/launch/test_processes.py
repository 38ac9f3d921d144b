"""Several processes train one run: two real ones on the CPU with gloo, started by torchrun; settings for GPUs."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from trainer import runs, train
from trainer.config import UserError, from_dict
from trainer.launch import processes, rank


def losses(folder):
    return {row["step"]: row["loss"] for row in folder.metrics() if "loss" in row}


def test_two_processes_stop_together_resume_and_learn_what_one_process_learns(run_of):
    alone = run_of(batch_size=8, max_steps=5, eval_fraction=0, test_fraction=0)
    assert train.train(alone) == "done"

    run = run_of(batch_size=4, processes=2, max_steps=5, eval_fraction=0, test_fraction=0, save_steps=1)
    began = len(psutil.Process().children(recursive=True))
    assert train.train(run, lambda: len(losses(run)) >= 2) == "cancelled"
    assert len(psutil.Process().children(recursive=True)) == began
    saved = run.checkpoints()[-1]
    assert {path.name for path in saved.glob("rng_state_*")} == {"rng_state_0.pth", "rng_state_1.pth"}
    assert 2 <= run.saved_step() < 5 and not (run.path / "model").exists()

    run.set_status(state="starting", attempt=1)  # as the queue does for a resume; the wish to stop is of 0
    assert train.train(runs.RunFolder(run.path, 1)) == "done"
    assert (run.path / "model" / "model.safetensors").is_file()
    assert [row["step"] for row in run.metrics()] == [1, 2, 3, 4, 5]  # one writer
    assert losses(run) == pytest.approx(losses(alone), abs=1e-4)  # 2 x 4 rows are the 8 rows of one process
    tokens = [row.get("num_tokens") for folder in (run, alone) for row in folder.metrics()[:1]]
    assert tokens[0] == tokens[1]


def test_a_training_process_dies_with_its_launcher(tmp_path):
    waiting = (
        "import time; from trainer.launch import rank; rank.run = lambda *_: time.sleep(60); rank.main()"
    )
    started = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {waiting!r}, 'x', '--attempt', '1'], start_new_session=True)"
    launcher = subprocess.Popen([sys.executable, "-c", started])
    end = time.monotonic() + 30
    while not (found := psutil.Process(launcher.pid).children()) or not _sleeps(found[0]):
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    assert psutil.wait_procs(found, timeout=10)[1] == []


def _sleeps(process):
    """Whether the child is past its start: it has asked the system to be told of its parent's death."""
    return process.cpu_times().user > 0.05 and process.status() == psutil.STATUS_SLEEPING


def test_what_a_process_says_of_its_failure_reaches_the_worker(run_of):
    run = run_of(processes=2)

    def broken(*_):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    original, rank.work = rank.work, broken
    try:
        assert rank.run(run, None) == 1
        rank.work = lambda *_: (_ for _ in ()).throw(RuntimeError("connection closed by peer"))
        assert rank.run(run, None) == 1
    finally:
        rank.work = original
    assert '"oom"' in processes.failure_path(run).read_text()  # the first failure is the cause


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "MULTI_GPU"),
        ({"parallel": "fsdp2", "offload": True}, "FSDP"),
        ({"parallel": "zero2"}, "DEEPSPEED"),
        ({"parallel": "zero3", "offload": True, "machines": 2}, "DEEPSPEED"),
    ],
)
def test_accelerate_reads_the_settings_that_are_written_for_it(config_of, tmp_path, changes, kind):
    from accelerate.commands.config.config_args import load_config_from_file

    path = tmp_path / "accelerate.yaml"
    path.write_text(
        yaml.safe_dump(processes.accelerate_settings(config_of(processes=4, **changes), bf16=True))
    )
    read = load_config_from_file(str(path))  # refuses keys that it does not know
    assert read.distributed_type == kind and read.num_processes == 4 * changes.get("machines", 1)
    if kind == "FSDP":
        assert read.fsdp_config["fsdp_version"] == 2 and read.fsdp_config["fsdp_offload_params"] is True
    if kind == "DEEPSPEED":
        assert read.deepspeed_config["zero_stage"] == int(changes["parallel"][-1])


def test_what_the_machine_cannot_start_is_told_in_one_line(config_of):
    with pytest.raises(UserError, match="machines = 2"):
        processes.check(config_of(machines=2), "cpu")
    with pytest.raises(UserError, match="needs GPUs"):
        processes.check(config_of(processes=2, parallel="fsdp2"), "cpu")
    with pytest.raises(UserError, match="4-bit"):
        from_dict({"task": "t", "base_model": "m", "train_file": "f", "peft": "qlora", "parallel": "zero3"})
