"""A generated project: it runs without Tunesmith and scores as the run did; a second version leaves edits alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import yaml

from kb.errors import UserError
from trainer import project, runs
from trainer.train import train


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory) -> Path:
    """A fresh virtual environment with the libraries of this one, but without Tunesmith in it."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python3*")) / "site-packages"
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin" / "python"


def run_pipeline(python: Path, folder: Path) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [str(folder / "scripts" / "run_pipeline.sh")], env=clean | {"PYTHON": str(python), "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, timeout=300, cwd="/",
    )  # fmt: skip


@pytest.mark.parametrize("peft", ["full", "lora"])
def test_the_pipeline_runs_without_tunesmith_and_gets_the_runs_score(run_of, bare_python, peft):
    folder = run_of(peft=peft, learning_rate=5e-3, max_steps=30, eval_steps=0)
    assert train(folder) == "done"
    made = project.write(folder)
    probe = subprocess.run(
        [bare_python, "-c", "import trl, trainer"], capture_output=True, text=True, cwd="/"
    )
    assert "No module named 'trainer'" in probe.stderr
    done = run_pipeline(bare_python, made.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    scores = json.loads((made.folder / "benchmarks" / "v1.json").read_text())
    ours = folder.scores()["tuned"]
    assert scores["n"] == folder.scores()["n"] and scores["accuracy"] == pytest.approx(ours["accuracy"])
    assert scores["macro_f1"] == pytest.approx(ours["macro_f1"])
    upload = subprocess.run(
        [bare_python, made.folder / "scripts" / "05_upload_hf.py", "me/reviews"],
        capture_output=True,
        text=True,
    )
    assert "nothing was sent" in upload.stdout and "README.md" in upload.stdout


def test_every_method_has_a_config_that_its_class_takes(run_of, shared_data, tmp_path):
    import importlib

    rows = {
        "dpo": {"prompt": "q{}", "chosen": "yes", "rejected": "no"},
        "orpo": {"prompt": "q{}", "chosen": "yes", "rejected": "no"},
        "simpo": {"prompt": "q{}", "chosen": "yes", "rejected": "no"},
        "kto": {"prompt": "q{}", "completion": "yes", "label": True},
        "cpt": {"text": "some text {}"},
    }
    from trainer.data.stage import freeze, stage

    for method, row in rows.items():
        file = tmp_path / f"{method}.jsonl"
        made = [
            {k: v.format(i) if isinstance(v, str) else v == (i % 2 == 0) for k, v in row.items()}
            for i in range(40)
        ]
        file.write_text("".join(json.dumps(one) + "\n" for one in made))
        folder = run_of(train_file=str(file), method=method, peft="lora", batch_size=2)
        freeze(stage(folder.config()), folder.path / "data")
        out = project.write(folder, tmp_path / "out" / method).folder
        config = yaml.safe_load(next((out / "configs").glob("v*.yaml")).read_text())
        module, config_class, _ = project.TRAINERS[method]
        getattr(importlib.import_module(module), config_class)(
            output_dir=str(tmp_path), use_cpu=True, bf16=False, **config["training"]
        )
        checked = subprocess.run(
            [sys.executable, out / "scripts" / "01_validate_data.py"], capture_output=True, text=True
        )
        assert "fault" not in checked.stderr or "train too" in checked.stderr, checked.stderr


def test_the_next_version_is_added_and_an_edited_file_stays(run_of):
    from trainer.data.stage import freeze, stage

    first = run_of()
    freeze(stage(first.config()), first.path / "data")
    made = project.write(first, lang="zh-TW")
    assert not made.kept and "獨立執行" in (made.folder / "README.md").read_text()
    edited = made.folder / "scripts" / "04_evaluate.py"
    edited.write_text("# mine\n" + edited.read_text())
    readme = made.folder / "README.md"
    readme.write_text(readme.read_text() + "\nmine\n")
    second = runs.create(
        first.path.parents[2], first.config().model_copy(update={"epochs": 2.0}), parent=first
    )
    freeze(stage(second.config()), second.path / "data")
    again = project.write(second, lang="zh-TW")
    assert again.version == "v2" and "configs/v2.yaml" in again.new
    assert "README.md" in again.kept and "mine" in readme.read_text()
    assert edited.read_text().startswith("# mine")
    assert "v2" in (made.folder / "README.md.new").read_text()
    assert (made.folder / "configs" / "v1.yaml").is_file() and (
        made.folder / "data" / "v2" / "source"
    ).is_dir()


def test_what_cannot_be_written_is_one_line(run_of, tmp_path):
    with pytest.raises(UserError, match="no frozen rows"):
        project.write(run_of())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("…")
    folder = run_of()
    from trainer.data.stage import freeze, stage

    freeze(stage(folder.config()), folder.path / "data")
    with pytest.raises(UserError, match="is no project"):
        project.write(folder, tmp_path / "other")
