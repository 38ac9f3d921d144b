"""A run on a Ray cluster of two nodes on this machine, of which one is killed while it trains."""

import os
import sys
import time

import pytest
import yaml

from trainer import runs
from trainer.config import RunConfig, UserError
from trainer.jobs import Jobs
from trainer.launch import places
from trainer.launch.ray_jobs import RayCluster

ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'tunesmith[ray]'")
DRIVER = os.path.join(os.path.dirname(__file__), "ray_there.py")


def until(condition, what, seconds=150.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.3)


@pytest.fixture
def cluster(monkeypatch):
    """A head that only coordinates, and two nodes with two CPUs each; a token of its own keeps others out."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_TRAIN_V2_ENABLED", "1")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    memory = {"object_store_memory": 80_000_000}
    head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": 0, **memory}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.nodes = [made.add_node(num_cpus=2, **memory) for _ in range(2)]
    yield made
    made.shutdown()


def test_a_run_loses_a_node_and_goes_on_from_its_checkpoint(cluster, tmp_path, review_file):
    home = tmp_path / "home"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{DRIVER}" "$@"\n')
    python.chmod(0o755)
    config = RunConfig(
        task="reviews", base_model="starter", train_file=str(review_file), device="cpu",
        processes=1, machines=2, max_steps=120, save_steps=5, save_total_limit=100,
    )  # fmt: skip
    run, jobs = runs.create(home / "tasks", config), Jobs(home)
    definition = {"ray": {"python": str(python)}}
    (home / "tasks" / "reviews" / "task_definition.yaml").write_text(yaml.safe_dump(definition))
    jobs.submit(run, where=f"ray:{cluster.head_node.webui_url}")
    until(lambda: run.saved_step() >= 10, lambda: (run.status(), run.log_tail()))

    cluster.remove_node(cluster.nodes[0], allow_graceful=False)
    until(
        lambda: jobs.dispatch() or run.status()["state"] in runs.ENDED, lambda: (run.status(), run.log_tail())
    )
    assert (run.status()["state"], run.status()["step"]) == ("done", 120), (run.status(), run.log_tail())
    starts = [line.split() for line in (run.path / "starts").read_text().splitlines()]
    assert len(starts) == 4 and {world for _, world, _ in starts} == {"2"}  # two processes, twice
    assert int(starts[-1][0]) >= 10  # from a checkpoint, not from the beginning
    curve = [row["step"] for row in run.metrics()]
    assert curve == list(range(1, 121))  # what was done twice is there once
    assert {row["loss"] for row in run.metrics()} == {2.0}  # both took part in every step


def test_what_is_wrong_with_the_cluster_is_told_in_one_line(tmp_path, config_of):
    with pytest.raises(UserError, match="no Ray dashboard answers"):
        RayCluster("127.0.0.1:1", places.Ray(), tmp_path).client()
    with pytest.raises(UserError, match="only ddp"):
        places.check("ray:x:1", config_of(parallel="fsdp2"), tmp_path)
    with pytest.raises(UserError, match="one machine"):
        places.check("local", config_of(machines=2), tmp_path)
