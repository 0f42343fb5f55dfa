"""Starts, watches and ends the slots of a worker, and returns the jobs of slots that died."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from redis_consumer import machine, metrics
from redis_consumer.errors import ConsumerError, LeaseLost
from redis_consumer.job import Job
from redis_consumer.logs import job_context
from redis_consumer.options import WorkerLimits
from redis_consumer.queue import JobQueue
from redis_consumer.worker.limits import late_start, overrun, timeout_reason
from redis_consumer.worker.shared_status import SharedStatus
from redis_consumer.worker.slot_process import cause_of, kill_group, reap_orphans, rss_mb, send_signal
from redis_consumer.worker.temp_folders import TempFolders

logger = logging.getLogger(__name__)

#: Exit code of a slot that can't run with these settings. No other slot can run with them either.
EXIT_SETTINGS = 2
#: Seconds that a slot has after its grace period to give its job back, before it is killed.
KILL_AFTER_S = 5.0
#: Signals that the supervisor passes on to its slots.
PASSED_ON = (signal.SIGTERM, signal.SIGINT)
#: A slot that ends sooner than this without a job is started again with growing pauses.
SHORT_LIFE_S = 5.0
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0
#: Seconds between two attempts to return a job. Much shorter than a lease, whose end would also return it.
AGAIN_S = 0.25


@dataclass
class Slot:
    """One process.

    Attributes:
        pid: the process.
        status: memory in which the slot writes what it runs.
        folder: of its temporary files.
        started: when, by the monotonic clock.
        queue_index: index of its queue among the queues of the worker.
        number: its number among the living slots of the worker; a dead slot's number is used again.
        killed_for: why it is ended, empty if it isn't.
        cause: the same for metrics.
        guilty: thread whose job caused the end, None if no job did.
        is_leaving: whether it was ordered to take no more jobs.
    """

    pid: int
    status: SharedStatus
    folder: Path
    started: float
    queue_index: int = 0
    number: int = 0
    killed_for: str = ""
    cause: str = ""
    guilty: int | None = None
    is_leaving: bool = False


@dataclass(frozen=True)
class Return:
    """A job whose slot died.

    Attributes:
        queue: of the job.
        job: the job.
        cause: why the slot ended.
        consumer: name of the class that ran it, None if it isn't known.
        is_crash: whether the attempt counts.
        is_late: whether the job took too long. If it does so again, it fails.
    """

    queue: JobQueue
    job: Job
    cause: str
    consumer: str | None
    is_crash: bool
    is_late: bool = False


class Returns:
    """Returns jobs at once, and tries again a moment later while Redis is unavailable."""

    def __init__(self) -> None:
        self._left: list[Return] = []
        self._again_at = 0.0

    def give(self, returned: Return) -> None:
        """Return a job."""
        if not self._is_over(returned):
            self._left.append(returned)
            self._again_at = time.monotonic() + AGAIN_S
        job, consumer = returned.job, returned.consumer
        # Last: a log on a slow disk must not delay a job.
        with job_context(job_id=job.id, attempt=job.attempt, queue=returned.queue.name, consumer=consumer):
            logger.error("Job %s: its slot ended in attempt %d: %s", job.id, job.attempt, returned.cause)

    def again(self) -> float:
        """Try the remaining jobs again if it is time; return the moment of the next attempt."""
        if self._left and time.monotonic() >= self._again_at:
            self._left = [each for each in self._left if not self._is_over(each)]
            self._again_at = time.monotonic() + AGAIN_S
        return self._again_at if self._left else float("inf")

    def _is_over(self, returned: Return) -> bool:
        job, consumer = returned.job, returned.consumer
        with job_context(job_id=job.id, attempt=job.attempt, queue=returned.queue.name, consumer=consumer):
            try:
                _return(returned)
            except LeaseLost:
                logger.info("Job %s was settled or taken before", job.id)
            except ConsumerError as error:
                logger.debug("Job %s is returned later: %s", job.id, error)
                return False
        return True


def _count_death(slot: Slot, code: int) -> None:
    if code or slot.killed_for:
        metrics.SLOT_DEATHS.add(slot.cause or ("signal" if code < 0 else "exit"))


def _return(returned: Return) -> None:
    queue, job, cause = returned.queue, returned.job, returned.cause
    if not returned.is_late:
        queue.give_back(job, is_next=not returned.is_crash, is_crash=returned.is_crash, error=cause)
    elif not queue.give_back_late(job, cause):
        queue.complete(job, {"status": "failed", "reason": timeout_reason(job, cause)}, is_dead=True)


class SlotPool:
    """The slots of one worker.

    Args:
        queues: each has slots of its own, so that none waits for another.
        run_slot: runs in each forked process with its status, the index of its queue and its number; returns the exit
            code.
        slots: how many for each queue.
        threads: of each slot.
        limits: of slots and jobs.
        is_burst: start no new slot for one that ended by itself.

    Attributes:
        slots: the living slots by process id.
        is_stopping: whether the worker stops: no slot is started, and no attempt of a job counts.
        exit_code: of the worker; not 0 if its slots can't run.
        start_at: the moment, by the monotonic clock, before which no slot is started.
    """

    def __init__(
        self,
        queues: Sequence[JobQueue],
        run_slot: Callable[[SharedStatus, int, int], int],
        *,
        slots: int,
        threads: int,
        limits: WorkerLimits,
        is_burst: bool,
    ) -> None:
        self.slots: dict[int, Slot] = {}
        self.is_stopping = False
        self.exit_code = 0
        self.start_at = self._pause_s = 0.0
        self._queues = queues
        self._run_slot = run_slot
        self._wanted = [slots] * len(queues)
        self._threads = threads
        self._limits = limits
        self._is_burst = is_burst
        self._kill_at: float | None = None
        self._returns = Returns()

    @property
    def is_over(self) -> bool:
        """Whether no slot lives and none is to follow."""
        return not self.slots and bool(self.is_stopping or self.exit_code or self._is_burst)

    @property
    def statuses(self) -> list[SharedStatus]:
        """The status of each living slot."""
        return [slot.status for slot in self.slots.values()]

    @property
    def is_working(self) -> bool:
        """Whether a slot lives that isn't being killed."""
        return any(not slot.killed_for for slot in self.slots.values())

    def jobs(self, queue_index: int) -> list[Job]:
        """Return the jobs that run for a queue, without those of slots that are being killed."""
        # A killed process can remain in the system for long; the leases of its jobs must not.
        slots = [slot for slot in self.slots.values() if slot.queue_index == queue_index and not slot.killed_for]
        return [run.job for slot in slots for run in slot.status.runs().values()]

    def return_again(self) -> float:
        """Return jobs that Redis didn't take before; return the moment of the next attempt."""
        return self._returns.again()

    def fill(self, folders: TempFolders) -> None:
        """Start the missing slots, unless the worker stops, pauses, or can make no temporary files."""
        while not (self.is_stopping or folders.fault or time.monotonic() < self.start_at):
            running = [slot.queue_index for slot in self.slots.values()]
            missing = (each for each, wanted in enumerate(self._wanted) if running.count(each) < wanted)
            queue_index = next(missing, None)
            if queue_index is None:
                return
            self._start(queue_index, folders)

    def _start(self, queue_index: int, folders: TempFolders) -> None:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        # A signal that reaches the slot while it still has the supervisor's handlers would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
        folder = None
        try:
            folder, status = folders.make(), SharedStatus(self._threads)
            number = self._free_number()
            pid = os.fork()
        except OSError as error:
            # A full disk, or too many processes: the other slots continue.
            logger.error("Can't start a slot (%s); trying again", error)
            if folder is not None:
                folders.remove(folder)
            self._pause()
            return
        else:
            if pid == 0:
                machine.use(folder)
                os._exit(self._run_slot(status, queue_index, number))
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        self.slots[pid] = Slot(pid, status, folder, time.monotonic(), queue_index, number)

    def _pause(self) -> None:
        """Start no slot for some time, for longer each time."""
        self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), MAX_PAUSE_S)
        self.start_at = time.monotonic() + self._pause_s

    def _free_number(self) -> int:
        """Return the first number that no living slot has."""
        taken = {slot.number for slot in self.slots.values()}
        return next(number for number in range(len(taken) + 1) if number not in taken)

    def reap(self) -> None:
        """Handle the end of slots and, in a container, of orphaned processes."""
        for slot in list(self.slots.values()):
            pid, status = os.waitpid(slot.pid, os.WNOHANG)
            if pid:
                self._remove(slot, os.waitstatus_to_exitcode(status))
        reap_orphans(self.slots)

    def _remove(self, slot: Slot, code: int) -> None:
        """Return the jobs of a slot that ended, and decide when the next slot starts."""
        del self.slots[slot.pid]
        kill_group(slot.pid)
        self._return_jobs(slot, code)
        _count_death(slot, code)
        has_run = slot.status.has_run()
        slot.status.close()
        TempFolders.remove(slot.folder)
        if code == 0 or self.is_stopping:
            self._pause_s = 0.0
            if self._is_burst and not slot.is_leaving:
                self._wanted[slot.queue_index] -= 1
        elif code == EXIT_SETTINGS and not (has_run or any(status.has_run() for status in self.statuses)):
            self._give_up(code)
        else:
            self._plan_next(slot, code, has_run=has_run)

    def _return_jobs(self, slot: Slot, code: int) -> None:
        for thread, run in slot.status.runs().items():
            # Ended by the supervisor, for a stop or because of another job: this is no attempt of the job.
            is_crash = slot.guilty in (None, thread) and not self.is_stopping
            cause, consumer = cause_of(code, slot.killed_for), slot.status.consumer or None
            is_late = is_crash and bool(slot.cause)
            self._returns.give(Return(self._queues[slot.queue_index], run.job, cause, consumer, is_crash, is_late))

    def _give_up(self, code: int) -> None:
        """End the worker, because no slot can run with these settings."""
        self.exit_code = code
        self._wanted = [0] * len(self._queues)
        for other in self.slots.values():
            send_signal(other.pid, signal.SIGTERM)

    def _plan_next(self, slot: Slot, code: int, *, has_run: bool) -> None:
        """Start the next slot at once, or after a pause if this one ended soon and without a job."""
        logger.error("Slot %d ended: %s; starting another", slot.pid, cause_of(code, slot.killed_for))
        is_short = time.monotonic() - slot.started < SHORT_LIFE_S and not has_run
        if is_short and self._is_burst:
            self.exit_code = 1
        if is_short:
            self._pause()
        else:
            self._pause_s, self.start_at = 0.0, time.monotonic()

    def check_limits(self) -> None:
        """Kill slots that exceed a limit of time, and replace those that exceed the limit of memory."""
        now = time.monotonic()
        for slot in self.slots.values():
            if not slot.killed_for:
                self._check(slot, now)
        if self._kill_at is not None and now > self._kill_at:
            self.kill_all("its grace period has ended")

    def _check(self, slot: Slot, now: float) -> None:
        if not slot.status.is_ready and (late := late_start(self._limits, slot.started, now)):
            self._kill(slot, *late)
            return
        for thread, run in slot.status.runs().items():
            if exceeded := overrun(self._limits, run, now):
                self._kill(slot, *exceeded)
                slot.guilty = thread
                break
        self._check_memory(slot)

    def _check_memory(self, slot: Slot) -> None:
        """Let a slot that has grown too large take no more jobs and end, so that a new one follows."""
        # A slot that hasn't run a job yet can't become smaller. It would be replaced again and again.
        if not self._limits.max_rss_mb or slot.is_leaving or not slot.status.has_run():
            return
        if rss_mb(slot.pid) > self._limits.max_rss_mb:
            logger.info("Slot %d takes more than MAX_RSS_MB=%d; replacing it", slot.pid, self._limits.max_rss_mb)
            slot.is_leaving = True
            send_signal(slot.pid, signal.SIGUSR1)

    def stop(self, signals: Sequence[int]) -> None:
        """Let the running jobs end within the grace period; at a second signal, stop at once."""
        is_again = self.is_stopping or len(signals) > 1
        self.is_stopping = True
        grace_s = 0.0 if is_again else self._limits.grace_period_s
        name = signal.Signals(signals[-1]).name
        logger.info("%s: stopping %s", name, "at once" if is_again else f"within {grace_s:g} s")
        self._kill_at = time.monotonic() + grace_s + KILL_AFTER_S
        for slot in self.slots.values():
            # Another signal, since a second one of the same kind may be lost while the first one is pending.
            send_signal(slot.pid, signal.SIGALRM if is_again else signal.SIGTERM)

    def _kill(self, slot: Slot, cause: str, reason: str) -> None:
        slot.cause, slot.killed_for = cause, reason
        send_signal(slot.pid, signal.SIGKILL)
        kill_group(slot.pid)

    def kill_all(self, reason: str) -> None:
        """Kill all slots and return their jobs."""
        self.is_stopping = True
        for slot in list(self.slots.values()):
            self._kill(slot, "stop", reason)
            _, status = os.waitpid(slot.pid, 0)
            self._remove(slot, os.waitstatus_to_exitcode(status))
