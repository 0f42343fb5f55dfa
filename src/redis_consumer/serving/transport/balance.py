"""Chooses the model server for each call: least loaded first, failed ones rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

_REST_S = 10.0


@dataclass
class _Load:
    calls: int = 0
    last_call: int = 0
    rests_until_s: float = 0.0


class Balance:
    """Distributes calls among servers: to the one with the fewest calls in flight, to failed ones last.

    Args:
        targets: the servers, at least one.
        clock: monotonic seconds.
    """

    def __init__(self, targets: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._loads = {target: _Load() for target in targets}
        self._clock = clock
        self._calls = 0
        self._lock = threading.Lock()

    @contextmanager
    def chosen(self) -> Iterator[str]:
        """Yield the server for a call; it counts as busy until the end of the block."""
        with self._lock:
            now_s = self._clock()
            target, load = min(
                self._loads.items(),
                key=lambda item: (max(item[1].rests_until_s, now_s), item[1].calls, item[1].last_call),
            )
            self._calls += 1
            load.calls += 1
            load.last_call = self._calls
        try:
            yield target
        finally:
            with self._lock:
                load.calls -= 1

    def failed(self, target: str) -> None:
        """Let a server rest for some seconds, in which it gets calls only if all others rest too."""
        with self._lock:
            self._loads[target].rests_until_s = self._clock() + _REST_S

    def answered(self, target: str) -> None:
        """End a server's rest."""
        with self._lock:
            self._loads[target].rests_until_s = 0.0

    def has_rested(self) -> bool:
        """Whether a server can be called without waiting."""
        with self._lock:
            return any(load.rests_until_s <= self._clock() for load in self._loads.values())
