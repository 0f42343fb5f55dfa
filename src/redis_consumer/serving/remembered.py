"""A cache whose entries expire."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Remembered(Generic[Key, Value]):
    """Values that expire after some seconds; threads can share it.

    Args:
        expire_s: for how many seconds a value is valid; 0 keeps none.
        clock: monotonic seconds.
    """

    def __init__(self, expire_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._expire_s = expire_s
        self._clock = clock
        self._values: dict[Key, tuple[Value, float]] = {}
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """Give the stored value, None where it has expired or there is none."""
        with self._lock:
            value, until_s = self._values.get(key, (None, 0.0))
        return value if self._clock() < until_s else None

    def get_or(self, key: Key, ask: Callable[[], Value]) -> Value:
        """Give the valid value; where there is none, ask and store the answer."""
        value = self.get(key)
        if value is None:
            value = ask()
            self.put(key, value)
        return value

    def __contains__(self, key: Key) -> bool:
        """Whether a value was ever stored, even if it has expired."""
        with self._lock:
            return key in self._values

    def put(self, key: Key, value: Value) -> None:
        """Store a value."""
        with self._lock:
            self._values[key] = (value, self._clock() + self._expire_s)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
