"""What a run does when memory, disk or time run out, and what it measures before it begins. All of it trains for real."""

import errno
import json
import multiprocessing
import resource

import pytest
import torch

from trainer import checkpoints, memory, smoke, worker
from trainer.config import RunConfig
from trainer.messages import coded, message
from trainer.runs import Ended
from trainer.train import train


def weights(folder):
    name = "adapter/adapter_model" if (folder.path / "adapter").is_dir() else "model/model"
    return checkpoints.digest(folder.path / f"{name}.safetensors")


def losses(folder):
    return [(row["step"], row["loss"]) for row in folder.metrics() if "loss" in row]


def raises_at(call, error):
    """A should_stop that raises once, in the loop at that call: the first is before training, then one a step."""
    calls = iter(range(1, 10_000))

    def should_stop():
        if next(calls) == call:
            raise error
        return False

    return should_stop


QUICK = {"eval_fraction": 0, "test_fraction": 0}


# the longest rows first


@pytest.mark.parametrize("peft", ["full", "lora"])
def test_the_trial_measures_and_changes_nothing_in_the_result(run_of, peft):
    values = {
        "peft": peft, "max_steps": 5, "lora_dropout": 0.1, "gradient_accumulation": 3, "batch_size": 4, **QUICK,
    }  # fmt: skip
    plain, tried = run_of(**values), run_of(**values, smoke=True)
    train(plain)
    train(tried)
    assert weights(tried) == weights(plain) and losses(tried) == losses(plain)
    found = smoke.measured(tried)
    assert 0.05 < found["peak_gb"] < 20 and 0 < found["step_seconds"] <= found["longest_step_seconds"]
    assert (
        tried.lineage()["measured"]["step_seconds"] == found["step_seconds"] == tried.status()["step_seconds"]
    )
    assert not (tried.path / ".smoke").exists() and not smoke.measured(plain)


def test_the_trial_takes_the_longest_rows(config_of):
    rows = [{"text": "字" * n} for n in range(1, 41)]
    trial = config_of(batch_size=3, gradient_accumulation=2, method="cpt")
    assert [len(row["text"]) for row in smoke.longest(rows, trial)] == list(range(40, 28, -1))
    assert len(smoke.longest(rows[:5], trial)) == 12  # few rows are taken several times
    packed = smoke.longest(rows, trial.model_copy(update={"packing": True, "max_length": 100}))
    assert sum(smoke.size(row) for row in packed) >= 2 * 2 * 3 * 2 * 100


def test_a_run_that_does_not_fit_ends_before_training_with_what_would_fit(run_of, monkeypatch):
    folder = run_of(smoke=True, batch_size=8, **QUICK)
    real = smoke._two_steps

    def no_room(*args):
        real(*args)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(smoke, "_two_steps", no_room)
    with pytest.raises(Ended) as caught:
        train(folder)
    assert caught.value.state == "oom" and caught.value.said["code"] == "does_not_fit"
    assert "batch_size: 4 gradient_accumulation: 2" in caught.value.said["message"]
    assert "放不進" in message(caught.value.said, "zh-TW")
    assert folder.metrics() == [] and not (folder.path / "model").exists()


def test_changes_that_fit_are_tried_on_the_arithmetic(config_of):
    config = config_of(batch_size=8, gradient_accumulation=2, gradient_checkpointing=True)
    guess = smoke.Prediction(
        "cpu", None, lambda c: c.batch_size * c.max_length / 64 * (1 if c.peft == "full" else 0.4)
    )
    assert smoke.changes_that_fit(config, guess, 4.0) == [
        {"batch_size": 4, "gradient_accumulation": 4}, {"peft": "lora"}, {"max_length": 32},
    ]  # fmt: skip
    assert smoke.changes_that_fit(config, guess, 0.01) == [{"base_model": "a smaller one"}]


# out of memory in mid-run


def test_out_of_memory_in_mid_run_halves_the_batch_and_goes_on(run_of):
    values = {"max_steps": 6, "save_steps": 2, "batch_size": 8, "logging_steps": 1, **QUICK}
    whole, tight = run_of(**values), run_of(**values)
    train(whole)
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert train(tight, raises_at(6, error)) == "done"
    change = tight.lineage()[memory.ADJUSTED]
    assert [(one["batch_size"], one["gradient_accumulation"]) for one in change] == [(4, 2)]
    assert [step for step, _ in losses(tight)] == list(range(1, 7))  # nothing twice, nothing left out
    for (_, one), (_, other) in zip(losses(tight), losses(whole), strict=True):
        assert one == pytest.approx(other, rel=1e-4)  # the same rows an update, added up in another order
    assert "goes on from step 4 with batch_size 4" in tight.status()["message"]
    assert tight.config().batch_size == 8  # run.yaml is frozen
    assert memory.adjusted(tight, tight.config()).batch_size == 4  # and a resume begins with what fitted


def test_the_smallest_batch_cannot_be_halved(run_of):
    folder = run_of(max_steps=4, batch_size=1, **QUICK)
    with pytest.raises(torch.OutOfMemoryError):
        train(folder, raises_at(3, torch.OutOfMemoryError("CUDA out of memory")))


