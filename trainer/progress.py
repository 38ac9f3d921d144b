"""What a training loop tells the run folder: the curve, the step, the time left, complete checkpoints.

The callback of trainer/train.py; also where a wish to stop reaches the loop.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer import checkpoints, smoke, watch
from trainer.gauge import Gauge
from trainer.messages import coded
from trainer.runs import RunFolder

# What the curve keeps of a trainer's log, under the same names.
CURVE = (
    "loss", "eval_loss", "learning_rate", "grad_norm", "epoch", "mean_token_accuracy", "eval_mean_token_accuracy",
    "num_tokens", "entropy", "rewards/accuracies", "rewards/margins", "rewards/chosen", "rewards/rejected",
    "eval_rewards/accuracies", "eval_rewards/margins", "eval_runtime",
    "reward", "reward_std", "kl", "completions/mean_length", "frac_reward_zero_std",  # on rewards
    "accuracy", "margin", "mean_reward", "eval_accuracy", "eval_margin", "eval_macro_f1", "eval_reward",  # heads
)  # fmt: skip
JUDGE_EVERY = 30.0  # seconds between two looks at the curve as a whole
STATUS_EVERY = 1.0  # seconds between writes of status.json while training


def callback(folder: RunFolder, should_stop: Callable[[], bool], guess: Any = None) -> Any:
    """A TrainerCallback that writes metrics.jsonl and status.json and stops when asked, with a checkpoint.

    `guess` is the run's Estimate: its scoring, corrected by how the first steps went, belongs to the time left.
    """
    from transformers import TrainerCallback

    class Callback(Progress, TrainerCallback):
        pass

    return Callback(folder, should_stop, guess)


class Progress:
    """The events of transformers.TrainerCallback that a run folder wants to know of.

    Of several processes all ask whether to stop, and the first alone writes.
    """

    def __init__(self, folder: RunFolder, should_stop: Callable[[], bool], guess: Any = None) -> None:
        self.folder, self.should_stop = folder, should_stop
        self.keep = folder.config().save_total_limit
        self.predicted = guess.seconds if guess else None
        scoring = [stage.seconds for stage in guess.stages if stage.name == "evaluation"] if guess else []
        self.scoring = next(iter(scoring), None) or 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        # Steps done before a resume took no time of this attempt: the rate counts from here.
        self.first_step, self.began, self.written = state.global_step, time.monotonic(), 0.0
        self.warm = self.began
        self.tokens, self.tokens_at = None, self.began
        if not state.is_world_process_zero:
            return
        self.judged, self.flagged = self.began, set()
        self.gauge = Gauge(args.device.type == "cuda")
        known = {"stage": "train", "step": state.global_step, "total_steps": state.max_steps}
        if self.folder.status()["code"] != "oom_halved":  # which says why the run stands where it does
            known["message"] = ""
        if pace := self._pace():
            left = (state.max_steps - state.global_step) * pace
            known["eta_seconds"] = round(left + self._scoring(pace, state.max_steps), 3)
        self.folder.set_status(**known)

    def _pace(self):
        """Seconds a step took before: earlier in this run, else in the trial of the longest rows; None before both."""
        points = [row for row in self.folder.metrics() if "loss" in row]
        gone = [
            ((after["time"] - before["time"]) / (after["step"] - before["step"]))
            for before, after in itertools.pairwise(points)
            if after["attempt"] == before["attempt"] and after["step"] > before["step"]
        ]
        return statistics.median(gone) if gone else smoke.measured(self.folder).get("step_seconds")

    def _scoring(self, a_step, steps):
        """Seconds of the scoring after training, corrected by how the steps go."""
        return self.scoring * (a_step * steps / self.predicted if self.predicted else 1.0)

    def on_step_end(self, args, state, control, **kwargs):
        if self.should_stop():
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False
        if not state.is_world_process_zero:
            return
        now = time.monotonic()
        if now - self.written >= STATUS_EVERY or state.global_step >= state.max_steps:
            self.written = now
            left = self._left(state, now)
            self.folder.set_status(
                step=state.global_step, total_steps=state.max_steps, eta_seconds=round(left, 3)
            )
        if state.global_step == self.first_step + 1:
            self.warm = now  # the first step loads kernels and fills caches: the rate counts from its end

    def _left(self, state, now: float) -> float:
        """Seconds to the end of the run: the steps left at the rate so far, and the scoring at the same pace."""
        done = state.global_step - self.first_step
        a_step = (now - self.warm) / (done - 1) if done > 1 else now - self.began
        return (state.max_steps - state.global_step) * a_step + self._scoring(a_step, state.max_steps)

    def on_epoch_end(self, args, state, control, **kwargs):
        if control.should_training_stop and self.should_stop():  # who cancels does not wait for an evaluation
            control.should_evaluate = False

    def on_log(self, args, state, control, logs=None, **kwargs):
        if not state.is_world_process_zero:
            return
        row = {name: _number(logs[name]) for name in CURVE if name in (logs or {})}
        if not row.keys() & {"loss", "eval_loss"}:
            return  # the summary at the end is no point of the curve
        if "loss" in row:
            row |= self.gauge.read()
            if logs.get("num_tokens"):
                row["tokens_per_second"] = self._rate(logs["num_tokens"])
        self.folder.append_metric({"step": state.global_step, **row})
        shown = " ".join(
            f"{name} {row[name]:.4g}" for name in ("loss", "eval_loss", "learning_rate") if row.get(name)
        )
        print(f"step {state.global_step}/{state.max_steps} {shown}", flush=True)
        if "loss" in logs and not math.isfinite(logs["loss"]):
            self.folder.set_status(**coded("not_finite", step=state.global_step))
        if time.monotonic() - self.judged > JUDGE_EVERY or "eval_loss" in row:
            self._judge(state.global_step)

    def _judge(self, step):
        """Say in the log what the curve shows, each symptom once; the screen reads the curve itself."""
        self.judged = time.monotonic()
        for flag in watch.flags(self.folder):
            if flag.symptom not in self.flagged:
                self.flagged.add(flag.symptom)
                print(f"step {step}: {flag.name['en']}: {flag.text['en']} See {flag.page}", flush=True)

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.gauge.stop()

    def _rate(self, tokens):
        now = time.monotonic()
        seen, since = self.tokens, self.tokens_at
        self.tokens, self.tokens_at = tokens, now
        # The count starts at 0 in every attempt.
        return round((tokens - (seen or 0)) / max(now - since, 1e-9), 1)

    def on_evaluate(self, args, state, control, **kwargs):
        self.tokens_at = time.monotonic()  # evaluation is no part of the training rate

    def on_save(self, args, state, control, **kwargs):
        if args.world_size > 1:
            import torch

            torch.distributed.barrier()  # each process writes its part; the mark says that all are there
        if not state.is_world_process_zero:
            return
        output = Path(args.output_dir)
        checkpoints.mark_complete(output / f"checkpoint-{state.global_step}")
        checkpoints.rotate(output, self.keep, state.best_model_checkpoint)


def _number(value: Any) -> float | None:
    """A float that JSON has; None for NaN and infinity."""
    value = float(value)
    return value if math.isfinite(value) else None
