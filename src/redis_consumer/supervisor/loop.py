"""What keeps the slots of a worker alive and honest: renewal, deadlines, signals, sweep; loads nothing heavy.

The supervisor forks one process a slot and talks to none of the outer world but Redis. So native code that holds a
slot's interpreter stalls no lease, and a crash costs one job's attempt, not the worker.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import selectors
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

from redis_consumer.errors import ConsumerError, LeaseLost, RedisUnavailable
from redis_consumer.job import Job
from redis_consumer.queue import JobQueue
from redis_consumer.supervisor.slot import Link, Slot, cause_of, die_with_parent, rss_mb, send_signal

logger = logging.getLogger(__name__)

#: Exit code of a slot that can't run with these settings: so can't any other.
EXIT_SETTINGS = 2
#: Seconds that a slot has after its grace period, to give its job back, before it is killed.
KILL_AFTER_S = 5.0
#: A slot that ends sooner than this without a job is started again with growing pauses.
SHORT_LIFE_S = 5.0
MAX_PAUSE_S = 30.0


@dataclass(frozen=True)
class Limits:
    """What a slot and its job may take.

    Attributes:
        grace_period_s: seconds for running jobs after a signal.
        job_timeout_s: seconds for one run of a job.
        stall_timeout_s: seconds without progress, 0 for any.
        max_rss_mb: memory above which a slot is replaced after its job, 0 for any.
        renew_s: seconds between two renewals.
        sweep_s: seconds between two sweeps.
    """

    grace_period_s: float = 25.0
    job_timeout_s: float = 3600.0
    stall_timeout_s: float = 0.0
    max_rss_mb: int = 0
    renew_s: float = 3.0
    sweep_s: float = 5.0


class Supervisor:
    """Runs the slots of one worker until a signal comes.

    Args:
        queue: the queue that is served, with a Redis client of the supervisor's own.
        run_slot: runs in each slot's process with its line to the supervisor; gives the exit code.
        slots: how many.
        limits: see `Limits`.
        is_burst: end when the slots end.
    """

    def __init__(
        self,
        queue: JobQueue,
        run_slot: Callable[[Link], int],
        *,
        slots: int = 1,
        limits: Limits | None = None,
        is_burst: bool = False,
    ) -> None:
        self.queue = queue
        self.run_slot = run_slot
        self.count = slots
        self.limits = limits or Limits()
        self.is_burst = is_burst
        self.slots: dict[int, Slot] = {}
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._has_run = False
        self._is_stopping = False
        self._is_registered = False
        self._start_write = -1
        self._register_at = self._renew_at = self._sweep_at = 0.0
        self._kill_at: float | None = None
        self._start_at = 0.0
        self._pause_s = 0.0
        self._exit_code = 0

    def run(self) -> int:
        """Register the worker, run its slots, and return the exit code: 0, or that of a slot that can't start."""
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        # A signal ends the select at once.
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        previous_wake = signal.set_wakeup_fd(wake_write)
        # Closed by the kernel when this process ends in whatever way: the slots see it.
        self._life_read, self._life_write = os.pipe()
        # Closed by us once the worker is registered: the slots may claim.
        self._start_read, self._start_write = os.pipe()
        self._selector.register(wake_read, selectors.EVENT_READ)
        try:
            self._loop(wake_read)
        finally:
            self._kill_all("the supervisor ends")
            signal.set_wakeup_fd(previous_wake)
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._let_start()
            for descriptor in (wake_read, wake_write, self._life_read, self._life_write, self._start_read):
                os.close(descriptor)
            self._selector.close()
        if self._is_registered:
            self._quietly(self.queue.unregister)
        logger.info("Stopped")
        return self._exit_code

    def _loop(self, wake: int) -> None:
        while True:
            if self._signals:
                self._forward_signals()
            self._reap()
            if self._may_start():
                self._start_slot()
            if not self.slots and (self._is_stopping or self._exit_code or self.is_burst):
                return
            self._check_limits()
            self._listen(wake, self._talk_to_redis())

    def _may_start(self) -> bool:
        return not self._is_stopping and len(self.slots) < self.count and time.monotonic() >= self._start_at

    def _talk_to_redis(self) -> float:
        """Register, renew and sweep where it is time for it; return the moment of the next look at the slots."""
        now = time.monotonic()
        if not self._is_registered:
            return self._register() if not self._is_stopping else now + 0.1
        if now >= self._renew_at:
            self._renew()
            self._renew_at = time.monotonic() + self.limits.renew_s
        if now >= self._sweep_at:
            # Half: or the lock of one's own last sweep would refuse the next one.
            self._quietly(lambda: self.queue.sweep(every_s=self.limits.sweep_s / 2))
            self._sweep_at = time.monotonic() + self.limits.sweep_s * random.uniform(0.8, 1.2)
        return min(self._renew_at, self._sweep_at, time.monotonic() + 1.0)

    def _register(self) -> float:
        """Take this worker's name, or wait for another one of the same name to lapse."""
        now = time.monotonic()
        if now < self._register_at:
            return self._register_at
        try:
            wait_s = self.queue.register()
        except RedisUnavailable:
            return now + 0.1
        if wait_s <= 0:
            self._is_registered = True
            self._let_start()
            return now
        logger.warning(
            "Another worker is registered as %s; waiting %.1f s for it to lapse (HOSTNAME must be unique)",
            self.queue.worker,
            wait_s,
        )
        self._register_at = now + min(wait_s, 1.0)
        return self._register_at

    def _let_start(self) -> None:
        """Close this process's end of the pipe that the slots wait for."""
        if self._start_write >= 0:
            os.close(self._start_write)
            self._start_write = -1

    # Slots.

    def _start_slot(self) -> None:
        read, write = os.pipe()
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os._exit(self._be_slot(write))
        os.close(write)
        os.set_blocking(read, False)
        self.slots[pid] = Slot(pid, read, time.monotonic())
        self._selector.register(read, selectors.EVENT_READ, pid)

    def _be_slot(self, pipe: int) -> int:
        """What the forked process does; it must never return into the supervisor's loop."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            # Ctrl-C at a terminal reaches the supervisor alone, which passes it on once.
            os.setpgid(0, 0)
            os.close(self._life_write)
            for slot in self.slots.values():
                os.close(slot.pipe)
            self._let_start()
            die_with_parent(self._life_read)
            return self.run_slot(Link(pipe, self._start_read))
        except BaseException:
            logger.exception("A slot ends by an error")
            return 1

    def _listen(self, wake: int, until: float) -> None:
        for key, _ in self._selector.select(max(0.0, until - time.monotonic())):
            if key.fd == wake:
                os.read(wake, 512)
            else:
                self._read(self.slots[key.data])

    def _read(self, slot: Slot) -> bool:
        """Take in what a slot reports; False at the end of its pipe."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(slot.pipe, 65536):
                *lines, slot.unread = (slot.unread + chunk).split(b"\n")
                for line in lines:
                    self._note(slot, json.loads(line))
            return False
        return True

    def _note(self, slot: Slot, report: list[str] | None) -> None:
        now = slot.progressed = time.monotonic()
        job = None if report is None else Job(report[0], attempt=int(report[1]))
        if job is not None and job != slot.job:
            slot.job_started, slot.has_run, self._has_run = now, True, True
        slot.job = job
        if job is None and self.limits.max_rss_mb and rss_mb(slot.pid) > self.limits.max_rss_mb:
            logger.info("Slot %d takes more than MAX_RSS_MB=%d; replacing it", slot.pid, self.limits.max_rss_mb)
            send_signal(slot.pid, signal.SIGTERM)

    def _reap(self) -> None:
        for slot in list(self.slots.values()):
            pid, status = os.waitpid(slot.pid, os.WNOHANG)
            if pid:
                self._bury(slot, os.waitstatus_to_exitcode(status))

    def _bury(self, slot: Slot, code: int) -> None:
        """A slot has ended: return its job at once, and decide when the next one starts."""
        self._read(slot)
        self._selector.unregister(slot.pipe)
        os.close(slot.pipe)
        del self.slots[slot.pid]
        if slot.job is not None:
            self._return_crashed(slot, code)
        if code == 0 or self._is_stopping:
            self._pause_s = 0.0
            if self.is_burst:
                self.count -= 1
            return
        if code == EXIT_SETTINGS and not self._has_run:
            self._exit_code = code
            self.count = 0
            for other in self.slots.values():
                send_signal(other.pid, signal.SIGTERM)
            return
        logger.error("Slot %d ended: %s; starting another", slot.pid, cause_of(code, slot.killed_for))
        is_short = time.monotonic() - slot.started < SHORT_LIFE_S and not slot.has_run
        self._pause_s = min(max(2 * self._pause_s, 0.5), MAX_PAUSE_S) if is_short else 0.0
        self._start_at = time.monotonic() + self._pause_s

    def _return_crashed(self, slot: Slot, code: int) -> None:
        job = slot.job
        if job is None:
            return
        logger.error("Job %s: its slot ended in attempt %d: %s", job.id, job.attempt, cause_of(code, slot.killed_for))
        try:
            # One that we end ourselves, since we stop, is no attempt of the job's.
            self.queue.give_back(job, is_next=self._is_stopping, is_crash=not self._is_stopping)
        except LeaseLost:
            logger.info("Job %s was settled or taken before", job.id)
        except RedisUnavailable as error:
            logger.warning("Job %s comes back when its lease ends: %s", job.id, error)

    def _check_limits(self) -> None:
        now = time.monotonic()
        for slot in self.slots.values():
            if slot.job is None or slot.killed_for:
                continue
            if now - slot.job_started > self.limits.job_timeout_s:
                self._kill(slot, f"its job ran for more than JOB_TIMEOUT={self.limits.job_timeout_s:g} s")
            elif self.limits.stall_timeout_s and now - slot.progressed > self.limits.stall_timeout_s:
                self._kill(slot, f"no progress for STALL_TIMEOUT={self.limits.stall_timeout_s:g} s")
        if self._kill_at is not None and now > self._kill_at:
            self._kill_all("its grace period is over")

    def _kill(self, slot: Slot, reason: str) -> None:
        slot.killed_for = reason
        send_signal(slot.pid, signal.SIGKILL)

    def _kill_all(self, reason: str) -> None:
        self._is_stopping = True
        for slot in list(self.slots.values()):
            self._kill(slot, reason)
            _, status = os.waitpid(slot.pid, 0)
            self._bury(slot, os.waitstatus_to_exitcode(status))

    # Redis.

    def _renew(self) -> None:
        jobs = [slot.job for slot in self.slots.values() if slot.job is not None]
        with contextlib.suppress(RedisUnavailable):
            for job_id in self.queue.renew(jobs):
                # Its results are fenced; it may as well have been settled a moment ago.
                logger.debug("Job %s isn't ours any more", job_id)

    @staticmethod
    def _quietly(call: Callable[[], object]) -> None:
        """Do what may as well be left to another worker or to the next time."""
        try:
            call()
        except ConsumerError as error:
            logger.debug("%s", error)

    # Signals.

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)

    def _forward_signals(self) -> None:
        names = [signal.Signals(number).name for number in self._signals]
        self._signals.clear()
        is_again = self._is_stopping or len(names) > 1
        self._is_stopping = True
        grace_s = 0.0 if is_again else self.limits.grace_period_s
        logger.info("%s: stopping %s", names[-1], "at once" if is_again else f"within {grace_s:g} s")
        self._kill_at = time.monotonic() + grace_s + KILL_AFTER_S
        for slot in self.slots.values():
            for _ in names:
                send_signal(slot.pid, signal.SIGTERM)
        self._let_start()  # a slot that waits still sees its signal then