@pytest.mark.parametrize(
    ("batch", "accumulation", "method", "expected"),
    [(8, 1, "sft", (4, 2)), (6, 2, "sft", (3, 4)), (7, 1, "sft", (1, 7)), (1, 4, "sft", None), (4, 1, "kto", (2, 2)), (2, 1, "kto", None)],
)  # fmt: skip
def test_a_smaller_batch_leaves_the_rows_an_update(config_of, batch, accumulation, method, expected):
    found = memory.halved(config_of(batch_size=batch, gradient_accumulation=accumulation, method=method))
    assert (found and (found.batch_size, found.gradient_accumulation)) == expected


# a full disk


@pytest.mark.parametrize("keep", [1, 2])
def test_a_full_disk_in_a_checkpoint_leaves_the_one_before(run_of, keep):
    values = {"max_steps": 6, "save_steps": 2, "save_total_limit": keep, **QUICK}
    whole, full = run_of(**values), run_of(**values)
    train(whole)

    def work():
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        calls = iter(range(1, 1000))

        def should_stop():  # after step 3 no file may be larger than 100 kB: a checkpoint's are, the curve is not
            if next(calls) == 4:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            return False

        try:
            train(full, should_stop)
        except Exception as error:
            said = worker.explain(error, full)
            full.set_status(state="failed", **said)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert full.status()["code"] == "disk_full", full.status()
    assert [path.name for path in full.checkpoints()] == ["checkpoint-2"]
    assert checkpoints.is_sound(full.checkpoints()[0])
    full.set_status(state="queued", attempt=2)
    assert train(full) == "done"
    assert weights(full) == weights(whole) and losses(full) == losses(whole)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError(
            "[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/7"
        ),
    ],
)
def test_a_full_disk_is_told_however_the_library_puts_it(run_of, error):
    assert worker.explain(error, run_of())["code"] == "disk_full"


# checkpoints


def test_a_checkpoint_with_a_changed_byte_is_not_used(run_of):
    values = {"max_steps": 6, "save_steps": 2, "save_total_limit": 5, **QUICK}
    whole, rotten = run_of(**values), run_of(**values)
    train(whole)
    calls = iter(range(1, 1000))
    train(rotten, lambda: next(calls) > 5)
    last = rotten.checkpoints()[-1]
    assert last.name in ("checkpoint-4", "checkpoint-5")
    for path in (last / "model.safetensors", rotten.path / "checkpoints" / "checkpoint-4" / "optimizer.pt"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1  # the size stays
        path.write_bytes(content)
    assert checkpoints.is_complete(last) and not checkpoints.is_sound(last)
    assert checkpoints.newest_sound(rotten.path / "checkpoints").name == "checkpoint-2"
    train(rotten)
    assert weights(rotten) == weights(whole)


def test_torn_checkpoints_are_removed_and_old_ones_rotated(run_of):
    folder = run_of(max_steps=6, save_steps=1, save_total_limit=2, **QUICK)
    torn = folder.path / "checkpoints" / "checkpoint-99"
    torn.mkdir(parents=True)
    (torn / "model.safetensors").write_bytes(b"half")
    train(folder)
    assert [path.name for path in folder.checkpoints()] == ["checkpoint-5", "checkpoint-6"]
    assert not torn.exists()


def test_early_stopping_keeps_the_best_and_ends_with_it(run_of):
    folder = run_of(
        max_steps=40, learning_rate=0.5, eval_fraction=0.2, test_fraction=0, eval_steps=2, early_stopping_patience=2,
        save_total_limit=1, warmup_ratio=0.5,
    )  # fmt: skip
    train(folder)
    evals = {row["step"]: row["eval_loss"] for row in folder.metrics() if "eval_loss" in row}
    best = min(evals, key=evals.get)
    assert folder.status()["step"] < 40 and max(evals) == best + 4  # two evaluations without a better one
    kept = {path.name for path in folder.checkpoints()}
    assert f"checkpoint-{best}" in kept and len(kept) == 2
    stored = checkpoints.digest(folder.path / "checkpoints" / f"checkpoint-{best}" / "model.safetensors")
    assert weights(folder) == stored


def test_patience_outlives_a_resume(run_of):
    values = {
        "max_steps": 40, "learning_rate": 0.5, "eval_fraction": 0.2, "test_fraction": 0, "eval_steps": 2,
        "early_stopping_patience": 3, "warmup_ratio": 0.5,
    }  # fmt: skip
    whole, stopped = run_of(**values), run_of(**values)
    train(whole)
    end = whole.status()["step"]
    calls = iter(range(1, 1000))
    train(stopped, lambda: next(calls) > end - 2)
    train(stopped)
    assert stopped.status()["step"] == end and weights(stopped) == weights(whole)


# time


def test_the_time_left_is_known_at_once_after_a_resume(run_of):
    folder = run_of(max_steps=8, save_steps=2, **QUICK)
    calls = iter(range(1, 1000))
    train(folder, lambda: next(calls) > 4)
    left = []
    train(folder, lambda: left.append(folder.status()["eta_seconds"]) or False)
    assert (
        left[1] is not None and left[1] > 0
    )  # after the first step of the new attempt, whose rate is not known yet


def test_a_time_limit_is_a_setting_with_a_message_in_both_languages():
    config = RunConfig(task="t", base_model="starter", train_file="x", time_limit_hours=1.5)
    said = coded("timeout", hours=f"{config.time_limit_hours:g}", step=7, saved=7)
    assert "1.5 h at step 7" in message(said) and "1.5 小時" in message(said, "zh-TW")
    assert json.dumps(said)
