"""Runs several calls of a model server at once. Results come in order, and the stream can end at any moment."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
_Event = Callable[[], None]

_LOOK_UP_S = 0.5


class _Abandoned(BaseException):
    """No caller waits for this call any more; ends the thread that makes it."""


class Stream:
    """Applies a function to items in threads of its own, for as long as its ``with`` block lasts.

    The next calls are made while the taker of the results works on one. Each thread prepares its own call, so that a
    call is under way while another one is prepared. Leaving the block, by an error or `Interrupted` too, waits for
    nothing: calls under way end by themselves, what they return is dropped, and no further one begins.

    Args:
        in_flight: how many calls are under way at once, 1 or more. At most twice as many items are taken and not yet
            given back as results.
    """

    def __init__(self, in_flight: int) -> None:
        self._in_flight = in_flight
        # Work that the threads hand to the taker of the results.
        self._events: SimpleQueue[_Event] = SimpleQueue()
        self._room = threading.Semaphore(2 * in_flight)
        self._taking = threading.Lock()
        self._has_ended = threading.Event()
        self._running = 0

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._has_ended.set()
        self._room.release()

    def map(self, function: Callable[[T], R], items: Iterable[T], /) -> Iterator[R]:
        """Apply the function to each item, once in the life of a stream.

        Args:
            function: called in the stream's threads, in several at once.
            items: taken in the stream's threads too, one at a time.

        Yields:
            The results in the order of the items.

        Raises:
            BaseException: what the function or the items raised first, as soon as it is known.
        """
        results: dict[int, R] = {}
        numbered = enumerate(items)
        for number in range(self._in_flight):
            self._running += 1
            work = partial(copy_context().run, self._work, function, numbered, results)
            # A daemon: the process may end while a call is under way.
            threading.Thread(target=work, name=f"call-{number}", daemon=True).start()
        due = 0
        while self._running or due in results:
            while due in results:
                yield results.pop(due)
                due += 1
                self._room.release()
            if self._running:
                self._next_event()()

    def tell(self, event: _Event) -> None:
        """Run something in the thread that takes the results, in its `map`; called from within the function.

        What it raises ends the stream. Where that has ended already, the caller is ended instead.
        """
        if self._has_ended.is_set():
            raise _Abandoned
        self._events.put(event)

    def _work(self, function: Callable[[T], R], numbered: Iterator[tuple[int, T]], results: dict[int, R]) -> None:
        try:
            while (taken := self._take(numbered)) is not None:
                number, item = taken
                self._events.put(partial(results.__setitem__, number, function(item)))
        except BaseException as error:  # noqa: BLE001 - raised again where the results are taken
            self._events.put(partial(_raise, error))
        finally:
            # The next one that waits for room shall find out as well.
            self._room.release()
            self._events.put(self._leave)

    def _take(self, numbered: Iterator[tuple[int, T]]) -> tuple[int, T] | None:
        self._room.acquire()
        with self._taking:
            return None if self._has_ended.is_set() else next(numbered, None)

    def _next_event(self) -> _Event:
        while True:
            # A signal that comes just before the wait would be looked at only after it.
            with contextlib.suppress(Empty):
                return self._events.get(timeout=_LOOK_UP_S)

    def _leave(self) -> None:
        self._running -= 1


def _raise(error: BaseException) -> None:
    raise error
