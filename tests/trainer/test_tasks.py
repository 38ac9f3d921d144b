"""The folder of a new task."""

import pytest
import yaml

from trainer import runs
from trainer.config import RunConfig, UserError
from trainer.tasks import new_task


def test_a_new_task_has_its_definition_and_folders(tmp_path):
    path = new_task(tmp_path, "評論-1", "飯店評論的情感分類", task="classification", language="zh-TW")
    assert path == tmp_path / "tasks" / "評論-1"
    definition = yaml.safe_load((path / "task_definition.yaml").read_text())
    assert definition["name"] == "評論-1" and definition["task"] == "classification"
    readme = (path / "README.md").read_text()
    assert readme.startswith("# 評論-1\n\n飯店評論的情感分類\n\n- ")
    assert "tunesmith train 評論-1" in readme
    assert {child.name for child in path.iterdir() if child.is_dir()} == {"data", "configs", "runs"}


def test_a_task_that_has_runs_but_no_definition_gets_one(tmp_path):
    runs.create(tmp_path / "tasks", RunConfig(task="reviews", base_model="starter", train_file="x"))
    assert (new_task(tmp_path, "reviews") / "runs" / "v1" / "run.yaml").exists()


def test_an_existing_task_is_not_overwritten(tmp_path):
    path = new_task(tmp_path, "reviews", "mine")
    with pytest.raises(UserError, match="exists already"):
        new_task(tmp_path, "reviews", "other")
    assert "mine" in (path / "README.md").read_text()


@pytest.mark.parametrize(
    "name",
    ["a/b", "..", "../../x; rm -rf", "-rf", "", " ", "x" * 65, "a\u202eb", "a\n", "a b", "/etc", "_x", "a\0"],
)
def test_a_name_that_is_no_folder_name_is_refused_and_nothing_is_made(tmp_path, name):
    with pytest.raises(UserError, match="task name"):
        new_task(tmp_path, name)
    assert list(tmp_path.iterdir()) == []
