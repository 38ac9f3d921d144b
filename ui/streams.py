"""Answers and downloads under way, which a person can stop at once. Used by the Ask tab.

Gradio's own `cancels` is not used: it leaves an error over every output of an event that is stopped mid-stream.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import TypeVar

Part = TypeVar("Part")
LOOK_SECONDS = 0.1


class Stop:
    """A wish to end. `quiet`: the person has gone elsewhere on the page, so nothing more may be shown."""

    def __init__(self) -> None:
        self.wanted = threading.Event()
        self.quiet = False


class Streams:
    """What is under way, by page (Gradio's session); one at a time on each."""

    def __init__(self) -> None:
        self._running: dict[str, Stop] = {}

    @contextmanager
    def begin(self, page: str) -> Iterator[Stop]:
        """Within it a stream runs that `end` can stop. An earlier one on the same page ends in silence."""
        self.end(page, quiet=True)
        stop = self._running[page] = Stop()
        try:
            yield stop
        finally:  # also when the page was closed: nobody listens any more
            stop.wanted.set()
            if self._running.get(page) is stop:
                del self._running[page]

    def end(self, page: str, quiet: bool = False) -> None:
        stop = self._running.get(page)
        if stop:
            stop.quiet = stop.quiet or quiet
            stop.wanted.set()


def newest(parts: Generator[Part], stop: Stop) -> Iterator[Part]:
    """The last of the parts that have come, again and again, and always the very last one.

    Ends at once when a stop is wanted, even while the next part is awaited: a model may be loading for a minute.
    Parts are made in a thread of their own; what they raise is raised here.
    """
    box: SimpleQueue[tuple[Part | None, BaseException | None]] = SimpleQueue()

    def pump() -> None:
        fault = None
        try:
            for part in parts:
                box.put((part, None))
                if stop.wanted.is_set():
                    break
        except BaseException as error:
            fault = error
        finally:
            parts.close()  # hangs up, so that the server stops as well
            box.put((None, fault))

    threading.Thread(target=pump, daemon=True, name="stream").start()
    while not stop.wanted.is_set():
        try:
            part, fault = box.get(timeout=LOOK_SECONDS)
        except Empty:
            continue
        while part is not None and not box.empty():
            following, fault = box.get()
            if following is None:
                yield part
            part = following
        if fault:
            raise fault
        if part is None:
            return
        yield part
