"""Makes calls in other threads, and lets them end soon after their job was cancelled.

The thread that runs a job sets the question with `asking`. Code that it calls uses `check` between two parts of its
work, or `wait_for` around a call that can take long. Outside of `asking`, and in other threads, both do nothing.
An `OrderedPool` makes many calls at once and gives their results in order.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextvars import ContextVar, copy_context
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_Event = Callable[[], None]

#: Seconds between two checks during a long call.
EVERY_S = 1.0
#: Uploads or downloads of one job that are in flight at once.
AT_ONCE = 8
_LOOK_UP_S = 0.5
_END = object()

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


class _Abandoned(BaseException):
    """No caller waits for this call any more; ends the thread that makes it."""


class OrderedPool:
    """Applies a function to items in threads of its own, for as long as its ``with`` block lasts.

    The next calls are made while the taker of the results works on one. Items are taken in the thread that takes the
    results, at most twice as many as there are threads before their results are given back. No call begins after the
    end of the block, which waits for those in flight.

    Args:
        threads: how many calls are in flight at once, 1 or more.
        is_detached: for calls that can take long. Items are taken in the pool's threads, one at a time, so that a call
            is in flight while another one is prepared. The end of the block, by an error or `Interrupted` too, waits
            for nothing: calls in flight end by themselves, and what they return is dropped.
    """

    def __init__(self, threads: int, *, is_detached: bool = False) -> None:
        self._is_detached = is_detached
        self._size = threads
        # Work that the threads hand to the taker of the results.
        self._events: SimpleQueue[_Event] = SimpleQueue()
        # Items that the taker of the results hands to the threads.
        self._handed: SimpleQueue[Any] = SimpleQueue()
        self._room = threading.Semaphore(2 * threads)
        self._taking = threading.Lock()
        self._has_ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._running = 0

    def __enter__(self) -> OrderedPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._has_ended.set()
        self._room.release()
        self._handed.put(_END)
        if not self._is_detached:
            for thread in self._threads:
                thread.join()

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """Apply the function to each item, once in the life of a pool.

        Args:
            function: called in the pool's threads, in several at once.
            items: what it is applied to.

        Yields:
            The results in the order of the items.

        Raises:
            BaseException: what the function or the items raised first, as soon as it is known.
        """
        results: dict[int, R] = {}
        numbered = enumerate(items)
        self._running = self._size
        taken = numbered if self._is_detached else iter(self._handed.get, _END)
        for number in range(self._size):
            work = partial(copy_context().run, self._work, function, taken, results)
            # A daemon: the process may end while a call is in flight.
            thread = threading.Thread(target=work, name=f"call-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()
        handed = given = 0
        while self._running or given in results:
            if not self._is_detached:
                handed += self._hand_over(numbered, given + 2 * self._size - handed)
            if given in results:
                yield results.pop(given)
                given += 1
                self._room.release()
            else:
                # A signal that comes just before the wait would be looked at only after it.
                event: _Event | None = None
                with contextlib.suppress(Empty):
                    event = self._events.get(timeout=_LOOK_UP_S)
                if event is not None:
                    event()
                del event  # it holds a result

    def tell(self, event: _Event) -> None:
        """Run something in the thread that takes the results, in its `map`; called from within the function.

        What it raises ends the block's `map`. After the end of the block, the call of the function ends instead.
        """
        if self._has_ended.is_set():
            raise _Abandoned
        self._events.put(event)

    def _hand_over(self, numbered: Iterator[Any], room: int) -> int:
        """Take up to `room` items and give them to the threads; count them."""
        count = 0
        for item in islice(numbered, room):
            self._handed.put(item)
            count += 1
        if count < room:
            self._handed.put(_END)
        return count

    def _work(self, function: Callable[[T], R], numbered: Iterator[tuple[int, T]], results: dict[int, R]) -> None:
        try:
            while (taken := self._take(numbered)) is not None:
                number, item = taken
                self._events.put(partial(results.__setitem__, number, function(item)))
        except BaseException as error:  # noqa: BLE001 - raised again where the results are taken
            self._events.put(partial(_raise, error))
        finally:
            # The next one that waits for room must find out too.
            self._room.release()
            self._events.put(self._leave)

    def _take(self, numbered: Iterator[tuple[int, T]]) -> tuple[int, T] | None:
        self._room.acquire()
        with self._taking:
            return None if self._has_ended.is_set() else next(numbered, None)

    def _leave(self) -> None:
        self._running -= 1


def _raise(error: BaseException) -> None:
    raise error
