"""Reports the progress of a job through the frames of its movies, and stops it once it is cancelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")

#: Percent that is shown once all frames are through; what is left is to pack and to upload.
_LAST = 98


class Reporter(Protocol):
    """What is needed of a `Consumer`."""

    def report_progress(self, done: int, total: int) -> None:
        """See `Consumer`."""


class Steps:
    """Counts frames, each as often as it is gone through; stops a job that is cancelled or lost, as `update_key` does.

    Args:
        consumer: that runs the job.
        total: frames to go through, each as often as that happens.
        first: percent of the job that is behind it.
    """

    def __init__(self, consumer: Reporter, total: int, *, first: int = 0) -> None:
        self._consumer = consumer
        self._total = total
        self._first = first
        self._done = 0

    def take(self, count: int = 1) -> None:
        """Count frames."""
        self._done += count
        shown = self._first * self._total + (_LAST - self._first) * min(self._done, self._total)
        self._consumer.report_progress(shown, 100 * self._total)

    def counted(self, frames: Iterable[T]) -> Iterator[T]:
        """Count frames as they are taken."""
        for frame in frames:
            self.take()
            yield frame

    def reading(self, read: Callable[[int], T]) -> Callable[[int], T]:
        """Count frames as they are read by their number."""

        def counted(number: int) -> T:
            self.take()
            return read(number)

        return counted
