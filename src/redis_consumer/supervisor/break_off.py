"""Breaks off a call that hangs once the supervisor has something else to do: a slot ended, or a signal came."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

#: Seconds that a call may still take then. Redis answers in much less; what takes longer hangs.
PATIENCE_S = 0.1


class BrokenOff(BaseException):
    """Raised in the middle of a call, from the handler of a timer."""


class BreakOff:
    """Lets calls be broken off while `allowed`; they must bear to be repeated. For the main thread only."""

    def __init__(self) -> None:
        self._is_allowed = False

    @contextlib.contextmanager
    def allowed(self, *, by: float) -> Iterator[None]:
        """Let the block be broken off; the code after it continues as if it had ended.

        Args:
            by: when there is something else to do in any case, by the monotonic clock; in the past for nothing.
        """
        try:
            with contextlib.suppress(BrokenOff):
                self._is_allowed = True
                if (left_s := by - time.monotonic()) > 0:
                    signal.setitimer(signal.ITIMER_REAL, left_s + PATIENCE_S)
                yield
                self._is_allowed = False
        finally:
            # Also after an error that ends the worker: its handlers are gone before the timer would fire.
            self._is_allowed = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def hurry(self) -> None:
        """Break off what runs if it takes any longer; called by handlers of signals."""
        if self._is_allowed:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)

    def on_timer(self, *_: object) -> None:
        """The handler of SIGALRM."""
        if self._is_allowed:
            self._is_allowed = False
            raise BrokenOff
