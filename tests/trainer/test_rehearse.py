"""Rehearsals: every stage of a run on the user's own data with a tiny model, and the faults that they are to find."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kb.pages import pages
from trainer import rehearse, runs
from trainer.config import RunConfig, UserError
from trainer.jobs import Jobs
from trainer.miniature import make_miniature

ANCHORS = {f"{page.id}#{section.anchor}" for page in pages("zh-TW") for section in page.sections()}


@pytest.fixture
def rehearsal_of(tmp_path, config_of, monkeypatch):
    """perform() in this process on a rehearsal of the tiny base, with changes; its report by check."""
    monkeypatch.setattr(Jobs, "submit", lambda self, folder: 1)

    def make(**changes):
        folder = rehearse.begin(tmp_path / "home", config_of(**{"max_steps": -1, "epochs": 1000, **changes}))
        found = rehearse.perform(folder)
        return found, {check["check"]: check for check in found["checks"]}

    return make


def test_every_stage_is_passed_and_no_version_is_counted(rehearsal_of, tmp_path):
    found, checks = rehearsal_of(peft="lora", r=4, batch_size=64, gradient_accumulation=8)
    assert found["ready"] and found["exit"] == 0, found
    assert list(checks) == list(rehearse.CHECKS)
    assert {check["state"] for check in checks.values()} == {"ok"}, checks
    assert runs.all_runs(tmp_path / "home" / "tasks") == []
    folder = Path(found["folder"])
    assert folder.is_relative_to(tmp_path / "home" / "rehearsals")
    assert folder.joinpath("export", "model.gguf").is_file()
    # the longest rows go first, whole
    longest = max((row["prompt"][0]["content"] for row in _rows(folder, "train")), key=len)
    assert _rows(folder, "train")[0]["prompt"][0]["content"] == longest
    assert all(check["said"]["en"] and check["said"]["zh-TW"] for check in checks.values())


def _rows(folder, name):
    return [
        json.loads(line) for line in folder.joinpath("data", f"{name}.jsonl").read_text("utf-8").splitlines()
    ]


def test_a_template_that_does_not_render_is_named_with_its_row_and_page(rehearsal_of, tiny_base, tmp_path):
    base = tmp_path / "picky"
    shutil.copytree(tiny_base, base)
    template = base / "chat_template.jinja"
    template.write_text(
        "{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{%- endif %}"
        + template.read_text(encoding="utf-8"),
        encoding="utf-8",
    )
    found, checks = rehearsal_of(base_model=str(base), system_prompt="Be brief.")
    assert found["exit"] == 2 and checks["template"]["state"] == "failed"
    assert "System role not supported" in checks["template"]["said"]["en"]
    assert checks["template"]["page"] == "methods/chat-templates#what-it-is"
    assert checks["train"]["state"] == "skipped"


def test_an_answer_that_is_cut_off_is_told_with_the_length_it_needs(rehearsal_of, tmp_path):
    file = tmp_path / "long.jsonl"
    rows = [{"prompt": f"say {index}", "completion": f"number {index}"} for index in range(60)]
    rows[17]["completion"] = "on and on " * 60
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found, checks = rehearsal_of(train_file=str(file), max_length=64)
    assert found["exit"] == 2 and checks["length"]["state"] == "failed", checks
    assert (
        "1 of the" in checks["length"]["said"]["en"] and "max_length is 64" in checks["length"]["said"]["en"]
    )


def test_a_wrong_column_fails_at_once_with_status_2(tmp_path, tiny_base):
    file = tmp_path / "odd.csv"
    file.write_text("alpha,beta\n" + "1,2\n" * 30, encoding="utf-8")
    run = tmp_path / "run.yaml"
    run.write_text(
        f"task: odd\nbase_model: {tiny_base}\ntrain_file: odd.csv\ndevice: cpu\n", encoding="utf-8"
    )
    command = [
        sys.executable,
        "-c",
        "from ui.cli import main; main()",
        "train",
        str(run),
        "--rehearse",
        "--json",
    ]
    environment = {"PATH": "/usr/bin:/bin", "TUNESMITH_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 2, done.stderr
    found = json.loads(done.stdout)
    assert found["checks"][0]["state"] == "failed" and "odd.csv" in found["checks"][0]["said"]["en"]
    assert {check["state"] for check in found["checks"][1:]} == {"skipped"}


def test_an_adapter_on_layers_that_the_model_has_not_fails_in_training(rehearsal_of):
    found, checks = rehearsal_of(peft="lora", target_modules=["query_key_value"])
    assert found["exit"] == 1 and checks["train"]["state"] == "failed"
    assert "query_key_value" in checks["train"]["said"]["en"] and checks["merge"]["state"] == "skipped"


def test_the_earlier_rehearsal_of_a_task_makes_room(rehearsal_of, tmp_path, review_file):
    broken = review_file.with_name("broken.csv")
    broken.write_text("alpha,beta\n1,2\n", encoding="utf-8")
    first = Path(rehearsal_of(train_file=str(broken))[0]["folder"])
    runs.RunFolder(first).set_status(state="done")
    rehearsal_of(train_file=str(broken))
    assert [run.version for run in runs.all_runs(tmp_path / "home" / "rehearsals" / "tasks")] == ["v1"]


@pytest.mark.parametrize(
    ("model", "architecture"),
    [
        ("meta-llama/Llama-3.2-1B-Instruct", "LlamaForCausalLM"),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen2ForCausalLM"),
        ("Qwen/Qwen3-8B", "Qwen3ForCausalLM"),
    ],
)
def test_a_model_out_of_reach_gets_its_architecture_and_says_what_stays_unchecked(
    tmp_path, model, architecture
):
    config = RunConfig(task="t", base_model=model, train_file="x", starter_vocab_size=400)
    made = make_miniature(config, ["some text to learn from"] * 50, tmp_path / "base")
    assert made.architecture == architecture and made.weights < 5_000_000
    assert not made.own_tokenizer and "cannot be reached" in made.why
    settings = json.loads((tmp_path / "base" / "config.json").read_text(encoding="utf-8"))
    assert settings["architectures"] == [architecture] and settings["num_hidden_layers"] == 2


def test_a_larger_local_model_is_shrunk_and_keeps_its_tokenizer(tmp_path, tiny_base, monkeypatch):
    monkeypatch.setattr("trainer.miniature.SMALL_BYTES", 1000)
    config = RunConfig(task="t", base_model=str(tiny_base), train_file="x")
    made = make_miniature(config, [], tmp_path / "base")
    assert made.own_tokenizer and not made.whole and made.architecture == "Qwen3ForCausalLM"
    assert (tmp_path / "base" / "tokenizer.json").read_bytes() == (tiny_base / "tokenizer.json").read_bytes()


def test_a_path_that_is_no_model_is_the_users_mistake(tmp_path):
    config = RunConfig(task="t", base_model=str(tmp_path / "nowhere"), train_file="x")
    with pytest.raises(UserError, match="no such folder"):
        make_miniature(config, [], tmp_path / "base")


def test_what_cannot_run_on_a_cpu_is_replaced_and_the_rest_stays(tmp_path):
    config = RunConfig(
        task="t", base_model="Qwen/Qwen3-8B", train_file="x", optim="paged_adamw_8bit", peft="qlora"
    )
    small = rehearse.rehearsed(config, tmp_path)
    assert (small.optim, small.peft, small.device) == ("adamw_torch", "qlora", "cpu")
    assert small.r == config.r and small.max_length == config.max_length
    kto = rehearse.rehearsed(config.model_copy(update={"method": "kto", "max_length": 8192}), tmp_path)
    assert kto.batch_size == 4


def test_every_check_names_a_page_that_exists():
    assert {page for _, _, page in rehearse.CHECKS.values()} <= ANCHORS
