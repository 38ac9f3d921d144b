"""Thinking apart from the answer, for servers that leave <think>…</think> in the text."""

from __future__ import annotations

from collections.abc import Callable, Iterator

OPEN, CLOSE = "<think>", "</think>"


def without_thoughts(pieces: Iterator[str], on_thought: Callable[[str], None] | None) -> Iterator[str]:
    """Text without a leading <think>…</think>; what stands in it goes to `on_thought`."""
    held, state = "", "start"  # start → text, or start → think → after → text
    for piece in pieces:
        if state == "text":
            yield piece
            continue
        held += piece
        begin = held.lstrip()
        if state == "start" and not OPEN.startswith(begin):
            state = "think" if begin.startswith(OPEN) else "text"
            held = begin.removeprefix(OPEN) if state == "think" else held
        if state == "think" and CLOSE in held:
            thought, _, held = held.partition(CLOSE)
            state = "after"
            if on_thought:
                on_thought(thought.strip())
        if state == "after" and held.strip():
            state, held = "text", held.lstrip()
        if state == "text":
            yield held
    if state == "think" and on_thought:
        on_thought(held.strip())
    elif state == "start" and held:
        yield held
