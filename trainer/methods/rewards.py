"""Reward functions of GRPO and RLOO: an answer in, a number out. Named in a run's `rewards`.

    exact               1 where the answer is the row's own: of a longer text the last \\boxed{} or what follows ####
    label               1 where the answer names the row's label, give or take case and punctuation
    regex:PATTERN       1 where the pattern is found (Python's re, over lines)
    json                1 where the answer is JSON; json:SCHEMA.json: and fits the schema, .5 where it is only JSON
    length:N            1 up to N characters, falling to 0 at twice that
    file:REWARD.py      what its `reward(prompt, answer, reference)` returns, run in a process of its own

A number and * before a name is its weight: 0.2*length:200. No torch.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import UserError
from trainer.data.convert import Row

NAMES = ("exact", "label", "regex", "json", "length", "file")
WEIGHT = re.compile(r"\s*([-+]?\d+(?:\.\d+)?)\s*\*\s*(.*)", re.DOTALL)
FENCE = re.compile(r"\A```(?:json)?\s*\n(.*?)\n?```\s*\Z", re.DOTALL)
BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
ROW_SECONDS = 5  # that a user's function may take for one answer
START_SECONDS = 60  # to start its process and its imports
CHILD = Path(__file__).with_name("reward_child.py")

# (prompts, answers, references) → a number each; None where there is none
Judge = Callable[[Sequence[str], Sequence[str], Sequence[str | None]], list[float | None]]


@dataclass(frozen=True)
class Reward:
    """One entry of `rewards`. `judge` is made for the labels of the run's rows."""

    name: str
    argument: str
    weight: float
    make: Callable[[str, list[str]], Judge]

    @property
    def spec(self) -> str:
        return f"{self.name}:{self.argument}" if self.argument else self.name

    def score(self, rows: Sequence[Row], answers: Sequence[str], labels: list[str]) -> list[float | None]:
        """Rewards, unweighted, of answers to rows."""
        prompts = [row["prompt"][-1]["content"] for row in rows]
        return self.make(self.argument, labels)(prompts, answers, [reference_of(row) for row in rows])

    def for_trl(self, labels: list[str]) -> Callable[..., list[float | None]]:
        """The function as a trainer calls it: conversations and the column `reference`."""
        judge = self.make(self.argument, labels)

        def reward(prompts, completions, reference, **_):
            answers = [completion[-1]["content"] for completion in completions]
            return judge([prompt[-1]["content"] for prompt in prompts], answers, reference)

        reward.__name__ = re.sub(r"\W+", "_", self.spec)[:40]
        return reward


def parse(specs: Sequence[str]) -> list[Reward]:
    """The rewards that a run names. Raises UserError that names the entry, what is wrong and what is known."""
    if not specs:
        raise UserError(f"rewards: none given; name one or more of {', '.join(NAMES)}")
    return [_parse(spec) for spec in specs]


def _parse(spec: str) -> Reward:
    weighted = WEIGHT.fullmatch(spec)
    weight, rest = (float(weighted[1]), weighted[2]) if weighted else (1.0, spec)
    name, _, argument = rest.strip().partition(":")
    if name not in NAMES:
        raise UserError(f"rewards: {spec!r}: unknown; choose from {', '.join(NAMES)}, such as regex:^\\d+$")
    if name in ("regex", "length", "file") and not argument:
        raise UserError(f"rewards: {spec!r}: give its argument after a colon, such as length:200")
    if name in ("exact", "label") and argument:
        raise UserError(f"rewards: {spec!r}: {name} takes no argument; write {name}")
    MAKERS[name](argument, [])  # a pattern, a schema or a file that cannot be used is told now
    return Reward(name, argument, weight, MAKERS[name])


def require_references(rewards: Sequence[Reward], rows: Sequence[Row]) -> None:
    """Raise UserError where a reward compares with an answer that the rows do not have."""
    needy = next((one.spec for one in rewards if one.name in ("exact", "label")), None)
    if needy and any(reference_of(row) is None for row in rows):
        raise UserError(
            f"rewards: {needy!r} compares with the right answer and the rows have none; give rows with prompt and "
            f"completion, or rewards that need none: regex, json, length, file"
        )


def reference_of(row: Row) -> str | None:
    """The row's right answer, as text."""
    return row["completion"][-1]["content"] if row.get("completion") else None


def labels_of(rows: Sequence[Row]) -> list[str]:
    return sorted({answer for row in rows if (answer := reference_of(row)) is not None})


