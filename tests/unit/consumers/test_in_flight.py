from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest

from redis_consumer.consumers.in_flight import in_flight


def test_results_come_in_order() -> None:
    assert list(in_flight(lambda number: number * 2, range(100), at_once=7)) == [(n, 2 * n) for n in range(100)]


def test_several_are_under_way_at_once() -> None:
    together = threading.Barrier(3, timeout=20)
    assert len(list(in_flight(lambda _: together.wait(), range(3), at_once=3))) == 3


def test_few_items_are_taken_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    with contextlib.closing(in_flight(str, items(), at_once=2)) as results:
        next(results)
        assert len(taken) == 4


def test_an_error_ends_it() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_flight(lambda number: 1 // (number - 5), range(1000)))


def test_an_error_of_the_items_ends_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("x")

    with pytest.raises(KeyError):
        list(in_flight(str, items()))
