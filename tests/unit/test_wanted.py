from __future__ import annotations

import threading

import pytest

from redis_consumer import wanted
from redis_consumer.errors import JobCancelled


def refuse() -> None:
    raise JobCancelled("job j: cancelled; submit it again")


def test_nobody_is_asked_outside_of_a_job() -> None:
    wanted.check()
    assert wanted.wait_for(threading.get_ident) == threading.get_ident()


def test_work_that_is_not_wanted_stops_between_two_parts() -> None:
    with wanted.asking(refuse), pytest.raises(JobCancelled):
        wanted.check()
    wanted.check()


def test_a_call_that_takes_long_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted, "EVERY_S", 0.01)
    gate = threading.Event()
    with wanted.asking(refuse), pytest.raises(JobCancelled):
        wanted.wait_for(gate.wait)
    gate.set()


def test_what_a_call_gives_or_raises_is_passed_on() -> None:
    def fail() -> None:
        raise TimeoutError("of its own")

    with wanted.asking(lambda: None):
        assert wanted.wait_for(lambda: 5) == 5
        with pytest.raises(TimeoutError, match="of its own"):
            wanted.wait_for(fail)


def test_other_threads_ask_nobody() -> None:
    with wanted.asking(refuse):
        wanted.wait_for(wanted.check)