def total(
    rewards: Sequence[Reward], rows: Sequence[Row], answers: Sequence[str], labels: list[str]
) -> list[float]:
    """The weighted sum for each answer; what has no reward counts as 0."""
    parts = [[(value or 0.0) * one.weight for value in one.score(rows, answers, labels)] for one in rewards]
    return [sum(values) for values in zip(*parts, strict=True)]


# one maker a name: (argument, labels) → judge


def _each(one: Callable[[str, str | None], float]) -> Judge:
    return lambda prompts, answers, references: [
        one(answer, reference) for answer, reference in zip(answers, references, strict=True)
    ]


def _exact(argument: str, labels: list[str]) -> Judge:
    return _each(lambda answer, reference: float(_same(final(answer), final(reference or ""))))


def final(text: str) -> str:
    """What a text gives as its answer: GSM8K's #### line, the last \\boxed{}, or all of it."""
    if "####" in text:
        return text.rpartition("####")[2].strip()
    boxed = BOXED.findall(text)
    return boxed[-1].strip() if boxed else text.strip()


def _same(a: str, b: str) -> bool:
    try:
        return float(a.replace(",", "").rstrip(".")) == float(b.replace(",", "").rstrip("."))
    except ValueError:
        return bool(a) and a.casefold() == b.casefold()


def _label(argument: str, labels: list[str]) -> Judge:
    from trainer.evaluate import as_label

    return _each(lambda answer, reference: float(as_label(answer, labels) == reference))


def _regex(argument: str, labels: list[str]) -> Judge:
    try:
        pattern = re.compile(argument, re.MULTILINE)
    except re.error as error:
        raise UserError(f"rewards: regex:{argument}: not a regular expression: {error}") from None
    return _each(lambda answer, _: float(pattern.search(answer) is not None))


def _json(argument: str, labels: list[str]) -> Judge:
    validator = _validator(Path(argument).expanduser()) if argument else None

    def judge(answer: str, _: str | None) -> float:
        fenced = FENCE.match(answer.strip())
        try:
            value = json.loads(fenced[1] if fenced else answer)
        except (ValueError, RecursionError):
            return 0.0
        return 1.0 if validator is None or validator.is_valid(value) else 0.5

    return _each(judge)


def _validator(path: Path) -> Any:
    import jsonschema

    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        kind = jsonschema.validators.validator_for(schema)
        kind.check_schema(schema)
    except FileNotFoundError:
        raise UserError(f"rewards: json:{path}: no such file; give the path of a JSON schema") from None
    except (OSError, ValueError, jsonschema.SchemaError) as error:
        raise UserError(
            f"rewards: json:{path}: not a JSON schema: {str(error).splitlines()[0][:120]}"
        ) from None
    return kind(schema)


def _length(argument: str, labels: list[str]) -> Judge:
    if not argument.isdecimal() or not int(argument):
        raise UserError(f"rewards: length:{argument}: give a number of characters, such as length:200")
    limit = int(argument)
    return _each(lambda answer, _: min(1.0, max(0.0, 2 - len(answer) / limit)))


def _file(argument: str, labels: list[str]) -> Judge:
    path = Path(argument).expanduser().resolve()
    if not path.is_file():
        raise UserError(
            f"rewards: file:{argument}: no such file; give a Python file with reward(prompt, answer, reference)"
        )
    return lambda prompts, answers, references: in_process(path, prompts, answers, references)


def in_process(
    path: Path, prompts: Sequence[str], answers: Sequence[str], references: Sequence[str | None]
) -> list[float | None]:
    """`reward(prompt, answer, reference)` of a user's file for each row, in a process without our environment.

    None where it took more than ROW_SECONDS or raised; the first fault goes to the log. Raises UserError where the
    file cannot be loaded, or every row of a batch fails.
    """
    rows = [list(row) for row in zip(prompts, answers, references, strict=True)]
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(CHILD), str(path), str(ROW_SECONDS)],
            input=json.dumps(rows), capture_output=True, text=True, cwd=path.parent,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}, timeout=START_SECONDS + ROW_SECONDS * len(rows),
        )  # fmt: skip
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise UserError(f"rewards: file:{path}: its process does not end; make it faster") from None
    except ValueError:
        said = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"rewards: file:{path}: its process ended early: {said[:160]}") from None
    if fault := found["fault"]:
        if all(value is None for value in found["rewards"]):
            raise UserError(f"rewards: file:{fault}; mend the file")
        print(f"reward left out: {fault}", flush=True)
    return found["rewards"]


MAKERS: dict[str, Callable[[str, list[str]], Judge]] = {
    "exact": _exact, "label": _label, "regex": _regex, "json": _json, "length": _length, "file": _file,
}  # fmt: skip
