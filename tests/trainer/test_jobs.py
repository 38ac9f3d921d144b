"""The queue, with real processes: only the training itself is a loop that sleeps (slow_worker.py)."""

import contextlib
import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from trainer import jobs as jobs_module
from trainer import runs
from trainer.config import RunConfig, UserError
from trainer.jobs import Jobs
from trainer.launch import local

sys.path.insert(0, str(Path(__file__).parent))
import slow_worker

fork = multiprocessing.get_context("fork")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home whose workers are slow ones; none of them outlives the test."""
    monkeypatch.setattr(local, "command", slow_worker.command)
    yield tmp_path
    for process in psutil.process_iter(["cmdline"]):
        if any(str(tmp_path) in part for part in process.info["cmdline"] or ()):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def new_run(home, steps=10, **changes):
    values = {"task": "reviews", "base_model": "starter", "train_file": "x.tsv", "device": "cpu"}
    config = RunConfig(**{**values, "max_steps": steps, "save_steps": 2, **changes})
    return runs.create(home / "tasks", config)


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def until_state(run, state, kind="train", jobs=None):
    def there():
        if jobs:
            jobs.dispatch()
        return run.status(kind)["state"] == state

    until(there)


def until_step(run, step):
    until(lambda: run.status()["step"] >= step and run.status()["state"] == "running")


def pid_of(run):
    return run.status()["pid"]


def worker_of(jobs, run):
    """The pid of a run's worker, while its job is at work."""
    job = jobs.open_job(run.id)
    return job.pid if job is not None and job.state in ("starting", "running") else None


def begun(home):
    """What the workers did, in order: [(what, run, step), …]."""
    return [tuple(line.split()) for line in (home / "trace").read_text().splitlines()]


def test_twenty_parallel_starts_run_one_at_a_time_in_order_and_all_end(home):
    folders = [new_run(home, steps=2) for _ in range(20)]
    processes = [fork.Process(target=lambda run: Jobs(home).submit(run), args=(run,)) for run in folders]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 20
    jobs = Jobs(home)
    until(lambda: all(job.state == "done" for job in jobs.list()), 180)
    by_id = [job.run for job in reversed(jobs.list())]
    assert len(by_id) == 20 == len(set(by_id))
    expected = [(what, run, step) for run in by_id for what, step in (("begin", "0"), ("end", "2"))]
    assert begun(home) == expected
    assert all(run.status()["state"] == "done" and run.status()["attempt"] == 1 for run in folders)


