"""One slot of a worker: a forked process, its pipe to the supervisor, and how both end."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from redis_consumer.errors import ConsumerError, LeaseLost
from redis_consumer.job import Job
from redis_consumer.logs import job_context
from redis_consumer.queue import JobQueue
from redis_consumer.worker.limits import timeout_reason
from redis_consumer.worker.shared_status import SharedStatus

logger = logging.getLogger(__name__)

#: Seconds between two tries to return a job: by far shorter than a lease, whose end would return it as well.
AGAIN_S = 0.25


@dataclass
class Slot:
    """One process.

    Attributes:
        pid: the process.
        status: where it reports what it does.
        folder: of its temporary files.
        started: when.
        queue_index: number of the queue that it serves, among those of the worker.
        number: among the living slots of the worker; one that follows a dead one may have its number.
        killed_for: why it is ended, empty where it isn't.
        cause: the same for metrics.
        guilty: thread whose job it is ended for, None where none is to blame.
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
        consumer: name of the class that ran it, None where it isn't known.
        is_crash: whether the attempt counts.
        is_late: whether it took too long; a job that does so again fails.
    """

    queue: JobQueue
    job: Job
    cause: str
    consumer: str | None
    is_crash: bool
    is_late: bool = False


class Returns:
    """Returns jobs at once, and those that Redis didn't take some moments later."""

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
        """Try those again that are left, where it is time for it; give the moment of the next try."""
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


def _return(returned: Return) -> None:
    queue, job, cause = returned.queue, returned.job, returned.cause
    if not returned.is_late:
        queue.give_back(job, is_next=not returned.is_crash, is_crash=returned.is_crash, error=cause)
    elif not queue.give_back_late(job, cause):
        queue.complete(job, {"status": "failed", "reason": timeout_reason(job, cause)}, is_dead=True)


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process, if it still is there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_group(pid: int) -> None:
    """End a slot at once, with the processes that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def cause_of(code: int, killed_for: str) -> str:
    """Describe why a slot ended."""
    if killed_for:
        return killed_for
    if code < 0:
        # Not all signals have names.
        return f"killed by {next((known.name for known in signal.Signals if known == -code), f'signal {-code}')}"
    return f"exit code {code}"


def reap_orphans(slots: Collection[int]) -> None:
    """Take note of the end of processes whose own parents ended before them, as the first process of a container must.

    Args:
        slots: children whose end is noted elsewhere.
    """
    if not _adopts_orphans():
        return
    with contextlib.suppress(ChildProcessError):  # there are no children at all
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid not in slots:
            os.waitpid(ended.si_pid, os.WNOHANG)


def _adopts_orphans() -> bool:
    """Whether the system gives this process the children of its descendants that end."""
    if sys.platform != "linux":
        return False
    pr_get_child_subreaper, found = 37, ctypes.c_int(0)
    ctypes.CDLL(None).prctl(pr_get_child_subreaper, ctypes.byref(found), 0, 0, 0)
    return os.getpid() == 1 or bool(found.value)


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB; 0 where the system has no /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def share_pools() -> None:
    """Let all threads of this process allocate from a few pools: each of their own would keep what was freed (glibc).

    Where ``MALLOC_ARENA_MAX`` is set, that holds.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        m_arena_max, pools = -8, 2
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(m_arena_max, pools)


def die_with_parent(life: int) -> None:
    """End this process when the supervisor ends for any reason, even while native code holds the interpreter."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)

    def watch() -> None:
        os.read(life, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
