"""A run folder in, a trained and measured model out: data → starter → train → evaluate.

Called by the worker process; every stage leaves its result on disk in one piece, so that a run that was
killed goes on from the last one. Needs torch; nothing heavy is imported before `train` is called.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import resource
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer import base, checkpoints, memory, origin, progress, rate, smoke, trackers
from trainer.atomic import assembled
from trainer.calibration import measured_pair, note
from trainer.config import STARTER, RunConfig
from trainer.data.check import Lengths
from trainer.data.convert import Row, contents
from trainer.data.stage import Staged, freeze, stage, thaw
from trainer.data.tokens import fit, lengths
from trainer.estimate import estimate, run_terms, stack_of
from trainer.evaluate import evaluate
from trainer.generate import Stopped, head_labels
from trainer.hardware import probe
from trainer.launch import processes
from trainer.methods import METHODS, check
from trainer.methods.kinds import INITIAL
from trainer.runs import RunFolder
from trainer.starter import make_starter

LONG_RUN = 120.0  # predicted seconds from which two for a measurement of the device are worth it


def train(folder: RunFolder, should_stop: Callable[[], bool] = lambda: False) -> str:
    """Run what of the run is not done yet, from its newest sound checkpoint if it has one.

    Returns "done", or "cancelled" when `should_stop` said so. Raises UserError for what the user can mend, Ended
    where it does not fit; anything else is a fault of the program.
    """
    config = folder.config()
    entry = check(config)
    trackers.check(config)
    trackers.prepare(folder, config)
    folder.set_status(stage="data", message="")
    staged = thaw(folder.path / "data") or stage(config)
    if should_stop():
        return "cancelled"
    prepare_process(config)  # torch comes in here: a fault in the data is told in a second, not in ten
    device = base.device_of(config)
    base_path, tokenizer = prepare(folder, config, staged)
    _note_lineage(folder, config, staged, base_path, device)
    if not weights(folder, config).is_dir():
        checkpoints.remove_torn(folder.path / "checkpoints")
        if config.world_size > 1 or processes.on_ray():
            folder.set_status(stage="train")
            newest = checkpoints.newest_sound(folder.path / "checkpoints")
            ended = processes.train(folder, should_stop, newest)
        else:
            ended = _train(folder, config, base_path, tokenizer, staged, device, should_stop)
        if not ended:
            return "cancelled"
    origin.note_result(folder, weights(folder, config))
    folder.set_status(stage="evaluate", eta_seconds=None)
    try:
        # The base of a classifier or a reward model has no such head: there is nothing to compare with.
        for which in ("tuned", "base") if entry.output == "text" else ("tuned",):
            if which not in folder.scores():  # a run that goes on after a kill may have one already
                processes.score(folder, which) if processes.on_ray() else evaluate(folder, which, should_stop)
    except Stopped:
        return "cancelled"
    return "done"


def weights(folder: RunFolder, config: RunConfig) -> Path:
    """Where the run's result is: RUN/model (all weights) or RUN/adapter."""
    return folder.path / ("model" if config.keeps_whole_model else "adapter")


