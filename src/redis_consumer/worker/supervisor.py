"""Keeps the slots of a worker running: renewal, deadlines, signals, sweep. Loads nothing large.

The supervisor forks one process for each slot and connects to Redis alone. So native code that holds a
slot's interpreter delays no renewal of a lease, and a crash costs one attempt of one job, not the worker.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from redis_consumer import machine, metrics
from redis_consumer.errors import SettingsError
from redis_consumer.queue import JobQueue
from redis_consumer.worker.http_endpoint import HttpEndpoint, health_pages
from redis_consumer.worker.limits import Limits
from redis_consumer.worker.shared_status import SharedStatus, SupervisorPipe, state_of
from redis_consumer.worker.slot_pool import (
    Return,
    Returns,
    Slot,
    cause_of,
    die_with_parent,
    kill_group,
    reap_orphans,
    rss_mb,
    send_signal,
    share_pools,
)
from redis_consumer.worker.temp_folders import TempFolders
from redis_consumer.worker.worker_lease import BreakOff, WorkerLease

logger = logging.getLogger(__name__)

#: Exit code of a slot that can't run with these settings: so can't any other.
EXIT_SETTINGS = 2
#: Seconds that a slot has after its grace period, to give its job back, before it is killed.
KILL_AFTER_S = 5.0
#: Signals that the slots get from us.
PASSED_ON = (signal.SIGTERM, signal.SIGINT)
#: A slot that ends sooner than this without a job is started again with growing pauses.
SHORT_LIFE_S = 5.0
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0
#: Seconds without any slot, or without temporary files, after which the worker is better started anew.
DEAD_AFTER_S = 60.0


class Supervisor:
    """Runs the slots of one worker until a signal comes.

    Args:
        queues: those that are served, each by slots of its own, so that none waits for another; with a Redis client
            of the supervisor's own.
        run_slot: runs in each slot's process with its pipe to the supervisor; returns the exit code.
        slots: how many for each queue.
        threads: of each slot.
        limits: see `Limits`.
        health_address: ``host:port`` at which probes are answered and metrics given, see `health_pages`; empty for
            none, and nothing is counted then.
        is_burst: end when the slots end.
    """

    def __init__(
        self,
        queues: Sequence[JobQueue],
        run_slot: Callable[[SupervisorPipe], int],
        *,
        slots: int = 1,
        threads: int = 1,
        limits: Limits | None = None,
        health_address: str = "",
        is_burst: bool = False,
    ) -> None:
        self.queues = list(queues)
        self.run_slot = run_slot
        self.wanted = [slots] * len(self.queues)
        self.threads = threads
        self.limits = limits or Limits()
        self.is_burst = is_burst
        self.slots: dict[int, Slot] = {}
        self._health_address = health_address
        self._endpoint: HttpEndpoint | None = None
        self._leases = [
            WorkerLease(
                queue,
                renew_s=self.limits.renew_s,
                sweep_s=self.limits.sweep_s,
                on_registered=self._on_registered,
            )
            for queue in self.queues
        ]
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._is_stopping = self._is_woken = False
        self._alive_at = time.monotonic()
        self._start_write = -1
        self._kill_at: float | None = None
        self._start_at = self._pause_s = 0.0
        self._exit_code = 0
        self._returns = Returns()
        self._break_off = BreakOff()

    def run(self) -> int:
        """Register the worker, run its slots, and return the exit code: 0, or that of a slot that can't start.

        Raises:
            SettingsError: the address for probes can't be listened at, or there is no place for temporary files.
        """
        self._folders = TempFolders()
        self._folders.remove_stale()
        if self._health_address:
            self._open_endpoint(self._health_address)
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: self._break_off.hurry())
        previous[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._break_off.on_timer)
        # A signal, the end of a slot among them, ends the select at once, and is seen to before the next one.
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        previous_wake = signal.set_wakeup_fd(wake_write)
        # Closed by the kernel whenever this process ends, for any reason: the slots see it.
        self._life_read, self._life_write = os.pipe()
        # Closed by us once the worker is registered: the slots may claim.
        self._start_read, self._start_write = os.pipe()
        self._selector.register(wake_read, selectors.EVENT_READ, lambda: self._on_wake(wake_read))
        try:
            self._loop()
        finally:
            self._kill_all("the supervisor ends")
            signal.set_wakeup_fd(previous_wake)
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._let_start()
            for descriptor in (wake_read, wake_write, self._life_read, self._life_write, self._start_read):
                os.close(descriptor)
            if self._endpoint is not None:
                self._endpoint.close()
                metrics.stop()
            self._selector.close()
            self._folders.close()
        for lease in self._leases:
            lease.end()
        logger.info("Stopped")
        return self._exit_code

    def _open_endpoint(self, address: str) -> None:
        pages = health_pages(self._state, self._folders.counts)
        try:
            self._endpoint = HttpEndpoint(address, pages, self._selector, name="HEALTH_ADDRESS=")
        except SettingsError:
            self._folders.close()
            raise
        metrics.start(self._folders.counts, "supervisor")
        _announce(self.queues)

    def _loop(self) -> None:
        while True:
            self._is_woken = False
            if self._signals:
                self._forward_signals()
            self._reap()
            self._look_at_machine()
            while (queue_index := self._lacking()) is not None:
                self._start_slot(queue_index)
            if not self.slots and (self._is_stopping or self._exit_code or self.is_burst):
                return
            self._check_limits()
            next_looks = []
            for queue_index in range(len(self.queues)):
                next_looks.append(self._tend(queue_index))
                # Each may wait for a Redis that doesn't answer; those who probe the worker needn't.
                self._listen(0.0)
            self._listen(0.0 if self._is_woken else min(*next_looks, self._returns.again()))

    def _look_at_machine(self) -> None:
        """See whether this machine lets the worker work, and make again what somebody has removed."""
        self._folders.tend()
        if self._is_stopping or (not self._folders.fault and any(not slot.killed_for for slot in self.slots.values())):
            self._alive_at = time.monotonic()
        if metrics.mend():
            _announce(self.queues)

    def _tend(self, queue_index: int) -> float:
        """Do what is due for a queue; return the moment of the next look."""
        # One that is killed may hang in the system for long; its jobs needn't.
        slots = [slot for slot in self.slots.values() if slot.queue_index == queue_index and not slot.killed_for]
        jobs = [run.job for slot in slots for run in slot.status.runs().values()]
        with self._break_off.allowed(by=self._start_at):
            return self._leases[queue_index].tend(jobs, is_stopping=self._is_stopping)
        return 0.0  # it was broken off

    def _lacking(self) -> int | None:
        """Number of a queue for which a slot is to be started now, None for none."""
        if self._is_stopping or self._folders.fault or time.monotonic() < self._start_at:
            return None
        running = [slot.queue_index for slot in self.slots.values()]
        return next((each for each, wanted in enumerate(self.wanted) if running.count(each) < wanted), None)

    @property
    def _is_heard(self) -> bool:
        return all(lease.is_heard for lease in self._leases)

    def _state(self) -> dict[str, Any]:
        """Give the state that probes read."""
        shown = state_of([slot.status for slot in self.slots.values()], self._folders.fault)
        return {
            "live": time.monotonic() - self._alive_at < DEAD_AFTER_S,
            "ready": self._is_heard and shown["slots"] > 0 and not self._folders.fault and not self._is_stopping,
            "worker": self.queues[0].worker,
            "queue": ",".join(queue.name for queue in self.queues),
            "redis": self._is_heard,
            "stopping": self._is_stopping,
            **shown,
        }

    def _on_registered(self) -> None:
        if all(lease.is_registered for lease in self._leases):
            self._let_start()

    def _let_start(self) -> None:
        """Close this process's end of the pipe that the slots wait for."""
        if self._start_write >= 0:
            os.close(self._start_write)
            self._start_write = -1

    # Slots.

    def _start_slot(self, queue_index: int) -> None:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        # A signal that reaches the slot while our handlers still are its own would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        folder = None
        try:
            folder, status = self._folders.make(), SharedStatus(self.threads)
            number = self._free_number()
            pid = os.fork()
        except OSError as error:
            # A full disk, or too many processes: the other slots continue.
            logger.error("Can't start a slot (%s); trying again", error)
            if folder is not None:
                self._folders.remove(folder)
            self._pause()
            return
        else:
            if pid == 0:
                machine.use(folder)
                os._exit(self._be_slot(status, queue_index, number))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        self.slots[pid] = Slot(pid, status, folder, time.monotonic(), queue_index, number)

    def _pause(self) -> None:
        """Start no slot for some time, for longer each time."""
        self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), MAX_PAUSE_S)
        self._start_at = time.monotonic() + self._pause_s

    def _free_number(self) -> int:
        """The first number that no living slot has."""
        taken = {slot.number for slot in self.slots.values()}
        return next(number for number in range(len(taken) + 1) if number not in taken)

    def _be_slot(self, status: SharedStatus, queue_index: int, number: int) -> int:
        """What the forked process does; it must never return into the supervisor's loop."""
        try:
            signal.set_wakeup_fd(-1)
            for caught in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGALRM):
                signal.signal(caught, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
            # Ctrl-C at a terminal reaches the supervisor alone, which passes it on once.
            os.setpgid(0, 0)
            os.close(self._life_write)
            if self._endpoint is not None:
                self._endpoint.leave()
                metrics.start(self._folders.counts, f"slot-{number}")
            self._let_start()
            die_with_parent(self._life_read)
            share_pools()
            return self.run_slot(SupervisorPipe(status, self._start_read, self._folders.shared, queue_index))
        except BaseException:
            logger.exception("A slot ends by an error")
            return 1

    def _on_wake(self, descriptor: int) -> None:
        os.read(descriptor, 512)
        self._is_woken = True

    def _listen(self, until: float) -> None:
        for key, _ in self._selector.select(max(0.0, until - time.monotonic())):
            key.data()

    def _reap(self) -> None:
        for slot in list(self.slots.values()):
            pid, status = os.waitpid(slot.pid, os.WNOHANG)
            if pid:
                self._bury(slot, os.waitstatus_to_exitcode(status))
        reap_orphans(self.slots)

    def _bury(self, slot: Slot, code: int) -> None:
        """A slot has ended: return its job at once, and decide when the next one starts."""
        del self.slots[slot.pid]
        kill_group(slot.pid)
        if code or slot.killed_for:
            metrics.SLOT_DEATHS.add(slot.cause or ("signal" if code < 0 else "exit"))
        for thread, run in slot.status.runs().items():
            # One that we end ourselves, since we stop or for another job's sake, is no attempt of the job's.
            is_crash = slot.guilty in (None, thread) and not self._is_stopping
            cause, consumer = cause_of(code, slot.killed_for), slot.status.consumer or None
            is_late = is_crash and bool(slot.cause)
            self._returns.give(Return(self.queues[slot.queue_index], run.job, cause, consumer, is_crash, is_late))
        has_run = slot.status.has_run()
        any_has_run = has_run or any(other.status.has_run() for other in self.slots.values())
        slot.status.close()
        self._folders.remove(slot.folder)
        if code == 0 or self._is_stopping:
            self._pause_s = 0.0
            if self.is_burst and not slot.is_leaving:
                self.wanted[slot.queue_index] -= 1
            return
        if code == EXIT_SETTINGS and not any_has_run:
            self._exit_code = code
            self.wanted = [0] * len(self.queues)
            for other in self.slots.values():
                send_signal(other.pid, signal.SIGTERM)
            return
        logger.error("Slot %d ended: %s; starting another", slot.pid, cause_of(code, slot.killed_for))
        is_short = time.monotonic() - slot.started < SHORT_LIFE_S and not has_run
        if is_short and self.is_burst:
            self._exit_code = 1
        if is_short:
            self._pause()
        else:
            self._pause_s, self._start_at = 0.0, time.monotonic()

    def _check_limits(self) -> None:
        now = time.monotonic()
        for slot in self.slots.values():
            if slot.killed_for:
                continue
            if not slot.status.is_ready and (late := self.limits.late_start(slot.started, now)):
                self._kill(slot, *late)
                continue
            for thread, run in slot.status.runs().items():
                if overrun := self.limits.overrun(run, now):
                    self._kill(slot, *overrun)
                    slot.guilty = thread
                    break
            self._check_memory(slot)
        if self._kill_at is not None and now > self._kill_at:
            self._kill_all("its grace period has ended")

    def _check_memory(self, slot: Slot) -> None:
        """Let a slot that has grown too large claim no more and end, so that a fresh one follows."""
        # One that hasn't run a job yet can't become smaller: it would be replaced without end.
        if not self.limits.max_rss_mb or slot.is_leaving or not slot.status.has_run():
            return
        if rss_mb(slot.pid) > self.limits.max_rss_mb:
            logger.info("Slot %d takes more than MAX_RSS_MB=%d; replacing it", slot.pid, self.limits.max_rss_mb)
            slot.is_leaving = True
            send_signal(slot.pid, signal.SIGUSR1)

    def _kill(self, slot: Slot, cause: str, reason: str) -> None:
        slot.cause, slot.killed_for = cause, reason
        send_signal(slot.pid, signal.SIGKILL)
        kill_group(slot.pid)

    def _kill_all(self, reason: str) -> None:
        self._is_stopping = True
        for slot in list(self.slots.values()):
            self._kill(slot, "stop", reason)
            _, status = os.waitpid(slot.pid, 0)
            self._bury(slot, os.waitstatus_to_exitcode(status))

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)
        self._break_off.hurry()

    def _forward_signals(self) -> None:
        names = [signal.Signals(number).name for number in self._signals]
        self._signals.clear()
        is_again = self._is_stopping or len(names) > 1
        self._is_stopping = True
        grace_s = 0.0 if is_again else self.limits.grace_period_s
        logger.info("%s: stopping %s", names[-1], "at once" if is_again else f"within {grace_s:g} s")
        self._kill_at = time.monotonic() + grace_s + KILL_AFTER_S
        for slot in self.slots.values():
            # Another one, since a second of the same kind may be lost while the first one is pending.
            send_signal(slot.pid, signal.SIGALRM if is_again else signal.SIGTERM)
        self._let_start()  # a slot that waits still sees its signal then


def _announce(queues: Sequence[JobQueue]) -> None:
    """Set the supervisor's counters to 0, so that they exist before they grow."""
    for queue in queues:
        metrics.SWEPT.add(queue.name, amount=0)
    for cause in metrics.DEATH_CAUSES:
        metrics.SLOT_DEATHS.add(cause, amount=0)
