"""A person's blind votes between two models: kept in TASK/votes.jsonl, counted, and given back as rows for DPO.

`add` appends one line and never changes another. A vote: {time, a, b (the models), winner ("a", "b", "tie" or
"bad"), prompt (messages as the task's rows have them, without its own instruction and system message), answers {a, b},
options}. Who stood on which side of the screen is kept too, so that a habit of voting left can be seen.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from trainer.config import RunConfig, UserError, write_atomic
from trainer.data.convert import instructed
from trainer.evaluate import wilson

FILE = "votes.jsonl"
WINNERS = ("a", "b", "tie", "bad")
Vote = dict[str, Any]
Message = dict[str, str]


def add(task: Path, vote: Vote) -> None:
    """Append a vote to the task's file. Two pages may do so at once."""
    if vote["winner"] not in WINNERS:
        raise ValueError(f"winner {vote['winner']!r}")
    line = (json.dumps({"time": round(time.time(), 3), **vote}, ensure_ascii=False) + "\n").encode()
    handle = os.open(task / FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":  # a killed writer left half a line
            line = b"\n" + line
        os.write(handle, line)
        os.fsync(handle)
    finally:
        os.close(handle)


def read(task: Path) -> list[Vote]:
    """All votes in order; a torn line is left out."""
    try:
        lines = (task / FILE).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            vote = json.loads(line)
            if vote["winner"] in WINNERS and vote["a"] and vote["b"] and vote["answers"]:
                found.append(vote)
        except (ValueError, KeyError, TypeError):
            continue
    return found


def tally(votes: list[Vote]) -> list[dict[str, Any]]:
    """One row a pair of models, in the order of their names: {a, b, wins {a, b}, tie, bad, left, rate, interval}.

    rate: share of the decided votes that b won, with its 95 % interval (Wilson); None while nothing is decided.
    left: share of the decided votes that went to the left side; far from .5 it is the place that was voted on.
    """
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for vote in votes:
        first, second = sorted((vote["a"], vote["b"]))
        row = pairs.setdefault((first, second), {"a": first, "b": second, "wins": {first: 0, second: 0}, "tie": 0, "bad": 0, "lefts": 0})  # fmt: skip
        if vote["winner"] in ("tie", "bad"):
            row[vote["winner"]] += 1
        else:
            row["wins"][vote[vote["winner"]]] += 1
            row["lefts"] += vote.get("left") == vote["winner"]
    for (_, second), row in pairs.items():
        n = sum(row["wins"].values())
        row["rate"] = row["wins"][second] / n if n else None
        row["interval"] = wilson(row["wins"][second], n)
        row["left"] = row.pop("lefts") / n if n else None
    return [pairs[key] for key in sorted(pairs)]


def pairs(votes: list[Vote]) -> list[dict[str, Any]]:
    """Rows {prompt, chosen, rejected} of the decided votes, as DPO, ORPO and SimPO take them. Equal answers make none."""
    found = []
    for vote in votes:
        winner = vote["winner"]
        if winner not in ("a", "b"):
            continue
        chosen, rejected = vote["answers"][winner], vote["answers"]["b" if winner == "a" else "a"]
        if chosen.strip() == rejected.strip():
            continue
        say = lambda text: [{"role": "assistant", "content": text.strip()}]
        found.append({"prompt": vote["prompt"], "chosen": say(chosen), "rejected": say(rejected)})
    return found


def export(task: Path, target: Path) -> int:
    """Write the pairs of a task to a .jsonl file; returns how many. Raises UserError where there are none."""
    found = pairs(read(task))
    if not found:
        raise UserError(
            f"{task.name}: no vote for one of two answers yet; vote in the Test tab, Blind comparison"
        )
    if target.suffix != ".jsonl":
        raise UserError(f"{target}: the rows are JSON lines; name the file {target.with_suffix('.jsonl')}")
    write_atomic(target, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))
    return len(found)


def bare(config: RunConfig, messages: list[Message]) -> list[Message]:
    """A prompt without the task's own system message and instruction: a later run puts them there itself."""
    head = instructed(config.instruction, "")
    kept = [dict(message) for message in messages]
    if kept and kept[0]["role"] == "system" and kept[0]["content"] == config.system_prompt:
        kept = kept[1:]
    for message in kept:
        if head and message["role"] == "user" and message["content"].startswith(head):
            message["content"] = message["content"][len(head) :]
    return kept