def prepare_process(config: RunConfig) -> None:
    """Threads, one GPU, and quiet libraries: no telemetry, no progress bars in the log."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if config.world_size == 1:  # TRL refuses several visible GPUs without a launcher
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")
    import datasets
    import huggingface_hub.constants
    import torch
    import transformers

    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True  # it may have been imported before
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if config.threads:
        torch.set_num_threads(config.threads)


def prepare(folder: RunFolder, config: RunConfig, staged: Staged) -> tuple[Path, Any]:
    """The base model's folder (made now, if it is the starter) and its tokenizer. Raises UserError.

    The rows are cut to max_length in place and frozen in RUN/data, if they are not yet.
    """
    base_path = base.locate(config, folder.path)
    if config.base_model == STARTER and not base_path.is_dir():
        folder.set_status(stage="starter")
        with assembled(base_path) as building:
            make_starter(config, (text for row in staged.splits.train for text in contents(row)), building)
    plain = METHODS[config.method].output == "labels"  # its tokenizer cuts the text, whose end is no answer
    tokenizer = base.load_tokenizer(base_path, chat=not plain)
    if "rows" not in staged.card:  # not frozen yet
        counts: Counter[str] = Counter()
        for name in ("train", "eval", "test"):
            if plain:
                break
            rows, found = fit(getattr(staged.splits, name), tokenizer, config.max_length)
            setattr(staged.splits, name, rows)
            counts.update(found)
        staged.card["fitted"] = dict(counts)
        freeze(staged, folder.path / "data")
        _report(staged)
    return base_path, tokenizer


def _report(staged: Staged) -> None:
    """One line in the log for everything that was cut or left out."""
    print(f"rows: {staged.card['rows']}; format: {staged.card['format']}", flush=True)
    for name, count in {
        **staged.card["faults"],
        **staged.card["fitted"],
        "overlap": staged.card["overlap"],
    }.items():
        if count:
            print(f"{name.replace('_', ' ')}: {count}", flush=True)


def _train(
    folder: RunFolder, config: RunConfig, base_path: Path, tokenizer: Any, staged: Staged, device: str,
    should_stop: Callable[[], bool],
) -> bool:  # fmt: skip
    """Try the longest rows, then train from the newest sound checkpoint. Raises Ended where it does not fit."""

    def loop(config: RunConfig) -> bool:
        newest = checkpoints.newest_sound(folder.path / "checkpoints")
        return run_loop(folder, config, base_path, tokenizer, staged, device, should_stop, newest, guess)

    guess = _predicted(folder, config, base_path, tokenizer, staged, device)
    rows = rows_read(config, staged.splits.train)
    smoke.try_out(folder, config, rows, builder(folder, base_path, tokenizer, device), guess, device)
    folder.set_status(stage="train")
    return memory.keep_fitting(folder, config, loop)


def builder(folder: RunFolder, base_path: Path, tokenizer: Any, device: str) -> smoke.Build:
    """`build(config, rows, evaluation, output, callbacks)`: the model seeded and loaded anew, and its trainer."""

    def build(
        config: RunConfig, rows: list[Row], evaluation: list[Row], output: Path, callbacks: list[Any]
    ) -> Any:
        import transformers
        from transformers.trainer_callback import PrinterCallback

        trackers.prepare(folder, config)
        transformers.set_seed(config.seed)
        model = base.load_model(base_path, config, device, labels=head_labels(folder, config))
        entry = METHODS[config.method]
        trainer = entry.build(config, model, tokenizer, rows, evaluation, output, device, callbacks)
        trainer.remove_callback(PrinterCallback)
        return trainer

    return build


def run_loop(
    folder: RunFolder, config: RunConfig, base_path: Path, tokenizer: Any, staged: Staged,
    device: str, should_stop: Callable[[], bool], checkpoint: Path | None, guess: smoke.Prediction | None = None,
) -> bool:  # fmt: skip
    """Train and write the weights; False when stopped before the end.

    Of several processes each calls this with the same arguments, and the first writes (launch/rank.py).
    """
    guess = guess or smoke.Prediction(device)  # the estimate is of one process
    rows = rows_read(config, staged.splits.train)
    callback = progress.callback(folder, should_stop, guess.estimate)
    build = builder(folder, base_path, tokenizer, device)
    trainer = build(config, rows, staged.splits.eval, folder.path / "checkpoints", [callback])
    if not config.packing and (lost := len(rows) - len(trainer.train_dataset)) > 0:
        print(f"rows whose answer does not fit max_length, left out: {lost}", flush=True)
    began = time.monotonic()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.monotonic() - began
    stopped = should_stop() and trainer.state.global_step < trainer.state.max_steps
    if not stopped:
        _save(trainer, tokenizer, weights(folder, config), config, base_path)
        if checkpoint is None:  # a part of a run says nothing of its time
            _calibrate(folder, config, guess, device, seconds)
    del trainer
    memory.release()  # evaluation loads the model again
    return not stopped


def _predicted(
    folder: RunFolder, config: RunConfig, base_path: Path, tokenizer: Any, staged: Staged, device: str
) -> smoke.Prediction:
    """What this run will take. On a device that was never measured a long run measures it first."""
    machine = probe()
    if device == "cpu":
        machine = dataclasses.replace(machine, gpus=[])
    where = machine.gpus[0].name if machine.gpus else "cpu"
    rows = rows_read(config, staged.splits.train)
    chats = [row for row in rows if "prompt" in row and tokenizer.chat_template]
    sizes = sorted(lengths(chats, tokenizer)) or [config.max_length]
    mean = sum(sizes) / len(sizes)
    tokens = Lengths(sizes[len(sizes) // 2], sizes[int(0.95 * len(sizes))], sizes[-1], mean)
    try:
        shape = base.shape_of(base_path)
    except (KeyError, ValueError, OverflowError) as error:
        # An architecture of other words, whose runs stay out of the residuals, or a broken file, which loading tells.
        print(f"not estimated: {base_path}: {type(error).__name__} {error}", flush=True)
        return smoke.Prediction(where)
    home, count = folder.path.parents[3], len(staged.splits.train)
    measured = rate.known(home, machine)
    guess = estimate(config, shape, tokens, machine, count, rate=measured)
    if (
        measured is None
        and config.base_model != STARTER
        and (guess.seconds is None or guess.seconds > LONG_RUN)
    ):
        measured = rate.measure(home, machine)
        guess = estimate(config, shape, tokens, machine, count, rate=measured)
    stack = stack_of(config, device == "cpu", base.uses_bf16(config, device))
    return smoke.Prediction(where, guess, lambda other: sum(run_terms(other, shape, tokens, stack).values()))


def _calibrate(
    folder: RunFolder, config: RunConfig, guess: smoke.Prediction, device: str, seconds: float
) -> None:
    """Keep what was predicted for this run beside what it took, for the intervals of later runs."""
    if guess.estimate is not None:
        pair = measured_pair(guess.estimate, config, guess.device, folder.id, peak_gb(device), seconds)
        note(folder.path.parents[3], folder.path, pair, guess.estimate.terms)


def peak_gb(device: str) -> float:
    """The most memory that this process held: on the GPU with what CUDA itself takes, else its resident set."""
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    import torch

    free, total = torch.cuda.mem_get_info()
    outside = total - free - torch.cuda.memory_reserved()  # the context, and whoever else uses the card
    return (torch.cuda.max_memory_reserved() + outside) / 2**30


def rows_read(config: RunConfig, rows: list[Row]) -> list[Row]:
    """The rows that `max_steps` gets to see; they are shuffled already, so the first are a fair sample.

    Rendering and tokenising the others would take longer than a short run does.
    """
    if config.max_steps < 0 or config.packing:
        return rows
    return rows[: config.max_steps * config.batch_size * config.gradient_accumulation * config.world_size]


def _save(trainer: Any, tokenizer: Any, out: Path, config: RunConfig, base_path: Path) -> None:
    """The final weights as safetensors, with the tokenizer and its chat template beside them."""
    weights = None
    if config.parallel in ("fsdp2", "zero3") and config.world_size > 1:
        weights = trainer.accelerator.get_state_dict(trainer.model)  # gathered: all processes take part
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model)
    if config.keeps_whole_model:
        # Trained in float32 beside bf16 arithmetic, stored as the base model was.
        dtype = base.stored_dtype(base_path)
        model = model.to(dtype) if weights is None else model
        weights = weights and {name: value.to(dtype) for name, value in weights.items()}
        model.config.use_cache = True
    else:
        settings = model.peft_config["default"]
        settings.base_model_name_or_path = (
            str(base_path) if config.base_model == STARTER else config.base_model
        )
    with assembled(out) as building:
        # PiSSA changed the base: its adapter is saved as the difference to its start, for the base as it was.
        start = Path(trainer.args.output_dir) / INITIAL if config.peft == "pissa" else None
        options = {"state_dict": weights}
        options |= {"path_initial_model_for_weight_conversion": str(start)} if start else {}
        model.save_pretrained(building, **options)
        tokenizer.save_pretrained(building)


def _note_lineage(folder: RunFolder, config: RunConfig, staged: Staged, base_path: Path, device: str) -> None:
    """What the result depends on, in lineage.yaml."""
    folder.add_lineage(
        data=staged.card["files"],
        rows=staged.card["rows"],
        seed=config.seed,
        base_model={"name": config.base_model, "path": str(base_path)},
        versions=origin.versions(),
        code=origin.code_state(),
        hardware=origin.hardware(device),
    )
