"""Thumbs as preference data that the trainer reads: votes in, JSON lines out. Run: `tunesmith conversations export`.

A vote makes a row for KTO; a question with a liked and a disliked answer makes rows for DPO, ORPO and SimPO.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

from assistant import answer as answering
from assistant import conversations
from assistant.conversations import Turns
from assistant.followup import carried_over
from assistant.markers import strip_markers, tidy
from kb.errors import UserError
from trainer.config import write_atomic

KINDS = ("kto", "dpo")
Row = dict[str, Any]
Message = dict[str, str]


def export(store: Path, target: Path, kind: str = "kto") -> int:
    """Write the rows of `kind` to `target` (.jsonl) and return how many. Raises UserError when there are none."""
    if kind not in KINDS:
        raise UserError(f"unknown kind of preference data '{kind}'; choose one of: {', '.join(KINDS)}")
    if target.suffix != ".jsonl":
        raise UserError(f"{target}: the rows are JSON lines; name the file {target.with_suffix('.jsonl')}")
    found = rows(store, kind)
    if not found:
        missing = (
            "no answer has a thumb up or down yet; give some in the Ask tab"
            if kind == "kto"
            else "no question has both a liked and a disliked answer; use 'answer again' and rate both"
        )
        raise UserError(missing)
    try:
        write_atomic(target, as_lines(found))
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); choose another path") from None
    return len(found)


def as_lines(found: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found)


def rows(store: Path, kind: str) -> list[Row]:
    """`kto`: {prompt, completion, label, reason} for every vote. `dpo`: {prompt, chosen, rejected, reason}."""
    found = _votes(store)
    return found if kind == "kto" else _pairs(found)


def _votes(store: Path) -> list[Row]:
    found = []
    for conversation in conversations.voted(store):
        turns = conversations.load(store, conversation)
        for number, vote in conversations.votes(store, conversation).items():
            text = tidy(strip_markers(turns[number - 1][1].text)).strip()
            found.append(
                {
                    "prompt": prompt(turns, number),
                    "completion": [{"role": "assistant", "content": text}],
                    "label": vote.liked,
                    "reason": vote.reason,
                }
            )
    return found


def _pairs(votes: list[Row]) -> list[Row]:
    """Every liked answer beside every disliked one to the same prompt; the reason is why the other was rejected."""
    asked: dict[str, dict[bool, list[Row]]] = {}
    for row in votes:
        sides = asked.setdefault(json.dumps(row["prompt"]), {True: [], False: []})
        sides[row["label"]].append(row)
    return [
        {
            "prompt": liked["prompt"],
            "chosen": liked["completion"],
            "rejected": other["completion"],
            "reason": other["reason"] or liked["reason"],
        }
        for sides in asked.values()
        for liked, other in product(sides[True], sides[False])
        if liked["completion"] != other["completion"]
    ]


def prompt(turns: Turns, number: int) -> list[Message]:
    """What the answer of turn `number` (from 1) was given to: a question that stands alone is the whole prompt,
    a follow-up stands after what was said before it."""
    question = turns[number - 1][0]
    history = answering.turns(conversations.before(turns[: number - 1], question))
    alone = carried_over(question, history) == question
    earlier = [] if alone else [{**turn, "content": tidy(strip_markers(turn["content"]))} for turn in history]
    return [*earlier, {"role": "user", "content": question.strip()}]
