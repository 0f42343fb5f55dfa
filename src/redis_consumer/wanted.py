"""Stops long work soon after its job is no longer wanted: downloads, unpacking, decoding.

The thread that runs a job sets with `asking` what is asked. Code that it calls runs `check` between two parts of its
work, or `wait_for` around a call that may take long. Elsewhere, and in other threads, both do nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")

#: Seconds between two questions while a call takes long.
EVERY_S = 1.0

_asked: ContextVar[tuple[Callable[[], None], int] | None] = ContextVar("asked", default=None)


@contextlib.contextmanager
def asking(question: Callable[[], None]) -> Iterator[None]:
    """Let work within the block ask whether it is still wanted.

    Args:
        question: raises where it isn't. It is called in this thread only, and often.
    """
    token = _asked.set((question, threading.get_ident()))
    try:
        yield
    finally:
        _asked.reset(token)


def check() -> None:
    """Continue only if the work is wanted.

    Raises:
        ConsumerError: what the question of `asking` raises.
    """
    question = _question()
    if question is not None:
        question()


def wait_for(call: Callable[[], T]) -> T:
    """Make a call that may take long, and stop waiting for it where the work isn't wanted any more.

    It runs in a thread of its own, which goes on to its end. So it may read, but not write where somebody removes
    files after this.

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
