"""Tokens a second of our trainer beside a bare TRL script: same model, rows and settings, turn by turn.

Run `python tests/bench/training.py` (some minutes). Each turn is a process of its own, ours and bare in turns,
so that a busy machine hurts both. Prints JSON; `ratio` is ours over bare, by CPU second and by wall second.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "chnsenticorp"
CASES = {
    "full": {"peft": "full"},
    "lora": {"peft": "lora", "r": 16},
    "everything": {"peft": "full", "loss_on": "all"},
}
STEPS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("child", nargs="*", help="ours|bare and a run folder: one turn")
    options = parser.parse_args()
    if options.child:
        kind, folder = options.child
        print(json.dumps({"ours": ours, "bare": bare}[kind](Path(folder))))
        return
    if not DATA.is_dir():
        print(json.dumps({"skipped": f"{DATA} is missing"}))
        return
    print(
        json.dumps({name: compare(CASES[name], options.turns) for name in options.cases.split(",")}, indent=1)
    )


def compare(changes: dict[str, Any], turns: int) -> dict[str, Any]:
    """Medians of `turns` turns of each kind."""
    with tempfile.TemporaryDirectory() as home:
        folder = prepare(Path(home), changes)
        found: dict[str, list[dict[str, float]]] = {"bare": [], "ours": []}
        for _ in range(turns):
            for kind, results in found.items():
                results.append(turn(kind, folder))
    rate = lambda kind, by: statistics.median(one["tokens"] / one[by] for one in found[kind])
    return {
        "tokens_per_cpu_second": {kind: round(rate(kind, "cpu")) for kind in found},
        "tokens_per_second": {kind: round(rate(kind, "wall")) for kind in found},
        "ratio": {by: round(rate("ours", by) / rate("bare", by), 3) for by in ("cpu", "wall")},
        "final_loss": {kind: round(results[-1]["loss"], 4) for kind, results in found.items()},
        "steps": STEPS,
        "turns": turns,
    }


def turn(kind: str, folder: Path) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, __file__, kind, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(result.stdout.strip().splitlines()[-1])


def prepare(home: Path, changes: dict[str, Any]) -> Path:
    """A run folder with the starter base and frozen rows, ready to train."""
    from trainer import runs
    from trainer.config import RunConfig
    from trainer.data.stage import stage
    from trainer.train import prepare as prepare_run

    config = RunConfig(
        task="speed", train_file=str(DATA / "dev.tsv"), base_model="starter", starter_vocab_size=4000, max_length=96,
        batch_size=16, gradient_accumulation=1, learning_rate=1e-3, max_steps=STEPS, gradient_checkpointing=False,
        eval_fraction=0, test_fraction=0, logging_steps=10, save_steps=1000, device="cpu", **changes,
    )  # fmt: skip
    folder = runs.create(home, config)
    with contextlib.redirect_stdout(sys.stderr):
        prepare_run(folder, config, stage(config))
    return folder.path


def ours(path: Path) -> dict[str, float]:
    """Our loop with its callbacks, from the first step to the last."""
    from trainer import progress
    from trainer.base import load_model, load_tokenizer
    from trainer.data.stage import thaw
    from trainer.methods import require_trainable
    from trainer.runs import RunFolder
    from trainer.train import prepare_process

    folder = RunFolder(path)
    config = folder.config()
    prepare_process(config)
    rows = thaw(path / "data").splits.train
    with tempfile.TemporaryDirectory() as out:
        trainer = require_trainable(config.method).build(
            config, load_model(path / "base", config, "cpu"), load_tokenizer(path / "base"), rows, [], Path(out), "cpu",
            [progress.callback(folder, lambda: False)],
        )  # fmt: skip
        return timed(trainer)


def bare(path: Path) -> dict[str, float]:
    """What one writes from TRL's documentation, with the same settings."""
    import yaml
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    run = yaml.safe_load((path / "run.yaml").read_text())
    dataset = load_dataset("json", data_files=str(path / "data" / "train.jsonl"), split="train")
    if run["loss_on"] == "all":
        dataset = dataset.map(
            lambda row: {"messages": row["prompt"] + row["completion"]},
            remove_columns=["prompt", "completion"],
        )
    with tempfile.TemporaryDirectory() as out:
        trainer = SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(path / "base"),
            args=SFTConfig(
                output_dir=out, use_cpu=True, bf16=False, gradient_checkpointing=False, seed=run["seed"],
                learning_rate=run["learning_rate"], warmup_steps=run["warmup_ratio"], max_steps=run["max_steps"],
                per_device_train_batch_size=run["batch_size"], max_length=run["max_length"], logging_steps=10,
                save_steps=1000, report_to="none", data_seed=run["seed"],
            ),
            train_dataset=dataset,
            processing_class=AutoTokenizer.from_pretrained(path / "base"),
            peft_config=LoraConfig(r=run["r"], lora_alpha=run["lora_alpha"], target_modules="all-linear")
            if run["peft"] == "lora"
            else None,
        )  # fmt: skip
        return timed(trainer)


def timed(trainer: Any) -> dict[str, float]:
    """Tokens trained, and the seconds of the loop alone: loading and tokenising are not in it."""
    cpu, wall = time.process_time(), time.monotonic()
    trainer.train()
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {"tokens": logs[-1]["num_tokens"], "cpu": cpu, "wall": wall, "loss": logs[-1]["loss"]}


if __name__ == "__main__":
    main()
