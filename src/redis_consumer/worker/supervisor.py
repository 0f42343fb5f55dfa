"""Runs the loop of a worker's main process: renewal of leases, sweeps, signals and health probes.

The supervisor forks one process for each slot, and it loads no large library. Native code that holds a slot's
interpreter therefore delays no renewal of a lease, and a crash costs one attempt of one job, not the worker.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType
from typing import Any

from redis_consumer import metrics
from redis_consumer.errors import SettingsError
from redis_consumer.options import WorkerLimits
from redis_consumer.queue import JobQueue, timestamp
from redis_consumer.worker.activity import activity_of
from redis_consumer.worker.http_endpoint import HttpEndpoint, health_pages
from redis_consumer.worker.shared_status import SharedStatus, SupervisorPipe, state_of
from redis_consumer.worker.slot_pool import PASSED_ON, SlotPool
from redis_consumer.worker.slot_process import die_with_parent, return_freed_early, rss_mb
from redis_consumer.worker.temp_folders import TempFolders
from redis_consumer.worker.worker_lease import BreakOff, WorkerLease

logger = logging.getLogger(__name__)

#: Seconds without any slot, or without temporary files, after which the worker is better started again.
DEAD_AFTER_S = 60.0


class Supervisor:
    """Runs the slots of one worker until a signal comes.

    Args:
        queues: the queues that are served, with a Redis client of the supervisor's own.
        run_slot: runs in each slot's process with its pipe to the supervisor; returns the exit code.
        slots: how many for each queue.
        threads: of each slot.
        limits: see `WorkerLimits`.
        health_address: ``host:port`` at which probes are answered and metrics given, see `health_pages`. If empty,
            nothing is served or counted.
        is_burst: end when the slots end.
    """

    def __init__(
        self,
        queues: Sequence[JobQueue],
        run_slot: Callable[[SupervisorPipe], int],
        *,
        slots: int = 1,
        threads: int = 1,
        limits: WorkerLimits | None = None,
        health_address: str = "",
        is_burst: bool = False,
    ) -> None:
        limits = limits or WorkerLimits()
        self.queues = list(queues)
        self.run_slot = run_slot
        self.pool = SlotPool(self.queues, self._be_slot, slots=slots, threads=threads, limits=limits, is_burst=is_burst)
        self._leases = [
            WorkerLease(queue, renew_s=limits.renew_s, sweep_s=limits.sweep_s, on_registered=self._on_registered)
            for queue in self.queues
        ]
        self._health_address = health_address
        self._endpoint: HttpEndpoint | None = None
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._is_woken = False
        self._alive_at = time.monotonic()
        self._since = timestamp()
        self._start_write = -1
        self._break_off = BreakOff()

    def run(self) -> int:
        """Register the worker, run its slots, and return the exit code: 0, or that of a slot that can't start.

        Raises:
            SettingsError: the worker can't listen at the address for probes, or can make no temporary files.
        """
        self._folders = TempFolders()
        self._folders.remove_stale()
        if self._health_address:
            self._open_endpoint(self._health_address)
        try:
            with self._open_pipes(), self._handled_signals():
                try:
                    self._loop()
                finally:
                    self.pool.kill_all("the supervisor ends")
        finally:
            if self._endpoint is not None:
                self._endpoint.close()
                metrics.stop()
            self._selector.close()
            self._folders.close()
        for lease in self._leases:
            lease.end()
        logger.info("Stopped")
        return self.pool.exit_code

    def _open_endpoint(self, address: str) -> None:
        pages = health_pages(self._state, self._folders.counts)
        try:
            self._endpoint = HttpEndpoint(address, pages, self._selector, name="HEALTH_ADDRESS=")
        except SettingsError:
            self._folders.close()
            raise
        metrics.start(self._folders.counts, "supervisor")
        _announce(self.queues)

    @contextlib.contextmanager
    def _open_pipes(self) -> Iterator[None]:
        # Closed by the kernel when this process ends for any reason. The slots notice that.
        self._life_read, self._life_write = os.pipe()
        # Closed here once the worker is registered. The slots may claim then.
        self._start_read, self._start_write = os.pipe()
        try:
            yield
        finally:
            self._let_start()
            for descriptor in (self._life_read, self._life_write, self._start_read):
                os.close(descriptor)

    @contextlib.contextmanager
    def _handled_signals(self) -> Iterator[None]:
        previous = {number: signal.signal(number, self._on_signal) for number in PASSED_ON}
        previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: self._break_off.hurry())
        previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._break_off.on_timer)
        # Each signal, also that of the end of a slot, ends the select at once and is handled before the next one.
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        previous_wake = signal.set_wakeup_fd(wake_write)
        self._selector.register(wake_read, selectors.EVENT_READ, lambda: self._on_wake(wake_read))
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous_wake)
            for number, handler in previous.items():
                signal.signal(number, handler)
            os.close(wake_read)
            os.close(wake_write)

    def _loop(self) -> None:
        while True:
            self._is_woken = False
            if self._signals:
                self._stop_slots()
            self.pool.reap()
            self._check_machine()
            self.pool.fill(self._folders)
            if self.pool.is_over:
                return
            self.pool.check_limits()
            next_moments = []
            for queue_index in range(len(self.queues)):
                next_moments.append(self._tend(queue_index))
                # Each queue can take long if Redis doesn't respond. Probes are answered in between.
                self._listen(0.0)
            self._listen(0.0 if self._is_woken else min(*next_moments, self.pool.return_again()))

    def _check_machine(self) -> None:
        """Check whether the worker can work on this machine, and make its folders again if they were removed."""
        self._folders.tend()
        if self.pool.is_stopping or (not self._folders.fault and self.pool.is_working):
            self._alive_at = time.monotonic()
        if metrics.mend():
            _announce(self.queues)

    def _tend(self, queue_index: int) -> float:
        """Register, renew and sweep for a queue if it is time; return when to look at the slots again."""
        with self._break_off.allowed(by=self.pool.start_at):
            return self._leases[queue_index].tend(
                self.pool.jobs(queue_index), partial(self._activity, queue_index), is_stopping=self.pool.is_stopping
            )
        return 0.0  # it was broken off

    def _activity(self, queue_index: int) -> str:
        """Return what the slots of a queue do, as it is published with the registration."""
        slots = [slot for slot in self.pool.slots.values() if slot.queue_index == queue_index]
        memory_mb = sum(rss_mb(pid) for pid in (os.getpid(), *(slot.pid for slot in slots)))
        return activity_of(
            [slot.status for slot in slots],
            since=self._since,
            memory_mb=memory_mb,
            fault=self._folders.fault,
            is_stopping=self.pool.is_stopping,
        )

    def _state(self) -> dict[str, Any]:
        """Return the state that probes read."""
        is_stopping, fault = self.pool.is_stopping, self._folders.fault
        is_heard = all(lease.is_heard for lease in self._leases)
        shown = state_of(self.pool.statuses, fault)
        return {
            "live": time.monotonic() - self._alive_at < DEAD_AFTER_S,
            "ready": is_heard and shown["slots"] > 0 and not fault and not is_stopping,
            "worker": self.queues[0].worker,
            "queue": ",".join(queue.name for queue in self.queues),
            "redis": is_heard,
            "stopping": is_stopping,
            **shown,
        }

    def _on_registered(self) -> None:
        if all(lease.is_registered for lease in self._leases):
            self._let_start()

    def _let_start(self) -> None:
        """Close this process's end of the pipe for which the slots wait."""
        if self._start_write >= 0:
            os.close(self._start_write)
            self._start_write = -1

    def _be_slot(self, status: SharedStatus, queue_index: int, number: int) -> int:
        """Run a slot in the forked process. It must never return into the supervisor's loop."""
        try:
            signal.set_wakeup_fd(-1)
            for caught in (*PASSED_ON, signal.SIGCHLD, signal.SIGALRM):
                signal.signal(caught, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
            # Ctrl-C at a terminal reaches only the supervisor, which passes it on once.
            os.setpgid(0, 0)
            os.close(self._life_write)
            if self._endpoint is not None:
                self._endpoint.leave()
                metrics.start(self._folders.counts, f"slot-{number}")
            self._let_start()
            die_with_parent(self._life_read)
            return_freed_early()
            return self.run_slot(SupervisorPipe(status, self._start_read, self._folders.shared, queue_index))
        except BaseException:
            logger.exception("A slot ends by an error")
            return 1

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)
        self._break_off.hurry()

    def _stop_slots(self) -> None:
        signals, self._signals = self._signals, []
        self.pool.stop(signals)
        self._let_start()  # a slot that waits for the registration still handles its signal

    def _on_wake(self, descriptor: int) -> None:
        os.read(descriptor, 512)
        self._is_woken = True

    def _listen(self, until: float) -> None:
        for key, _ in self._selector.select(max(0.0, until - time.monotonic())):
            key.data()


def _announce(queues: Sequence[JobQueue]) -> None:
    """Set the supervisor's counters to 0, so that they exist before they grow."""
    for queue in queues:
        metrics.SWEPT.add(queue.name, amount=0)
    for cause in metrics.DEATH_CAUSES:
        metrics.SLOT_DEATHS.add(cause, amount=0)
