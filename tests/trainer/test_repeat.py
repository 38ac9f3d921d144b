"""A run done again gives the same weights; what differs is named. Lineage holds what the result depends on."""

import json
import subprocess

import pytest

from trainer import origin, repeat, runs
from trainer.config import UserError
from trainer.train import train


def done(folder):
    train(folder)
    folder.set_status(state="done")
    return folder


@pytest.mark.parametrize("peft", ["full", "lora"])
def test_a_repeated_run_ends_with_the_same_weights_though_the_file_changed(run_of, review_file, peft):
    first = done(run_of(peft=peft, max_steps=4, eval_steps=2, test_fraction=0, lora_dropout=0.1))
    review_file.write_text("text,label\nanother,1\nfile,0\n")
    tasks = first.path.parents[2]
    child = repeat.begin(tasks, first)
    assert repeat.comparison(tasks, child) is None
    assert child.lineage()["parent"] == first.id and child.lineage()["changes"] == {}
    train(child)
    found = repeat.comparison(tasks, child)
    assert found["same"] and found["of"] == first.id and found["differs"] == {}
    assert found["loss"][0] == found["loss"][1] > 0 and len(found["weights"][0]) == 64


def test_what_differs_is_named(run_of):
    first = done(run_of(max_steps=2, test_fraction=0, eval_fraction=0))
    tasks = first.path.parents[2]
    child = repeat.begin(tasks, first)
    train(child)
    lineage = child.lineage()
    lineage["versions"]["torch"] = "1.0"
    child.add_lineage(versions=lineage["versions"], result={**lineage["result"], "weights_sha256": "0"})
    found = repeat.comparison(tasks, child)
    assert not found["same"] and found["differs"]["versions.torch"][1] == "1.0"


def test_only_what_is_done_can_be_repeated(run_of):
    folder = run_of()
    with pytest.raises(UserError, match="is queued; only a run that is done"):
        repeat.begin(folder.path.parents[2], folder)
    folder.set_status(state="done")
    with pytest.raises(UserError, match="before results were kept"):
        repeat.begin(folder.path.parents[2], folder)
    assert len(runs.all_runs(folder.path.parents[2])) == 1


def test_lineage_holds_versions_machine_and_the_state_of_the_code(tmp_path):
    found = origin.versions()
    assert {"python", "torch", "trl", "numpy"} <= found.keys()
    assert {"processor", "cores", "threads", "ram_gb"} <= origin.hardware("cpu").keys()
    assert origin.code_state(tmp_path) is None
    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    assert (
        origin.code_state(tmp_path)["changed"] is False and len(origin.code_state(tmp_path)["commit"]) == 40
    )
    assert json.dumps(found)
