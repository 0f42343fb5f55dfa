"""The cause of a slot's end is described readably."""

from __future__ import annotations

import signal

import pytest

from redis_consumer.worker.slot_process import cause_of


@pytest.mark.parametrize(
    ("code", "killed_for", "words"),
    [
        (3, "", "exit code 3"),
        (-signal.SIGSEGV, "", "killed by SIGSEGV"),
        (-signal.SIGKILL, "no progress", "no progress"),
        (-40, "", "killed by signal 40"),
    ],
)
def test_the_cause_of_an_end(code: int, killed_for: str, words: str) -> None:
    assert cause_of(code, killed_for) == words
