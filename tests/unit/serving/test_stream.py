from __future__ import annotations

import contextlib
import gc
import signal
import threading
from collections.abc import Iterator
from contextvars import copy_context
from queue import SimpleQueue

import pytest

from redis_consumer.logs import job_context
from redis_consumer.serving.stream import Stream

WAIT_S = 20.0


class Gate:
    """A function whose calls stay under way until they are let go, each by itself."""

    def __init__(self, count: int) -> None:
        self.doors = [threading.Event() for _ in range(count)]
        self.begun: SimpleQueue[int] = SimpleQueue()

    def __call__(self, number: int) -> int:
        self.begun.put(number)
        assert self.doors[number].wait(WAIT_S)
        return 10 * number

    def open(self, *numbers: int) -> None:
        for number in numbers:
            self.doors[number].set()

    def wait_for(self, count: int) -> set[int]:
        return {self.begun.get(timeout=WAIT_S) for _ in range(count)}


def in_thread(stream: Stream, gate: Gate, count: int) -> tuple[threading.Thread, list[int]]:
    """Take all results in a thread."""
    taken: list[int] = []

    def take() -> None:
        taken.extend(stream.map(gate, range(count)))

    thread = threading.Thread(target=take)
    thread.start()
    return thread, taken


@pytest.mark.parametrize("in_flight", [1, 2, 3, 10])
def test_results_come_in_the_order_of_the_items(in_flight: int) -> None:
    with Stream(in_flight) as stream:
        assert list(stream.map(lambda number: number**2, range(50))) == [number**2 for number in range(50)]


def test_no_items_give_no_results() -> None:
    with Stream(2) as stream:
        assert list(stream.map(str, [])) == []


def test_so_many_calls_are_under_way_at_once() -> None:
    gate = Gate(9)
    with Stream(3) as stream:
        thread, taken = in_thread(stream, gate, 9)
        assert gate.wait_for(3) == {0, 1, 2}
        assert gate.begun.empty()
        gate.open(*range(9))
        thread.join(WAIT_S)
    assert taken == [10 * number for number in range(9)]


def test_a_slow_call_holds_back_the_results_but_not_the_next_calls() -> None:
    gate = Gate(4)
    with Stream(2) as stream:
        thread, taken = in_thread(stream, gate, 4)
        gate.open(1, 2, 3)
        assert gate.wait_for(4) == {0, 1, 2, 3}
        assert taken == []
        gate.open(0)
        thread.join(WAIT_S)
    assert taken == [0, 10, 20, 30]


def test_calls_go_on_while_a_result_is_worked_on_but_not_without_bound() -> None:
    begun: SimpleQueue[int] = SimpleQueue()
    with Stream(2) as stream:
        results = stream.map(begun.put, range(100))
        next(results)
        # Two items a thread are taken at most, and the first one isn't given back yet.
        assert {begun.get(timeout=WAIT_S) for _ in range(4)} == {0, 1, 2, 3}
        assert begun.empty()
        next(results)
        assert begun.get(timeout=WAIT_S) == 4


def test_the_first_error_is_raised_at_once_and_no_further_call_begins() -> None:
    gate = Gate(3)
    begun: list[int] = []

    def fail(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise LookupError("no")
        return gate(0)

    with Stream(2) as stream, pytest.raises(LookupError, match="no"):
        next(stream.map(fail, range(100)))
    gate.open(0)
    join_calls()
    assert set(begun) <= {0, 1}


def test_an_error_of_the_items_is_raised() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("items")

    with Stream(2) as stream, pytest.raises(ValueError, match="items"):
        list(stream.map(str, items()))


def test_leaving_the_block_waits_for_no_call() -> None:
    gate = Gate(10)
    with Stream(2) as stream:
        results = stream.map(gate, range(10))
        gate.open(0)
        next(results)
    # Both threads still are in calls, and nothing begins after them.
    gate.open(*range(10))
    join_calls()
    assert gate.begun.qsize() <= 4


def test_a_signal_ends_the_wait() -> None:
    class Stop(BaseException):
        pass

    def on_signal(*_: object) -> None:
        raise Stop

    gate = Gate(2)
    previous = signal.signal(signal.SIGUSR2, on_signal)
    try:
        main = threading.main_thread().ident
        assert main is not None

        def interrupt() -> None:
            gate.wait_for(2)
            signal.pthread_kill(main, signal.SIGUSR2)

        interrupter = threading.Thread(target=interrupt)
        interrupter.start()
        with pytest.raises(Stop), Stream(2) as stream:
            list(stream.map(gate, range(2)))
        interrupter.join(WAIT_S)
    finally:
        signal.signal(signal.SIGUSR2, previous)
        gate.open(0, 1)
        join_calls()


def test_what_is_told_is_done_by_the_taker_before_its_result() -> None:
    done: list[tuple[int, bool]] = []

    with Stream(2) as stream:

        def tell(number: int) -> int:
            stream.tell(lambda: done.append((number, threading.current_thread() is threading.main_thread())))
            return number

        assert list(stream.map(tell, range(4))) == [0, 1, 2, 3]
    assert sorted(done) == [(number, True) for number in range(4)]


def test_an_error_in_what_is_told_ends_the_stream() -> None:
    def refuse() -> None:
        raise LookupError("lost")

    with Stream(2) as stream:

        def tell(_: int) -> None:
            stream.tell(refuse)
            gate(0)

        gate = Gate(1)
        with pytest.raises(LookupError, match="lost"):
            list(stream.map(tell, range(2)))
    gate.open(0)
    join_calls()


def test_after_the_end_telling_ends_the_call() -> None:
    gate, told, ended = Gate(1), threading.Event(), threading.Event()

    def call(number: int) -> None:
        if number == 1:
            gate(0)
            with contextlib.ExitStack() as stack:
                stack.callback(ended.set)
                stream.tell(told.set)

    with Stream(2) as stream:
        next(stream.map(call, range(2)))
        gate.wait_for(1)
    gate.open(0)
    assert ended.wait(WAIT_S)
    join_calls()
    assert not told.is_set()


def test_calls_log_as_the_taker_does() -> None:
    with job_context(job_id="predict:a:1"), Stream(1) as stream:
        (there,) = stream.map(lambda _: dict(copy_context()), [0])
        assert there == dict(copy_context())


def join_calls() -> None:
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("call-"):
            thread.join(WAIT_S)
            assert not thread.is_alive()
