"""Runs several threads in one slot, each with its own jobs."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType

from redis_consumer.errors import ConsumerError
from redis_consumer.logs import job_context
from redis_consumer.worker.slot_loop import SlotLoop

logger = logging.getLogger(__name__)

#: Seconds in which a thread without a job ends.
LEAVE_S = 2.0


class ThreadedSlot:
    """Runs several slot loops, each in its own thread, for consumers that mostly wait.

    Signals work as with one `SlotLoop`, but no thread can be interrupted in the middle of its job. A job that still
    runs when the grace period has ended is given back. Its thread ends with the process, and its late writes are
    fenced.

    Args:
        loops: one for each thread.
        grace_period_s: seconds for running jobs after the first signal.
    """

    def __init__(self, loops: Sequence[SlotLoop], *, grace_period_s: float = 25.0) -> None:
        self.loops = loops
        self.grace_period_s = grace_period_s
        self._wake = threading.Event()
        self._signals = 0
        self._deadline = float("inf")
        self._errors: list[BaseException] = []

    def run(self) -> int:
        """Run the slot loops until a signal arrives, or the queue is empty in a burst. Return the exit code, 0.

        The process must end afterwards, because threads can still be in their jobs.

        Raises:
            SettingsError: the consumers can't run with these settings.
        """
        for loop in self.loops:
            loop.consumer.prepare()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM):
            signal.signal(number, self._on_signal)
        threads = [
            threading.Thread(target=self._serve, args=[loop], name=f"thread-{number}", daemon=True)
            for number, loop in enumerate(self.loops)
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads) and time.monotonic() < self._deadline:
            self._wake.wait(min(1.0, max(0.0, self._deadline - time.monotonic())))
            self._wake.clear()
        self._give_back()
        if self._errors:
            raise self._errors[0]
        return 0

    def _serve(self, loop: SlotLoop) -> None:
        try:
            loop.serve()
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread, which ends the slot
            self._errors.append(error)
            self._stop()
        finally:
            self._wake.set()

    def _stop(self) -> None:
        for loop in self.loops:
            loop.stop()

    def _give_back(self) -> None:
        self._stop()
        for loop in self.loops:
            if loop.consumer.job is None:
                # A thread that still waits for a job would claim the one that is given back, and end with the process.
                loop.has_left.wait(LEAVE_S)
        for loop in self.loops:
            job, consumer = loop.consumer.job, type(loop.consumer).__name__
            if job is None:
                continue
            with job_context(job_id=job.id, attempt=job.attempt, queue=loop.consumer.queue, consumer=consumer):
                try:
                    loop.consumer.job_queue.give_back(job, is_next=True)
                    logger.warning("Gave back job %s: the worker stops", job.id)
                except ConsumerError as error:
                    logger.warning("Job %s: %s", job.id, error)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # Nothing is logged here: the signal can have interrupted the writing of a log line.
        if number != signal.SIGUSR1:
            self._signals += 1
            is_again = self._signals > 1 or number == signal.SIGALRM
            self._deadline = min(self._deadline, time.monotonic() + (0.0 if is_again else self.grace_period_s))
        # In a separate thread, because it takes locks that this one can hold at the moment.
        threading.Thread(target=self._stop, daemon=True).start()
        self._wake.set()
