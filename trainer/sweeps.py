"""Sweeps: a grid or a random search over named fields, as a group of queued runs with a table and a best.

`tunesmith sweep` and the Runs tab call it. A sweep is tasks/<task>/sweeps/<name>.yaml, which lists its runs; each of
them is a run like any other, so that queue, resume, diagnosis and export know nothing of sweeps. No torch.
"""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trainer import config as run_config
from trainer import runs
from trainer.config import RunConfig, UserError, write_atomic
from trainer.mapping import read_mapping
from trainer.runs import RunFolder

MOST_RUNS = 200
NAME = re.compile(r"s[1-9]\d{0,8}")
# Scores by which runs are ranked, the first that all have; the second says whether more is better.
RANKED = (
    ("accuracy", True),
    ("exact_match", True),
    ("macro_f1", True),
    ("loss", False),
    ("eval_loss", False),
)


@dataclass(frozen=True)
class Range:
    """Every number between two; learning rates and others that span a power of ten are drawn by their logarithm."""

    low: float
    high: float
    whole: bool

    def draw(self, chance: random.Random) -> float:
        if self.low > 0 and self.high / self.low >= 10:
            value = math.exp(chance.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = chance.uniform(self.low, self.high)
        return round(value) if self.whole else float(f"{value:.3g}")


@dataclass(frozen=True)
class Sweep:
    """A group of runs: `id` is "task/s1", `fields` are the swept ones, `runs` the ids in their order."""

    id: str
    fields: list[str]
    runs: list[str]


def parse(settings: Iterable[str]) -> dict[str, list[Any] | Range]:
    """`learning_rate=1e-4,2e-4` and `r=8..64` → values or a range by field. Raises UserError."""
    found: dict[str, list[Any] | Range] = {}
    for text in settings:
        name, equals, values = text.partition("=")
        name = name.strip()
        if not equals or not values.strip():
            raise UserError(f"--set {text}: write FIELD=VALUE,VALUE or FIELD=LOW..HIGH")
        if name not in RunConfig.model_fields:
            raise UserError(
                f"--set {text}: no field {name!r}; the fields are: {', '.join(RunConfig.model_fields)}"
            )
        if name in ("task", "train_file", "test_file", "eval_file"):
            raise UserError(f"--set {text}: runs of a sweep share task and data; sweep another field")
        found[name] = _values(name, values.strip())
    if not found:
        raise UserError("a sweep needs a field: --set learning_rate=1e-4,2e-4")
    return found


def _values(name: str, text: str) -> list[Any] | Range:
    low, dots, high = text.partition("..")
    if dots:
        try:
            whole = RunConfig.model_fields[name].annotation is int
            return Range(float(low), float(high), whole)
        except ValueError:
            raise UserError(f"--set {name}={text}: a range is LOW..HIGH, two numbers") from None
    values = [yaml.safe_load(part) for part in text.split(",")]
    return list(dict.fromkeys(values))


def combinations(
    fields: dict[str, list[Any] | Range], count: int | None = None, seed: int = 0
) -> list[dict[str, Any]]:
    """Every combination, or `count` drawn at random without one twice. Raises UserError for a range without a count."""
    ranges = [name for name, values in fields.items() if isinstance(values, Range)]
    if count is None:
        if ranges:
            raise UserError(
                f"--set {ranges[0]}: a range is drawn from at random; say how often with --random N"
            )
        return [dict(zip(fields, values, strict=True)) for values in itertools.product(*fields.values())]
    chance, found = random.Random(seed), []
    for _ in range(100 * count):  # a small grid has no more
        one = {
            name: values.draw(chance) if isinstance(values, Range) else chance.choice(values)
            for name, values in fields.items()
        }
        if one not in found:
            found.append(one)
        if len(found) == count:
            break
    return found


def create(
    tasks_dir: Path,
    config: RunConfig,
    fields: dict[str, list[Any] | Range],
    count: int | None = None,
    seed: int = 0,
) -> tuple[Sweep, list[RunFolder]]:
    """Make the runs of a sweep, none of them before all are valid; `Jobs.submit` starts them. Raises UserError."""
    chosen = combinations(fields, count, seed)
    if len(chosen) > MOST_RUNS:
        raise UserError(
            f"the sweep has {len(chosen)} runs; {MOST_RUNS} is the most: draw some with --random N"
        )
    plain = config.model_dump()
    configs = [run_config.from_dict({**plain, **changes}, "sweep") for changes in chosen]
    folder = tasks_dir / config.task / "sweeps"
    folder.mkdir(parents=True, exist_ok=True)
    name = _reserve(folder)
    made = []
    for one, changes in zip(configs, chosen, strict=True):
        run = runs.create(tasks_dir, one)
        run.add_lineage(sweep=f"{config.task}/{name}", swept=changes)
        made.append(run)
    sweep = Sweep(f"{config.task}/{name}", list(fields), [run.id for run in made])
    values = {"fields": sweep.fields, "runs": sweep.runs, "random": count, "seed": seed}
    write_atomic(folder / f"{name}.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    return sweep, made


def _reserve(folder: Path) -> str:
    """The next free name; of two processes each gets its own."""
    number = 1 + max(
        (int(path.stem[1:]) for path in folder.glob("s*.yaml") if NAME.fullmatch(path.stem)), default=0
    )
    while True:
        try:
            (folder / f"s{number}.yaml").open("x").close()
            return f"s{number}"
        except FileExistsError:
            number += 1


def load(tasks_dir: Path, sweep_id: str) -> Sweep:
    """The sweep called "task/s1". Raises UserError that lists what there is."""
    task, _, name = sweep_id.partition("/")
    path = tasks_dir / task / "sweeps" / f"{name}.yaml"
    if not (run_config.TASK_NAME.fullmatch(task) and NAME.fullmatch(name) and path.is_file()):
        known = ", ".join(all_sweeps(tasks_dir)[:5]) or "none yet"
        raise UserError(f"no sweep {sweep_id[:80]!r}; there are: {known}")
    values = read_mapping(path)
    return Sweep(sweep_id, list(values.get("fields") or []), list(values.get("runs") or []))


def all_sweeps(tasks_dir: Path) -> list[str]:
    """Ids of all sweeps, the newest first."""
    found = [
        path
        for path in tasks_dir.glob("*/sweeps/s*.yaml")
        if NAME.fullmatch(path.stem) and path.stat().st_size
    ]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [f"{path.parent.parent.name}/{path.stem}" for path in found]


def table(tasks_dir: Path, sweep: Sweep) -> list[dict[str, Any]]:
    """A row a run: {"run", "state", "values": {field: value}, "scores": {name: score}, "n"}; removed runs are left out."""
    rows = []
    for run_id in sweep.runs:
        try:
            folder = runs.find(tasks_dir, run_id)
        except UserError:
            continue
        plain, tested = folder.config().model_dump(), folder.scores()
        tuned = tested.get("tuned") or {}
        scores = {name: tuned[name] for name, _ in RANKED if isinstance(tuned.get(name), int | float)}
        evaluated = [row["eval_loss"] for row in folder.metrics() if row.get("eval_loss") is not None]
        if evaluated:
            scores["eval_loss"] = min(evaluated)
        rows.append(
            {
                "run": run_id,
                "state": folder.status()["state"],
                "values": {name: plain[name] for name in sweep.fields},
                "scores": scores,
                "n": tested.get("n"),
                "interval": tuned.get("interval"),
            }
        )
    return rows


def best(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """{"row", "score", "value", "margin", "n", "others"} of the run that is best by the first score all ended ones have.

    `margin` is half the score's 95 % interval: differences below it may be chance, and `others` lie within it. None
    before the first run is done.
    """
    done = [row for row in rows if row["state"] == "done" and row["scores"]]
    ranked = next(
        ((name, more) for name, more in RANKED if done and all(name in row["scores"] for row in done)), None
    )
    if ranked is None:
        return None
    name, more = ranked
    winner = (max if more else min)(done, key=lambda row: row["scores"][name])
    value, low_high = winner["scores"][name], winner["interval"]
    margin = (low_high[1] - low_high[0]) / 2 if low_high and name == "accuracy" else None
    if margin is None and more and winner["n"]:
        margin = 1.96 * math.sqrt(max(value * (1 - value), 1 / winner["n"]) / winner["n"])
    near = [
        row["run"] for row in done if margin and row is not winner and value - row["scores"][name] <= margin
    ]
    return {"row": winner, "score": name, "value": value, "margin": margin, "n": winner["n"], "others": near}
