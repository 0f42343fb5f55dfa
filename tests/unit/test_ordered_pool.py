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
from redis_consumer.wanted import OrderedPool

WAIT_S = 20.0

both = pytest.mark.parametrize("is_detached", [False, True], ids=["attached", "detached"])


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


def in_thread(pool: OrderedPool, gate: Gate, count: int) -> tuple[threading.Thread, list[int]]:
    """Take all results in a thread."""
    taken: list[int] = []

    def take() -> None:
        taken.extend(pool.map(gate, range(count)))

    thread = threading.Thread(target=take)
    thread.start()
    return thread, taken


@both
@pytest.mark.parametrize("threads", [1, 2, 3, 10])
def test_results_come_in_the_order_of_the_items(threads: int, is_detached: bool) -> None:
    with OrderedPool(threads, is_detached=is_detached) as pool:
        assert list(pool.map(lambda number: number**2, range(50))) == [number**2 for number in range(50)]


@both
def test_no_items_give_no_results(is_detached: bool) -> None:
    with OrderedPool(2, is_detached=is_detached) as pool:
        assert list(pool.map(str, [])) == []


@both
def test_so_many_calls_are_under_way_at_once(is_detached: bool) -> None:
    gate = Gate(9)
    with OrderedPool(3, is_detached=is_detached) as pool:
        thread, taken = in_thread(pool, gate, 9)
        assert gate.wait_for(3) == {0, 1, 2}
        assert gate.begun.empty()
        gate.open(*range(9))
        thread.join(WAIT_S)
    assert taken == [10 * number for number in range(9)]


@both
def test_a_slow_call_holds_back_the_results_but_not_the_next_calls(is_detached: bool) -> None:
    gate = Gate(4)
    with OrderedPool(2, is_detached=is_detached) as pool:
        thread, taken = in_thread(pool, gate, 4)
        gate.open(1, 2, 3)
        assert gate.wait_for(4) == {0, 1, 2, 3}
        assert taken == []
        gate.open(0)
        thread.join(WAIT_S)
    assert taken == [0, 10, 20, 30]


@both
def test_calls_go_on_while_a_result_is_worked_on_but_not_without_bound(is_detached: bool) -> None:
    begun: SimpleQueue[int] = SimpleQueue()
    with OrderedPool(2, is_detached=is_detached) as pool:
        results = pool.map(begun.put, range(100))
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

    with OrderedPool(2, is_detached=True) as pool, pytest.raises(LookupError, match="no"):
        next(pool.map(fail, range(100)))
    gate.open(0)
    join_calls()
    assert set(begun) <= {0, 1}


@both
def test_an_error_of_the_items_is_raised(is_detached: bool) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("items")

    with OrderedPool(2, is_detached=is_detached) as pool, pytest.raises(ValueError, match="items"):
        list(pool.map(str, items()))


def test_few_items_are_taken_ahead_in_the_thread_of_the_taker() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append((number, threading.current_thread()))
            yield number

    with OrderedPool(2) as pool:
        next(pool.map(str, items()))
        assert taken == [(number, threading.main_thread()) for number in range(4)]


def test_the_end_of_the_block_waits_for_calls_in_flight_and_no_other_begins() -> None:
    gate, ended = Gate(10), []

    def call(number: int) -> None:
        gate(number)
        ended.append(number)

    opener = threading.Timer(0.2, gate.open, args=range(1, 10))
    with OrderedPool(2) as pool:
        results = pool.map(call, range(10))
        gate.open(0)
        next(results)
        assert gate.wait_for(3) == {0, 1, 2}
        opener.start()
    assert sorted(ended) == [0, 1, 2]
    opener.join()


def test_an_error_ends_an_attached_pool() -> None:
    with OrderedPool(8) as pool, pytest.raises(ZeroDivisionError):
        list(pool.map(lambda number: 1 // (number - 5), range(1000)))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("call-")]


def test_leaving_the_block_waits_for_no_call() -> None:
    gate = Gate(10)
    with OrderedPool(2, is_detached=True) as pool:
        results = pool.map(gate, range(10))
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
        with pytest.raises(Stop), OrderedPool(2, is_detached=True) as pool:
            list(pool.map(gate, range(2)))
        interrupter.join(WAIT_S)
    finally:
        signal.signal(signal.SIGUSR2, previous)
        gate.open(0, 1)
        join_calls()


@both
def test_what_is_told_is_done_by_the_taker_before_its_result(is_detached: bool) -> None:
    done: list[tuple[int, bool]] = []

    with OrderedPool(2, is_detached=is_detached) as pool:

        def tell(number: int) -> int:
            pool.tell(lambda: done.append((number, threading.current_thread() is threading.main_thread())))
            return number

        assert list(pool.map(tell, range(4))) == [0, 1, 2, 3]
    assert sorted(done) == [(number, True) for number in range(4)]


def test_an_error_in_what_is_told_ends_the_map() -> None:
    def refuse() -> None:
        raise LookupError("lost")

    with OrderedPool(2, is_detached=True) as pool:

        def tell(_: int) -> None:
            pool.tell(refuse)
            gate(0)

        gate = Gate(1)
        with pytest.raises(LookupError, match="lost"):
            list(pool.map(tell, range(2)))
    gate.open(0)
    join_calls()


def test_after_the_end_telling_ends_the_call() -> None:
    gate, told, ended = Gate(1), threading.Event(), threading.Event()

    def call(number: int) -> None:
        if number == 1:
            gate(0)
            with contextlib.ExitStack() as stack:
                stack.callback(ended.set)
                pool.tell(told.set)

    with OrderedPool(2, is_detached=True) as pool:
        next(pool.map(call, range(2)))
        gate.wait_for(1)
    gate.open(0)
    assert ended.wait(WAIT_S)
    join_calls()
    assert not told.is_set()


@both
def test_calls_log_as_the_taker_does(is_detached: bool) -> None:
    with job_context(job_id="predict:a:1"), OrderedPool(1, is_detached=is_detached) as pool:
        (there,) = pool.map(lambda _: dict(copy_context()), [0])
        assert there == dict(copy_context())


def join_calls() -> None:
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("call-"):
            thread.join(WAIT_S)
            assert not thread.is_alive()
