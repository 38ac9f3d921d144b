"""What is under way can be stopped at once, also while it is waiting."""

import threading
import time

import pytest

from ui.streams import Stop, Streams, newest


def test_the_last_part_always_comes_and_a_fault_comes_after_it():
    def parts(fault=None):
        yield from range(1000)
        if fault:
            raise fault

    assert list(newest(parts(), Stop()))[-1] == 999
    seen = []
    with pytest.raises(ValueError, match="broke off"):
        for part in newest(parts(ValueError("broke off")), Stop()):
            seen.append(part)
    assert seen[-1] == 999


def test_a_stop_ends_a_stream_that_waits_and_closes_its_source():
    released, closed = threading.Event(), threading.Event()

    def slow():
        try:
            yield 1
            released.wait(20)
            yield 2
        finally:
            closed.set()

    streams = Streams()
    with streams.begin("page") as stop:
        threading.Timer(0.2, streams.end, ["page"]).start()
        start = time.monotonic()
        assert list(newest(slow(), stop)) == [1] and not stop.quiet
        assert time.monotonic() - start < 5
    released.set()
    assert closed.wait(5)


def test_a_new_stream_on_a_page_silences_the_one_before_it():
    streams = Streams()
    with streams.begin("page") as first, streams.begin("other") as other:
        with streams.begin("page"):
            assert first.wanted.is_set() and first.quiet
        streams.end("page")  # nothing runs there: nothing happens
        assert not other.wanted.is_set()
