"""Run folders: made whole, read whole, whatever happens to those who write."""

import json
import multiprocessing
import string
import threading
import time

import pytest
import yaml

from trainer import checkpoints, runs
from trainer.config import RunConfig, UserError
from trainer.messages import MESSAGES, coded, message
from trainer.runs import RunFolder, Superseded

fork = multiprocessing.get_context("fork")


def config(**changes):
    return RunConfig(
        **{"task": "reviews", "base_model": "starter", "train_file": "/data/train.tsv", **changes}
    )


def test_a_new_run_has_its_frozen_values_and_waits(tmp_path):
    run = runs.create(tmp_path, config(epochs=3.0))
    assert run.id == "reviews/v1"
    assert run.config() == config(epochs=3.0)
    assert run.status()["state"] == "queued" and run.fault() is None
    assert set(runs.NEW_STATUS) <= set(run.status())


def test_twenty_creates_at_once_get_twenty_versions(tmp_path):
    def make(_):
        return runs.create(tmp_path, config()).id

    processes = [fork.Process(target=make, args=(i,)) for i in range(20)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert {run.id for run in runs.all_runs(tmp_path)} == {f"reviews/v{i}" for i in range(1, 21)}
    assert all(run.fault() is None for run in runs.all_runs(tmp_path))
    assert not list((tmp_path / "reviews" / "runs").glob(".new-*"))


def test_reasons_and_parent_are_kept_with_the_run(tmp_path):
    reasons = {"epochs": {"rule": "epochs.small", "because": "少量資料", "citation": {"page": "methods/sft"}}}
    first = runs.create(tmp_path, config())
    second = runs.create(tmp_path, config(epochs=3.0), reasons=reasons, parent=first)
    assert second.reasons() == reasons
    assert second.lineage()["parent"] == "reviews/v1"
    assert second.lineage()["changes"] == {"epochs": {"from": 2.0, "to": 3.0}}
    second.add_lineage(data_sha256="abc")
    assert second.lineage()["data_sha256"] == "abc" and second.reasons() == reasons
    assert "少量資料" in (second.path / "lineage.yaml").read_text()


def test_readers_never_see_half_a_status_and_writers_lose_nothing(tmp_path):
    run = runs.create(tmp_path, config())
    stop = threading.Event()
    faults = []

    def read():
        while not stop.is_set():
            status = run.status()
            if status.get("damaged"):
                faults.append(status["message"])

    def write(key):
        for i in range(1, 201):
            RunFolder(run.path).set_status(**{key: i})

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [fork.Process(target=write, args=(key,)) for key in ("step", "total_steps", "eta_seconds")]
    for worker in readers + writers:
        worker.start()
    for worker in writers:
        worker.join()
    stop.set()
    for worker in readers:
        worker.join()
    assert faults == []
    status = run.status()
    assert (status["step"], status["total_steps"], status["eta_seconds"]) == (200, 200, 200)
    assert not list(run.path.glob(".status.json.*"))


def test_a_replaced_or_ended_attempt_cannot_write(tmp_path):
    run = runs.create(tmp_path, config())
    run.set_status(state="running", attempt=1)
    worker = RunFolder(run.path, attempt=1)
    worker.set_status(step=5)
    run.set_status(attempt=2)
    with pytest.raises(Superseded):
        worker.set_status(step=6)
    run.set_status(state="lost", attempt=1)
    with pytest.raises(Superseded):
        worker.set_status(step=6)
    assert run.status()["step"] == 5


def test_status_of_a_deleted_folder_does_not_bring_it_back(tmp_path):
    run = RunFolder(tmp_path / "reviews" / "runs" / "v1")
    with pytest.raises(FileNotFoundError):
        run.set_status(step=1)
    assert not run.path.exists()


def test_a_torn_metrics_line_is_skipped_and_the_next_row_is_whole(tmp_path):
    run = runs.create(tmp_path, config())
    run.append_metric({"step": 1, "loss": 2.0})
    with (run.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 2, "lo')
    assert [row["step"] for row in run.metrics()] == [1]
    run.append_metric({"step": 3, "loss": 1.0})
    assert [row["step"] for row in run.metrics()] == [1, 3]
    assert [row["step"] for row in run.metrics(since=1)] == [3]


def test_the_curve_of_a_resumed_run_has_each_step_once(tmp_path):
    run = runs.create(tmp_path, config())
    for step in (5, 10, 15, 20):
        RunFolder(run.path, attempt=1).append_metric({"step": step, "loss": 1.0})
    second = RunFolder(run.path, attempt=2)
    second.append_metric({"step": 15, "loss": 0.5})  # the checkpoint was at 10
    second.append_metric({"step": 15, "eval_loss": 0.6})
    RunFolder(run.path, attempt=1).append_metric({"step": 25, "loss": 9.0})  # a late write of the killed one
    rows = run.metrics()
    assert [(row["step"], row.get("loss")) for row in rows] == [(5, 1.0), (10, 1.0), (15, 0.5), (15, None)]


def test_the_log_shows_a_progress_bar_as_it_stands(tmp_path):
    run = runs.create(tmp_path, config())
    (run.path / "log.txt").write_bytes("讀取\n1/3\r2/3\r3/3\nend\n".encode() + b"\xff\n")
    assert run.log_tail(3) == "3/3\nend\n\ufffd"
    assert run.log_tail(1) == "\ufffd"
    (run.path / "log.txt").unlink()
    assert run.log_tail() == ""


def test_only_whole_checkpoints_are_offered(tmp_path):
    run = runs.create(tmp_path, config())
    for step in (100, 20, 300):
        folder = run.path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"x" * 1000)
        if step != 300:
            checkpoints.mark_complete(folder)
    assert [path.name for path in run.checkpoints()] == ["checkpoint-20", "checkpoint-100"]
    assert run.saved_step() == 100
    (run.path / "checkpoints" / "checkpoint-100" / "model.safetensors").write_bytes(b"x" * 10)
    assert run.saved_step() == 20


def test_damaged_folders_are_named_and_hide_no_other(tmp_path):
    good = runs.create(tmp_path, config())
    time.sleep(0.01)
    torn = runs.create(tmp_path, config())
    (torn.path / "status.json").write_text('{"state": "runn')
    broken = runs.create(tmp_path, config())
    (broken.path / "run.yaml").write_text("task: [")
    empty = tmp_path / "other" / "runs" / "v7"
    empty.mkdir(parents=True)
    (tmp_path / "reviews" / "runs" / "notes").mkdir()
    found = {run.id: run.fault() for run in runs.all_runs(tmp_path)}
    assert set(found) == {"reviews/v1", "reviews/v2", "reviews/v3", "other/v7"}
    assert found["reviews/v1"] is None and good.id == "reviews/v1"
    assert "status.json" in found["reviews/v2"]
    assert "run.yaml:1" in found["reviews/v3"]
    assert "no such file" in found["other/v7"]
    assert RunFolder(torn.path).status()["state"] == "lost"


def test_runs_are_listed_newest_first(tmp_path):
    for task in ("a", "b", "a"):
        runs.create(tmp_path, config(task=task))
        time.sleep(0.01)
    assert [run.id for run in runs.all_runs(tmp_path)] == ["a/v2", "b/v1", "a/v1"]


@pytest.mark.parametrize("id", ["review/v1", "reviews/v9", "../../etc/v1", "reviews", "/v1", "x" * 10_000])
def test_an_unknown_id_is_told_in_one_line_with_near_ones(tmp_path, id):
    runs.create(tmp_path, config())
    with pytest.raises(UserError) as error:
        runs.find(tmp_path, id)
    assert "reviews/v1" in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 300


def test_compare_tells_the_fields_and_the_scores(tmp_path):
    a, b = runs.create(tmp_path, config()), runs.create(tmp_path, config(r=8, seed=1))
    (a.path / "eval").mkdir()
    (a.path / "eval" / "metrics.json").write_text(json.dumps({"tuned": {"accuracy": 0.9}}))
    compared = runs.compare(a, b)
    assert compared["fields"] == {"r": [16, 8], "seed": [42, 1]}
    assert compared["scores"] == {"reviews/v1": {"tuned": {"accuracy": 0.9}}, "reviews/v2": {}}


def test_evaluation_and_export_have_a_status_of_their_own(tmp_path):
    run = runs.create(tmp_path, config())
    assert run.status("export")["state"] == ""
    RunFolder(run.path, kind="export").set_status(state="running", attempt=1)
    assert run.status("export")["state"] == "running" and run.status()["state"] == "queued"
    assert (run.path / "export" / "status.json").exists()
    RunFolder(run.path, attempt=1, kind="export").set_status(stage="merge")
    assert run.status("export")["stage"] == "merge" and run.status()["stage"] == ""


def test_a_plain_message_replaces_a_coded_one(tmp_path):
    run = runs.create(tmp_path, config())
    run.set_status(**coded("resumes", step=5))
    assert message(run.status(), "zh-TW") == "從第 5 步接續"
    run.set_status(message="evaluating")
    assert message(run.status(), "zh-TW") == "evaluating"


def test_a_stop_request_holds_for_one_attempt_only(tmp_path):
    run = runs.create(tmp_path, config())
    run.ask_stop()
    assert run.stop_asked() is not None
    run.set_status(attempt=1)
    assert run.stop_asked() is None


@pytest.mark.parametrize("code", MESSAGES)
def test_every_message_reads_in_both_languages(code):
    fields = {name for _, name, _, _ in string.Formatter().parse(MESSAGES[code]["en"]) if name}
    status = coded(code, **dict.fromkeys(fields, 7))
    assert "{" not in message(status, "en") + message(status, "zh-TW")
    assert any("\u4e00" <= letter <= "\u9fff" for letter in message(status, "zh-TW"))
    assert message(status, "en") == status["message"]
    assert yaml.safe_load(yaml.safe_dump(status)) == status