def test_twenty_parallel_starts_of_one_run_are_one_job(home):
    run = new_run(home, steps=2)
    jobs = Jobs(home)
    ids = []
    threads = [threading.Thread(target=lambda: ids.append(jobs.submit(run))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until_state(run, "done")
    assert set(ids) == {1} and len(jobs.list()) == 1
    assert begun(home) == [("begin", "reviews/v1", "0"), ("end", "reviews/v1", "2")]


def test_the_worker_outlives_who_submitted_it(home):
    run = new_run(home, steps=20)
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import slow_worker\nfrom pathlib import Path\nfrom trainer.launch import local\n"
        "from trainer.jobs import Jobs\nfrom trainer.runs import RunFolder\n"
        f"local.command = slow_worker.command\nJobs(Path({str(home)!r})).submit(RunFolder(Path({str(run.path)!r})))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, start_new_session=True)
    assert run.status()["state"] in ("starting", "running")
    until_state(run, "done")
    assert len(run.metrics()) == 20


def test_a_killed_worker_is_lost_and_resumes_from_its_checkpoint(home):
    run, jobs = new_run(home, steps=40), Jobs(home)
    jobs.submit(run)
    until_step(run, 5)
    os.kill(pid_of(run), signal.SIGKILL)
    until_state(run, "lost", jobs=jobs)
    saved = run.saved_step()
    assert saved >= 4 and f"step {saved}" in run.status()["message"]
    jobs.resume(run.id)
    until_state(run, "done")
    assert begun(home) == [("begin", run.id, "0"), ("begin", run.id, str(saved)), ("end", run.id, "40")]
    assert [row["step"] for row in run.metrics()] == list(range(1, 41))
    assert run.status()["attempt"] == 2 and run.status()["message"] == ""


def test_twenty_kills_at_random_moments_lose_nothing_double_nothing_and_tear_nothing(home, monkeypatch):
    monkeypatch.setenv("SLOW_STEP", "0.01")
    chance = random.Random(7)
    long, after, jobs = new_run(home, steps=400), new_run(home, steps=2), Jobs(home)
    jobs.submit(long)
    jobs.submit(after)
    torn = []
    watching = threading.Event()

    def watch():  # what a page would read, all the while
        while not watching.is_set():
            torn.extend(text for run in (long, after) if (text := run.fault()))
            long.metrics()
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    kills = 0
    while kills < 20:
        until(lambda: jobs.dispatch() or worker_of(jobs, long) or long.status()["state"] == "done")
        time.sleep(
            chance.uniform(0, 0.6)
        )  # while it imports, between steps, in a checkpoint, while it reports
        pid = worker_of(jobs, long)
        if pid is None:  # it was done before
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        kills += 1
        until(lambda: jobs.dispatch() or long.status()["state"] in runs.ENDED)
        if long.status()["state"] != "done":
            jobs.resume(long.id)
    until_state(long, "done", jobs=jobs)
    until_state(after, "done", jobs=jobs)
    watching.set()
    watcher.join()
    assert kills == 20 and torn == []
    assert [row["step"] for row in long.metrics()] == list(range(1, 401))
    ends = [(run, step) for what, run, step in begun(home) if what == "end"]
    assert sorted(ends) == [(long.id, "400"), (after.id, "2")]
    assert len([job for job in jobs.list() if job.state in runs.ACTIVE]) == 0
    begins = [int(step) for what, run, step in begun(home) if what == "begin" and run == long.id]
    assert begins == sorted(begins)  # every attempt went on from where one before it had saved


def test_a_killed_worker_frees_its_device_for_the_next(home):
    first, second, jobs = new_run(home, steps=5000), new_run(home, steps=2), Jobs(home)
    jobs.submit(first)
    jobs.submit(second)
    assert jobs.waits_for(second.id) == [first.id]
    until_step(first, 1)
    os.kill(pid_of(first), signal.SIGKILL)
    until_state(second, "done", jobs=jobs)
    assert first.status()["state"] == "lost"


def test_without_a_checkpoint_a_resume_starts_over_and_says_so(home):
    run, jobs = new_run(home, steps=8, save_steps=100), Jobs(home)
    jobs.submit(run)
    until_step(run, 2)
    os.kill(pid_of(run), signal.SIGKILL)
    until_state(run, "lost", jobs=jobs)
    assert "starts over" in run.status()["message"]
    jobs.resume(run.id)
    assert "starts over" in run.status()["message"]
    until_state(run, "done")
    assert [row["step"] for row in run.metrics()] == list(range(1, 9))


def test_an_app_that_starts_again_finds_its_worker(home):
    run = new_run(home, steps=40)
    Jobs(home).submit(run)
    until_step(run, 2)
    pid, again = pid_of(run), Jobs(home)
    again.dispatch()
    assert again.open_job(run.id).state == "running" and pid_of(run) == pid
    until_state(run, "done")
    again.dispatch()
    assert run.status()["attempt"] == 1


def test_cancel_leaves_a_checkpoint_that_resumes(home):
    run, jobs = new_run(home, steps=100, save_steps=1000), Jobs(home)
    jobs.submit(run)
    until_step(run, 3)
    assert jobs.cancel(run.id, wait=20) == "cancelled"
    step, saved = run.status()["step"], run.saved_step()
    assert saved == step > 0
    assert run.status()["message"] == f"cancelled at step {step}; resume goes on from step {saved}"
    jobs.resume(run.id)
    assert run.status()["message"] == f"goes on from step {saved}"
    until_state(run, "done")
    assert f"attempt 2: train from checkpoint-{saved}" in run.log_tail()
    assert [row["step"] for row in run.metrics()] == list(range(1, 101))


def test_cancel_of_a_queued_run_never_starts_it(home):
    first, second, third = (new_run(home, steps=30 if i == 0 else 2) for i in range(3))
    jobs = Jobs(home)
    for run in (first, second, third):
        jobs.submit(run)
    assert jobs.waits_for(third.id) == [first.id, second.id]
    assert jobs.cancel(second.id) == "cancelled"
    until_state(third, "done")
    assert second.id not in {run for _, run, _ in begun(home)}
    with pytest.raises(UserError, match="nothing to cancel"):
        jobs.cancel(second.id)


def test_a_worker_that_does_not_stop_is_killed_and_counts_as_cancelled(home, monkeypatch):
    monkeypatch.setenv("SLOW_MODE", "deaf")
    monkeypatch.setattr(jobs_module, "GRACE", 0.2)
    run, jobs = new_run(home, steps=5000), Jobs(home)
    jobs.submit(run)
    until_step(run, 4)
    pid = pid_of(run)
    assert jobs.cancel(run.id, wait=20) == "cancelled"
    assert run.saved_step() > 0
    until(lambda: local.created(pid) is None)


def test_a_worker_that_hangs_is_ended(home, monkeypatch):
    run, jobs = new_run(home, steps=5000), Jobs(home)
    jobs.submit(run)
    until_step(run, 3)
    os.kill(pid_of(run), signal.SIGSTOP)
    time.sleep(0.1)
    jobs.dispatch()
    assert run.status()["state"] == "running"  # silent, but not for long
    monkeypatch.setattr(jobs_module, "HUNG_SECONDS", 0.5)
    Jobs(home).dispatch()
    assert run.status()["state"] == "running"  # a new watcher has seen nothing yet
    until_state(run, "lost", jobs=jobs)
    assert "no sign of life" in run.status()["message"]


def test_a_run_that_reaches_its_time_limit_keeps_a_checkpoint_and_resumes(home):
    run, jobs = new_run(home, steps=150, save_steps=1000, time_limit_hours=1.2 / 3600), Jobs(home)
    jobs.submit(run)
    until_state(run, "timeout", jobs=jobs)
    step = run.status()["step"]
    assert 0 < step == run.saved_step() < 150
    assert "time limit" in run.status()["message"] and f"from step {step}" in run.status()["message"]
    for _ in range(10):
        jobs.resume(run.id)
        until(lambda: run.status()["state"] in runs.ENDED)
        if run.status()["state"] == "done":
            break
        assert run.status()["state"] == "timeout"
    assert [row["step"] for row in run.metrics()] == list(range(1, 151))


def test_a_worker_that_the_memory_killer_ended_is_told_from_one_that_was_killed_by_hand(home, monkeypatch):
    run, jobs = new_run(home, steps=5000), Jobs(home)
    jobs.submit(run)
    until_step(run, 3)
    kills = run.status()["memory_kills"]
    assert kills == local.memory_kills()  # None where the system does not say
    run.set_status(memory_kills=7)
    monkeypatch.setattr(local, "memory_kills", lambda: 8)
    os.kill(pid_of(run), signal.SIGKILL)
    until_state(run, "oom", jobs=jobs)
    assert "want of memory at step" in run.status()["message"]


def test_an_index_of_an_older_version_is_made_again(home):
    run, jobs = new_run(home, steps=2), Jobs(home)
    jobs.submit(run)
    until_state(run, "done")
    with contextlib.closing(sqlite3.connect(home / "jobs.sqlite")) as db:
        db.executescript(
            "DROP TABLE jobs; CREATE TABLE jobs (id INTEGER PRIMARY KEY, run TEXT, state TEXT CHECK (state IN ('done')));"
            "PRAGMA user_version = 0"
        )
    again = Jobs(home)
    assert [(job.run, job.state) for job in again.list()] == [(run.id, "done")]
    other = new_run(home, steps=2)
    again.submit(other)
    until_state(other, "done")


def test_another_process_with_the_same_pid_is_not_the_worker_and_is_left_alone(home):
    run, jobs = new_run(home, steps=5000), Jobs(home)
    jobs.submit(run)
    until_step(run, 1)
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    worker_pid, born = pid_of(run), psutil.Process(stranger.pid).create_time()
    assert local.alive(stranger.pid, born) and not local.alive(stranger.pid, born - 60)
    os.kill(worker_pid, signal.SIGKILL)
    with contextlib.closing(sqlite3.connect(home / "jobs.sqlite")) as db:
        db.execute("UPDATE jobs SET pid = ?, pid_created = pid_created - 60", (stranger.pid,))
        db.commit()
    run.set_status(pid=stranger.pid, heartbeat=time.time() - 60)
    until_state(run, "lost", jobs=jobs)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_claim_whose_claimer_died_is_given_back_and_its_late_worker_refused(home, monkeypatch):
    run, jobs = new_run(home, steps=2), Jobs(home)
    with monkeypatch.context() as patch:
        patch.setattr(local, "spawn", lambda *_: sys.exit("killed between claim and spawn"))
        with pytest.raises(SystemExit):
            jobs.submit(run)
    assert run.status()["state"] == "starting"
    jobs.dispatch()
    assert run.status()["state"] == "starting"  # it may just be slow
    monkeypatch.setattr(jobs_module, "SPAWN_SECONDS", 0.0)
    jobs.dispatch()
    assert run.status()["attempt"] == 2
    late = subprocess.run(slow_worker.command(run, "train", 1, 1), capture_output=True, text=True)
    assert late.returncode == 0 and "worker ends" in late.stderr
    until_state(run, "done")
    assert begun(home) == [("begin", run.id, "0"), ("end", run.id, "2")]


@pytest.mark.parametrize("damage", ["deleted", "overwritten"])
def test_the_index_is_made_again_from_the_folders(home, damage):
    folders = [new_run(home, steps=60 if i == 0 else 2) for i in range(3)]
    jobs = Jobs(home)
    for run in folders:
        jobs.submit(run)
    until_step(folders[0], 1)
    before = [(job.id, job.run, job.state, job.attempt, job.pid) for job in jobs.list()]
    for path in home.glob("jobs.sqlite*"):
        path.unlink()
    if damage == "overwritten":
        (home / "jobs.sqlite").write_bytes(b"not a database, " * 500)
    again = Jobs(home)
    assert [(job.id, job.run, job.state, job.attempt, job.pid) for job in again.list()] == before
    until_state(folders[2], "done", jobs=again)
    assert [run for what, run, _ in begun(home) if what == "begin"] == [run.id for run in folders]


def test_a_run_that_was_made_but_never_submitted_is_not_started_by_a_rebuild(home):
    run = new_run(home)
    jobs = Jobs(home)
    jobs.dispatch()
    assert jobs.list() == [] and run.status()["state"] == "queued"


def test_a_deleted_run_ends_its_worker_and_frees_the_device(home):
    first, second, jobs = new_run(home, steps=5000, save_steps=5000), new_run(home, steps=2), Jobs(home)
    jobs.submit(first)
    jobs.submit(second)
    until_step(first, 1)
    pid = pid_of(first)
    first.path.rename(home / "taken-away")
    until(lambda: local.created(pid) is None)
    until_state(second, "done")
    assert not first.path.exists()
    states = {job.run: job.state for job in jobs.store.rows(settled=True)}
    assert states == {first.id: "lost", second.id: "done"}


def test_the_table_admits_one_working_job_a_device(home):
    Jobs(home)
    with contextlib.closing(sqlite3.connect(home / "jobs.sqlite")) as db:
        row = "INSERT INTO jobs (run, kind, device, state, submitted) VALUES (?, 'train', 'cpu', ?, 0)"
        db.execute(row, ("a/v1", "running"))
        db.execute(row, ("a/v2", "queued"))
        with pytest.raises(sqlite3.IntegrityError):
            db.execute(row, ("a/v3", "starting"))
        with pytest.raises(sqlite3.IntegrityError):
            db.execute(row, ("a/v4", "resting"))


def test_what_cannot_be_started_is_told_in_one_line(home):
    run, jobs = new_run(home, steps=2), Jobs(home)
    with pytest.raises(UserError, match="kinds are: train, evaluate, export"):
        jobs.submit(run, "bake")
    with pytest.raises(UserError, match="no trained weights to export"):
        jobs.submit(run, "export", {"to": "gguf"})
    jobs.submit(run)
    with pytest.raises(UserError, match=r"cancel it first"):
        jobs.resume(run.id)
    until_state(run, "done")
    with pytest.raises(UserError, match="done already"):
        jobs.submit(run)
    with pytest.raises(UserError, match="start a new version"):
        jobs.resume(run.id)
    with pytest.raises(UserError, match="nearest are: reviews/v1"):
        jobs.resume("reviews/v2")


def test_export_is_a_job_of_its_own_with_its_own_status(home):
    run, jobs = new_run(home, steps=2), Jobs(home)
    jobs.submit(run)
    until_state(run, "done")
    (run.path / "model").mkdir()
    jobs.submit(run, "export", {"to": "gguf"})
    until_state(run, "done", "export")
    assert run.status("export")["args"] == {"to": "gguf"}
    assert run.status()["state"] == "done" and run.status()["attempt"] == 1
    jobs.submit(run, "export", {"to": "merged"})  # and again
    until_state(run, "done", "export")
    assert run.status("export")["attempt"] == 2 and run.status("export")["args"] == {"to": "merged"}
