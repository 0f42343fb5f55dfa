"""Stops downloads, unpacking and decoding soon after their job was cancelled.

The thread that runs a job sets the question with `asking`. Code that it calls uses `check` between two parts of its
work, or `wait_for` around a call that can take long. Outside of `asking`, and in other threads, both do nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

#: Seconds between two checks during a long call.
EVERY_S = 1.0

_asked: ContextVar[tuple[Callable[[], None], int] | None] = ContextVar("asked", default=None)


@contextlib.contextmanager
def asking(question: Callable[[], None]) -> Iterator[None]:
    """Let code within the block check whether its job was cancelled.

    Args:
        question: raises an error if the job was cancelled. It is called often, and only in this thread.
    """
    token = _asked.set((question, threading.get_ident()))
    try:
        yield
    finally:
        _asked.reset(token)


def check() -> None:
    """Raise an error if the job was cancelled.

    Raises:
        ConsumerError: what the question of `asking` raises.
    """
    question = _question()
    if question is not None:
        question()


def wait_for(call: Callable[[], T]) -> T:
    """Make a call that can take long. Stop waiting for it if the job is cancelled.

    The call runs in its own thread, which continues to its end. So it can read, but must not write into folders that
    are removed afterwards.

    Raises:
        ConsumerError: as `check`.
        Exception: what the call raises.
    """
    question = _question()
    if question is None:
        return call()
    future: Future[T] = Future()
    threading.Thread(target=_carry_out, args=(call, future), name="waited-for", daemon=True).start()
    while not wait((future,), EVERY_S).done:
        question()
    return future.result()


def _question() -> Callable[[], None] | None:
    question, thread = _asked.get() or (None, 0)
    return question if thread == threading.get_ident() else None


def _carry_out(call: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - it is raised where the call is waited for
        future.set_exception(error)
