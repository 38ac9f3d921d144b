"""Two steps on the longest rows before a run: peak memory and step time are measured, not guessed.

Called by trainer/train.py. The trial has a model, a trainer and a folder of its own and all of them are gone when
the run begins, which then seeds and loads anew: its result is the same with and without. What was measured is in
RUN/smoke.json, status.json and lineage.yaml.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from trainer.atomic import read_object, write_atomic
from trainer.config import STARTER, RunConfig
from trainer.data.convert import Row, contents
from trainer.estimate import GIB, Estimate
from trainer.memory import halved, is_out_of_memory, release
from trainer.messages import coded
from trainer.runs import Ended, RunFolder

FILE = "smoke.json"
STEPS = 2  # the optimizer's state is made in the first, so only the second has it beside the activations
SAMPLES = ("grpo", "rloo", "distillation")  # their batches hang together over the accumulated steps

Build = Callable[..., Any]  # (config, rows, evaluation, output, callbacks) → a trainer


@dataclass(frozen=True)
class Prediction:
    """What the arithmetic says of a run on `device`; `size` gives GiB for other values. None: of unknown shape."""

    device: str
    estimate: Estimate | None = None
    size: Callable[[RunConfig], float] | None = None


def measured(folder: RunFolder) -> dict[str, Any]:
    """smoke.json of a run, {} where there is none."""
    return read_object(folder.path / FILE)


def try_out(
    folder: RunFolder, config: RunConfig, rows: list[Row], build: Build, guess: Prediction, device: str
) -> None:
    """Measure the run's two hardest steps, once in its life. Raises Ended("oom") with the changes that would fit."""
    if not config.smoke or not rows or measured(folder) or folder.checkpoints():
        return
    folder.set_status(stage="smoke")
    memory = (psutil.virtual_memory().total + psutil.swap_memory().total) / GIB
    if device == "cpu" and guess.estimate is not None and guess.estimate.low_gb > memory:
        raise _does_not_fit(config, guess, memory)  # the system would kill the worker without a word
    output = folder.path / ".smoke"
    clock = _clock()
    try:
        _two_steps(config, rows, build, output, clock, device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:300]
    else:
        said = ""
    finally:
        shutil.rmtree(output, ignore_errors=True)
    from trainer.train import peak_gb

    peak = round(peak_gb(device), 3)
    release()
    if said:
        print(f"two steps on the longest rows: {said}", flush=True)
        raise _does_not_fit(config, guess, _room(device))
    _keep(folder, config, rows, clock, peak, guess.estimate)


def _two_steps(
    config: RunConfig, rows: list[Row], build: Build, output: Any, clock: Any, device: str
) -> None:
    changes: dict[str, Any] = {"max_steps": STEPS, "early_stopping_patience": 0, "report_to": []}
    if config.method not in SAMPLES:
        # Two batches an update are enough: the gradients of the first lie there while the second is computed.
        changes["gradient_accumulation"] = min(2, config.gradient_accumulation)
    trial = config.model_copy(update=changes)
    trainer = build(trial, longest(rows, trial), [], output, [clock])
    trainer.args.save_strategy = "no"
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
    trainer.train()


