"""A run that does not fit: told by its error, and in mid-run taken up again with half the batch.

Between the training loop and its checkpoints: half the rows at once and twice the accumulation give the same
updates from the same rows, so the run keeps its values' meaning; what changed stands in lineage.yaml.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from typing import Any

from trainer.config import RunConfig
from trainer.messages import coded
from trainer.runs import RunFolder

PHRASES = ("out of memory", "can't allocate memory", "cannot allocate memory")
ADJUSTED = "adjusted"  # key of lineage.yaml: [{"step", "batch_size", "gradient_accumulation", "time"}]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch on a GPU, torch on a CPU, or Python itself."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or any(phrase in str(error).lower() for phrase in PHRASES)


def adjusted(folder: RunFolder, config: RunConfig) -> RunConfig:
    """The config with the batch that earlier attempts of this run had to go down to."""
    changes = folder.lineage().get(ADJUSTED) or []
    if not changes:
        return config
    names = ("batch_size", "gradient_accumulation")
    return config.model_copy(update={name: changes[-1][name] for name in names})


def halved(config: RunConfig) -> RunConfig | None:
    """Half the batch and twice the accumulation, or the next smaller divisor; None where the batch is the smallest."""
    least = 2 if config.method == "kto" else 1  # its KL term compares the rows of a batch
    smaller = [n for n in range(config.batch_size // 2, least - 1, -1) if config.batch_size % n == 0]
    if not smaller:
        return None
    accumulation = config.gradient_accumulation * config.batch_size // smaller[0]
    return config.model_copy(update={"batch_size": smaller[0], "gradient_accumulation": accumulation})


def keep_fitting(folder: RunFolder, config: RunConfig, loop: Callable[[RunConfig], bool]) -> bool:
    """`loop` with the run's config, and after each want of memory again with half the batch. Returns what it returns.

    `loop` goes on from the newest checkpoint. Raises its error where the batch cannot be made smaller.
    """
    config = adjusted(folder, config)
    while True:
        try:
            return loop(config)
        except Exception as error:
            smaller = halved(config) if is_out_of_memory(error) else None
            if smaller is None:
                raise
            print(f"out of memory: {' '.join(str(error).split())[:300]}", flush=True)
        # Only here, since the error's traceback holds the tensors of the step that failed.
        config = smaller
        release()
        _tell(folder, config)


def _tell(folder: RunFolder, config: RunConfig) -> None:
    step, saved = folder.status()["step"], folder.saved_step()
    values = {"batch_size": config.batch_size, "gradient_accumulation": config.gradient_accumulation}
    change = {"step": step, "time": round(time.time(), 3), **values}
    folder.add_lineage(**{ADJUSTED: [*(folder.lineage().get(ADJUSTED) or []), change]})
    said = folder.set_status(step=saved, **coded("oom_halved", step=step, saved=saved, **values))
    print(said["message"], flush=True)


def release() -> None:
    """Give back what a failed or finished loop held."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
