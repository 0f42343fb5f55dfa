"""Runs several uploads or downloads at once and gives their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 8


def in_flight(
    work: Callable[[T], R], items: Iterable[T], *, at_once: int = AT_ONCE
) -> Generator[tuple[T, R], None, None]:
    """Work on items in threads; at most twice as many as there are threads are ahead of the results.

    Close the iterator (``contextlib.closing``) where it may be left before its end.

    Args:
        work: what to do with an item; called in threads.
        items: taken in the caller's thread.
        at_once: threads.

    Yields:
        Each item with its result, in order. What `work` raises is raised here.
    """
    waiting: deque[tuple[T, Future[R]]] = deque()
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="in-flight")
    try:
        for item in items:
            waiting.append((item, pool.submit(copy_context().run, work, item)))
            if len(waiting) >= 2 * at_once:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
