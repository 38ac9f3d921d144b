"""RunConfig → the training arguments that every trainer takes.

Each method adds its own few. Field names are those of transformers 5.23 (warmup_ratio, for one, is gone).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trainer.base import uses_bf16
from trainer.config import RunConfig, UserError

# transformers' "constant" has no warm-up.
SCHEDULES = {"constant": "constant_with_warmup"}
LOW_RANK = ("galore_adamw", "galore_adamw_8bit", "apollo_adamw")


def training_arguments(config: RunConfig, output: Path, device: str, eval_rows: int) -> dict[str, Any]:
    """Keyword arguments for any config class of TRL. `output` gets the checkpoints."""
    saves, evaluates = _cadence(config, eval_rows)
    return {
        "output_dir": str(output),
        "use_cpu": device == "cpu",
        "bf16": uses_bf16(config, device),
        "seed": config.seed,
        "data_seed": config.seed,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": SCHEDULES.get(config.lr_scheduler, config.lr_scheduler),
        "warmup_steps": config.warmup_ratio,  # below 1 it is a share of all steps
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        **_optimizer(config),
        "neftune_noise_alpha": config.neftune_noise_alpha,
        "activation_checkpointing": config.gradient_checkpointing,
        "gradient_checkpointing": config.gradient_checkpointing,
        "logging_steps": config.logging_steps,
        "logging_nan_inf_filter": False,
        **_trackers(config, output),
        "disable_tqdm": True,
        "dataloader_pin_memory": device == "cuda",
        **saves,
        **evaluates,
    }


def _trackers(config: RunConfig, output: Path) -> dict[str, Any]:
    """The task is the project and the version the run's name; trackio keeps to this machine (trackers.py)."""
    if not config.report_to:
        return {"report_to": "none"}
    named = {"project": config.task, "run_name": output.parent.name, "trackio_static_space_id": False}
    return {"report_to": list(config.report_to), **named}


def _cadence(config: RunConfig, eval_rows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """When to save and to evaluate. Early stopping keeps the best, so there both happen together."""
    if config.early_stopping_patience and not eval_rows:
        raise UserError(
            "early_stopping_patience needs rows for evaluation; set eval_file or eval_fraction, or patience to 0"
        )
    evaluates: dict[str, Any] = {"eval_strategy": "no"}
    if eval_rows:
        evaluates = {
            "eval_strategy": "steps" if config.eval_steps else "epoch",
            "eval_steps": config.eval_steps or None,
        }
    saves: dict[str, Any] = {"save_strategy": "steps" if config.save_steps else "epoch"}
    if config.save_steps:
        saves["save_steps"] = config.save_steps
    if config.early_stopping_patience:
        saves = {"save_strategy": evaluates["eval_strategy"], "save_steps": config.eval_steps or 500}
        saves |= {
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
            "restore_callback_states_from_checkpoint": True,  # how long nothing has become better
        }
    return saves, evaluates


def _optimizer(config: RunConfig) -> dict[str, Any]:
    """GaLore and APOLLO project the gradients of the linear layers to rank r."""
    if config.optim in LOW_RANK:
        return {
            "optim": config.optim,
            "optim_target_modules": "all-linear",
            "optim_args": f"rank={config.r}",
        }
    return {"optim": config.optim}


def early_stopping(config: RunConfig) -> list[Any]:
    """The callback of early stopping, if the run has it."""
    if not config.early_stopping_patience:
        return []
    from transformers import EarlyStoppingCallback

    return [EarlyStoppingCallback(early_stopping_patience=config.early_stopping_patience)]
