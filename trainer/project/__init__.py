"""A task's whole training project as plain TRL scripts that run without Tunesmith: `tunesmith project`.

Create: the folder with scripts, config, rows, documents and card. Iterate: the same call after another run adds that
version's config, rows and card; what a person has edited stays, the new text goes beside it as FILE.new.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from trainer import base
from trainer.config import STARTER, RunConfig, UserError, write_atomic
from trainer.data.stage import thaw
from trainer.project.texts import annotation_guide, integration_guide, model_card, readme
from trainer.runs import RunFolder

TEMPLATES = Path(__file__).parent / "templates"
WRITTEN = ".written.json"  # sha256 of each file as it was written: another one means that a person edited it
# method → (module, config class, trainer class)
TRAINERS = {
    "sft": ("trl", "SFTConfig", "SFTTrainer"),
    "cpt": ("trl", "SFTConfig", "SFTTrainer"),
    "dpo": ("trl", "DPOConfig", "DPOTrainer"),
    "orpo": ("trl.experimental.orpo", "ORPOConfig", "ORPOTrainer"),
    "simpo": ("trl.experimental.cpo", "CPOConfig", "CPOTrainer"),
    "kto": ("trl", "KTOConfig", "KTOTrainer"),
}
PEFT = ("full", "lora", "qlora", "dora")
COLUMNS = {
    "cpt": ["text"],
    "dpo": ["prompt", "chosen", "rejected"],
    "orpo": ["prompt", "chosen", "rejected"],
    "simpo": ["prompt", "chosen", "rejected"],
    "kto": ["prompt", "completion", "label"],
}
PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "tokenizers", "safetensors",
            "huggingface-hub", "scikit-learn", "pyyaml", "jinja2")  # fmt: skip


@dataclass(frozen=True)
class Written:
    """What `write` did: `kept` are files that a person had edited, whose new text stands in FILE.new."""

    folder: Path
    version: str
    new: list[str]
    kept: list[str]


def write(run: RunFolder, out: Path | None = None, lang: str = "en") -> Written:
    """Write or renew the project of a run's task in `out` (default: tasks/<task>/project).

    Raises UserError for a run without frozen rows, or a method whose scripts are not written yet.
    """
    config, staged = run.config(), thaw(run.path / "data")
    if config.method not in TRAINERS or config.peft not in PEFT:
        raise UserError(
            f"{run.id}: no scripts for method {config.method} with peft {config.peft} yet; "
            f"there are {', '.join(TRAINERS)} with {', '.join(PEFT)}"
        )
    if staged is None:
        raise UserError(f"{run.id}: has no frozen rows yet; train it first: tunesmith train {run.task}")
    if config.base_model == STARTER and not (run.path / "base").is_dir():
        raise UserError(f"{run.id}: has no base/ yet; train it first: tunesmith train {run.task}")
    folder = out or run.path.parents[1] / "project"
    if folder.exists() and any(folder.iterdir()) and not (folder / WRITTEN).is_file():
        raise UserError(f"{folder}: is there already and is no project; choose another folder with --out")
    files = _files(run, config, staged.card, lang)
    new, kept = _write_all(folder, files)
    _copy(run, config, folder)
    return Written(folder, run.version, new, kept)


def _files(run: RunFolder, config: RunConfig, card: dict[str, Any], lang: str) -> dict[str, str]:
    """Every text of the project by its path."""
    module, config_class, trainer_class = TRAINERS[config.method]
    train = (TEMPLATES / "scripts" / "03_train.py.in").read_text(encoding="utf-8")
    for name, value in {"MODULE": module, "CONFIG": config_class, "TRAINER": trainer_class}.items():
        train = train.replace("{{" + name + "}}", value)
    files = {
        f"scripts/{path.name}": path.read_text(encoding="utf-8")
        for path in sorted((TEMPLATES / "scripts").iterdir())
        if path.suffix in (".py", ".sh")
    }
    definition = run.path.parents[1] / "task_definition.yaml"
    rows = _sample(run.path / "data" / "train.jsonl")
    return files | {
        "scripts/03_train.py": train,
        f"configs/{run.version}.yaml": settings_yaml(run, config, card),
        "task_definition.yaml": definition.read_text(encoding="utf-8")
        if definition.is_file()
        else yaml.safe_dump({"name": run.task}, allow_unicode=True),
        "requirements.txt": requirements(config),
        "README.md": readme(run, config, card, lang),
        "docs/integration-guide.md": integration_guide(run, config, card, rows, lang),
        "docs/annotation-guide.md": annotation_guide(run, config, card, rows, lang),
        f"hf_cards/{run.version}.md": model_card(run, config, card),
    }


def settings(run: RunFolder, config: RunConfig, card: dict[str, Any]) -> dict[str, Any]:
    """The run's values as the scripts take them: TRL's own names under `training`, PEFT's under `peft`."""
    from trainer.methods.arguments import training_arguments
    from trainer.methods.kinds import adapter_config

    rows = card["rows"]
    training = training_arguments(config, Path("out"), "cpu", rows["eval"])
    for name in ("output_dir", "use_cpu", "bf16", "dataloader_pin_memory"):  # the scripts ask the machine
        training.pop(name, None)
    training["max_length"] = config.max_length
    training |= _of_method(run, config)
    adapter = adapter_config(config)
    modules = adapter and adapter.target_modules
    peft = adapter and {
        "task_type": "CAUSAL_LM", "r": config.r, "lora_alpha": config.lora_alpha, "lora_dropout": config.lora_dropout,
        "target_modules": sorted(modules) if isinstance(modules, set) else modules, "use_rslora": config.use_rslora,
        "use_dora": config.peft == "dora",
    }  # fmt: skip
    inside = config.base_model == STARTER
    return {
        "task": run.task,
        "method": config.method,
        "base_model": "base_model" if inside else config.base_model,
        "data": f"data/{run.version}",
        "columns": COLUMNS.get(config.method, ["prompt", "completion"]),
        "labels": card["labels"],
        "system_prompt": config.system_prompt,
        "instruction": config.instruction,
        "loss_on": config.loss_on if config.method == "sft" else "completion",
        "device": config.device,
        "precision": config.precision,
        "threads": config.threads,
        "quantize": config.peft == "qlora",
        "stored_dtype": _dtype(run, config),
        "early_stopping_patience": config.early_stopping_patience,
        "max_new_tokens": config.max_new_tokens,
        "peft": peft,
        "training": training,
    }