def longest(rows: list[Row], trial: RunConfig) -> list[Row]:
    """The longest rows, as many as the two steps take (packed: as many as fill them).

    By bytes of text, which follow the tokens in every script: a Chinese character is three of them, and a token.
    """
    batches = STEPS * trial.batch_size * trial.gradient_accumulation
    ordered = sorted(rows, key=size, reverse=True)
    if not trial.packing:
        chosen = ordered[:batches]
        return (chosen * (batches // len(chosen) + 1))[:batches]
    wanted, chosen = batches * trial.max_length * 2, []  # a token is at least two bytes in nearly all text
    while wanted > 0:
        for row in ordered:
            chosen.append(row)
            wanted -= max(1, size(row))
            if wanted <= 0:
                break
    return chosen


def size(row: Row) -> int:
    return sum(len(text.encode()) for text in contents(row))


def _clock() -> Any:
    """A callback that times the last step: its batches, and the update after them."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        batches = update = 0.0

        def on_step_begin(self, *args, **kwargs):
            self.began = _now()

        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            self.computed = _now()
            self.batches = (self.computed - self.began) / args.gradient_accumulation_steps

        def on_step_end(self, *args, **kwargs):
            self.update = _now() - self.computed

    return Clock()


def _now() -> float:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()  # a GPU works on after the call has returned
    return time.monotonic()


def _keep(
    folder: RunFolder, config: RunConfig, rows: list[Row], clock: Any, peak: float, guess: Estimate | None
) -> None:
    sizes = [size(row) for row in rows]
    batch = config.batch_size
    # What a batch costs goes by its longest row, to which the others are filled up.
    heights = [max(sizes[at : at + batch]) for at in range(0, len(sizes), batch)]
    share = 1.0 if config.packing else sum(heights) / len(heights) / max(max(sizes), 1)
    accumulated = clock.batches * config.gradient_accumulation
    step = accumulated * share + clock.update
    found = {
        "peak_gb": peak,
        "step_seconds": round(step, 4),
        "longest_step_seconds": round(accumulated + clock.update, 4),
        "predicted_gb": guess.total_gb if guess else None,
        "batch_size": batch,
        "gradient_accumulation": config.gradient_accumulation,
    }
    write_atomic(folder.path / FILE, json.dumps(found, indent=1))
    folder.add_lineage(measured={name: found[name] for name in ("peak_gb", "step_seconds")})
    folder.set_status(peak_gb=peak, step_seconds=found["step_seconds"])
    print(
        f"two steps on the longest rows: peak {peak:.2f} GB, {found['longest_step_seconds']:.3g} s a step;"
        f" about {found['step_seconds']:.3g} s on all rows",
        flush=True,
    )


def _does_not_fit(config: RunConfig, guess: Prediction, room: float) -> Ended:
    changes = [
        f"{' '.join(f'{name}: {value}' for name, value in one.items())}"
        for one in changes_that_fit(config, guess, room)
    ]
    return Ended("oom", coded("does_not_fit", room=f"{room:.1f}", changes="; ".join(changes)))


def changes_that_fit(config: RunConfig, guess: Prediction, room: float) -> list[dict[str, Any]]:
    """The smallest changes that would fit, the least harmful first; those that keep the result stand before others.

    Where the arithmetic took the run to fit and the device refused it, the arithmetic was too low by at least that
    much, and a change must save as much again.
    """
    ways: list[dict[str, Any]] = [{"gradient_checkpointing": True}]
    smaller: RunConfig | None = config
    while (smaller := halved(smaller)) is not None:
        ways.append({name: getattr(smaller, name) for name in ("batch_size", "gradient_accumulation")})
    kinds = {"full": ["lora", "qlora"]}.get(config.peft, ["qlora"])
    ways += [{"peft": kind} for kind in kinds if config.base_model != STARTER or kind != "qlora"]
    ways += [{"max_length": config.max_length // 2}, {"max_length": config.max_length // 4}]
    found: list[dict[str, Any]] = []
    limit = min(room, 0.95 * guess.size(config)) if guess.size else 0.0
    for change in ways:
        changed = config.model_copy(update=change)
        known = any(
            change.keys() == other.keys() for other in found
        )  # a smaller step of the same kind suffices
        if changed != config and not known and (guess.size is None or guess.size(changed) <= limit):
            found.append(change)
    if found or (guess.size is not None and guess.size(config) > room):
        return found or [{"base_model": "a smaller one"}]
    return [change for change in ways if "batch_size" in change or "max_length" in change][:1]


def _room(device: str) -> float:
    """Memory of the device in GiB."""
    if device == "cpu":
        return psutil.virtual_memory().total / GIB
    import torch

    return torch.cuda.get_device_properties(0).total_memory / GIB
