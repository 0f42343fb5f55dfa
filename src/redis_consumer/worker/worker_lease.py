"""Registers a worker in Redis, renews the leases of its jobs, and returns the jobs of dead workers."""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence

from redis_consumer import metrics
from redis_consumer.errors import ConsumerError, RedisUnavailable
from redis_consumer.job import Job
from redis_consumer.logs import job_context
from redis_consumer.queue import JobQueue, upkeep

logger = logging.getLogger(__name__)

#: Largest time between two checks of the slots, in seconds.
LOOK_S = 1.0
FIRST_LOOK_S = 0.1
#: Seconds that a call which may be broken off can take once the supervisor has something else to do. Redis answers in
#: much less; what takes longer hangs.
PATIENCE_S = 0.1


class WorkerLease:
    """Registers a worker for one queue, and renews and sweeps at regular times.

    Args:
        queue: the queue that is served, with a Redis client of the supervisor's own.
        renew_s: seconds between two renewals.
        sweep_s: seconds between two sweeps.
        on_registered: called when the worker is registered.
    """

    def __init__(self, queue: JobQueue, *, renew_s: float, sweep_s: float, on_registered: Callable[[], None]) -> None:
        self.queue = queue
        self.is_registered = False
        self._renew_s = renew_s
        self._sweep_s = sweep_s
        self._on_registered = on_registered
        self._heard_at = float("-inf")
        self._is_waiting = False
        self._register_at = self._renew_at = self._sweep_at = 0.0
        self._pause_s = FIRST_LOOK_S / 2

    @property
    def is_heard(self) -> bool:
        """Whether the worker is registered, Redis has answered its last renewals, and it refuses no commands."""
        is_late = time.monotonic() - self._heard_at >= 2 * self._renew_s + LOOK_S
        return self.is_registered and not is_late and getattr(self.queue.redis, "has_outage", False) is not True

    def tend(self, jobs: Sequence[Job], activity: Callable[[], str], *, is_stopping: bool) -> float:
        """Register, renew and sweep if it is time; return when to check the slots again.

        Args:
            jobs: the running jobs.
            activity: returns what the worker does, as JSON; called if that is published now.
            is_stopping: whether the worker stops.
        """
        now = time.monotonic()
        if not self.is_registered:
            return now + FIRST_LOOK_S if is_stopping else self._register()
        if now >= self._renew_at:
            self._renew(jobs, activity())
            self._renew_at = time.monotonic() + self._renew_s
        if now >= self._sweep_at:
            quietly(self._sweep)
            pause_s = self._sweep_s * random.uniform(0.8, 1.2)
            # A little later than doubt_s, because the doubts would still be too young.
            self._sweep_at = time.monotonic() + min(
                pause_s, 1.05 * self.queue.doubt_s if self.queue.has_doubts else pause_s
            )
        return min(self._renew_at, self._sweep_at, time.monotonic() + LOOK_S)

    def end(self) -> None:
        """Unregister the worker."""
        if self.is_registered:
            quietly(lambda: upkeep.unregister(self.queue))

    def _register(self) -> float:
        """Register this worker, or wait until the registration of another one with its name lapses."""
        now = time.monotonic()
        if now < self._register_at:
            return self._register_at
        try:
            wait_s = upkeep.register(self.queue)
        except RedisUnavailable:
            self._pause_s = min(2 * self._pause_s, LOOK_S)
            self._register_at = time.monotonic() + self._pause_s
            return self._register_at
        if wait_s <= 0:
            if self._is_waiting:
                logger.warning("Registered as %s: the other worker is gone", self.queue.worker)
            self.is_registered = True
            self._heard_at = now
            self._on_registered()
            return now
        if not self._is_waiting:
            self._is_waiting = True
            logger.warning(
                "Another worker is registered as %s; waiting until it ends, or for %.1f s if it is dead "
                "(HOSTNAME must be unique)",
                self.queue.worker,
                wait_s,
            )
        self._register_at = now + min(wait_s, LOOK_S)
        return self._register_at

    def _sweep(self) -> None:
        # Half: otherwise the lock of this worker's last sweep would refuse the next one.
        swept = upkeep.sweep(self.queue, every_s=self._sweep_s / 2)
        metrics.SWEPT.add(self.queue.name, amount=len(swept))

    def _renew(self, jobs: Sequence[Job], activity: str) -> None:
        attempts = {job.id: job.attempt for job in jobs}
        with contextlib.suppress(RedisUnavailable):
            for job_id in self.queue.renew(jobs, activity):
                # Results of a lost job are fenced. The job can also have been settled a moment ago.
                with job_context(job_id=job_id, attempt=attempts.get(job_id), queue=self.queue.name):
                    logger.debug("Job %s isn't ours any more", job_id)
            self._heard_at = time.monotonic()


def quietly(call: Callable[[], object]) -> None:
    """Call a function whose work another worker can do, or a later call."""
    try:
        call()
    except RedisUnavailable:
        return  # the client has logged that
    except ConsumerError as error:
        logger.debug("%s", error)


class BrokenOff(BaseException):
    """Raised in the middle of a call by the handler of a timer."""


class BreakOff:
    """Breaks off calls that hang when the supervisor has something else to do. For the main thread only."""

    def __init__(self) -> None:
        self._is_allowed = False

    @contextlib.contextmanager
    def allowed(self, *, by: float) -> Iterator[None]:
        """Allow that the block is broken off. It must be safe to repeat it. The code after it continues in any case.

        Args:
            by: when there is something else to do in any case, by the monotonic clock. A past moment means nothing.
        """
        try:
            with contextlib.suppress(BrokenOff):
                self._is_allowed = True
                if (left_s := by - time.monotonic()) > 0:
                    signal.setitimer(signal.ITIMER_REAL, left_s + PATIENCE_S)
                yield
                self._is_allowed = False
        finally:
            # Also after an error that ends the worker: its handlers are removed before the timer would fire.
            self._is_allowed = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    def hurry(self) -> None:
        """Break off the running block if it takes any longer. Called by handlers of signals."""
        if self._is_allowed:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)

    def on_timer(self, *_: object) -> None:
        """Handle SIGALRM."""
        if self._is_allowed:
            self._is_allowed = False
            raise BrokenOff