def _of_method(run: RunFolder, config: RunConfig) -> dict[str, Any]:
    """What only this method's config class takes."""
    if config.method in ("sft", "cpt"):
        plain = config.method == "sft"
        return {
            "packing": config.packing,
            "completion_only_loss": plain and config.loss_on == "completion",
            "assistant_only_loss": plain and config.loss_on == "assistant",
        }
    if config.method == "simpo":
        return {
            "beta": config.beta,
            "loss_type": "simpo",
            "cpo_alpha": 0.0,
            "simpo_gamma": config.simpo_gamma,
        }
    if config.method == "dpo":
        mixed = config.sft_weight > 0
        return {
            "beta": config.beta,
            "loss_type": [config.loss_type, "sft"] if mixed else [config.loss_type],
            "loss_weights": [1.0, config.sft_weight] if mixed else None,
        }
    if config.method == "kto":
        from trainer.data.stage import read_rows
        from trainer.methods.unpaired import class_weights

        good, bad = class_weights(read_rows(run.path / "data" / "train.jsonl"))
        return {"beta": config.beta, "desirable_weight": good, "undesirable_weight": bad}
    return {"beta": config.beta}


def _dtype(run: RunFolder, config: RunConfig) -> str:
    """How the base model keeps its weights, as torch calls it; float32 where it is not on this machine."""
    path = run.path / "base" if config.base_model == STARTER else Path(config.base_model).expanduser()
    return str(base.stored_dtype(path)).removeprefix("torch.") if path.is_dir() else "bfloat16"


def settings_yaml(run: RunFolder, config: RunConfig, card: dict[str, Any]) -> str:
    """The config with each value's reason, where the run has one, as a comment above."""
    reasons = run.reasons()
    names = {"warmup_steps": "warmup_ratio", "num_train_epochs": "epochs", "lr_scheduler_type": "lr_scheduler",
             "per_device_train_batch_size": "batch_size", "gradient_accumulation_steps": "gradient_accumulation",
             "optim": "optim", "packing": "packing"}  # fmt: skip
    text = yaml.safe_dump(
        settings(run, config, card), sort_keys=False, allow_unicode=True, width=1000, default_flow_style=False
    )
    lines = [f"# {run.id}: every value that the scripts read. Written by `tunesmith project`; yours to edit."]
    for line in text.splitlines():
        key = line.strip().partition(":")[0]
        reason = reasons.get(names.get(key, key))
        if reason:
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}# {' '.join(str(reason['because']).split())} ({reason['rule']})")
        lines.append(line)
    return "\n".join(lines) + "\n"


def requirements(config: RunConfig) -> str:
    """Exact versions of the packages that the scripts import, those that the run was made with."""
    names = [*PACKAGES, *(["bitsandbytes"] if config.peft == "qlora" else [])]
    return "".join(f"{name}=={version(name).partition('+')[0]}\n" for name in names)


def _sample(path: Path, most: int = 400) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line, _ in zip(file, range(most), strict=False)]


def _write_all(folder: Path, files: dict[str, str]) -> tuple[list[str], list[str]]:
    """Write what is new or untouched since the last time; of what a person edited write FILE.new beside it."""
    record = folder / WRITTEN
    before: dict[str, str] = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    new, kept = [], []
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        current = path.read_text(encoding="utf-8") if path.is_file() else None
        if current == text:
            pass
        elif current is None or _sha256(current) == before.get(name):
            write_atomic(path, text)
            new.append(name)
        else:
            write_atomic(path.with_name(path.name + ".new"), text)
            kept.append(name)
            continue
        if path.suffix == ".sh":
            path.chmod(0o755)
        before[name] = _sha256(text)
    write_atomic(record, json.dumps(before, indent=1, sort_keys=True) + "\n")
    return new, kept


def _copy(run: RunFolder, config: RunConfig, folder: Path) -> None:
    """The frozen rows of this version, and the starter's weights where that is the base model."""
    source = folder / "data" / run.version / "source"
    source.mkdir(parents=True, exist_ok=True)
    for name in ("train", "eval", "test"):
        if not (source / f"{name}.jsonl").exists():
            shutil.copy2(run.path / "data" / f"{name}.jsonl", source / f"{name}.jsonl")
    if config.base_model == STARTER and not (folder / "base_model").exists():
        shutil.copytree(run.path / "base", folder / "base_model")
    for name in ("models", "benchmarks"):
        (folder / name).mkdir(exist_ok=True)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
