"""One slot of a worker: a forked process, its pipe to the supervisor, and how both end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from redis_consumer.job import Job
from redis_consumer.supervisor.board import Board


@dataclass
class Slot:
    """One process.

    Attributes:
        pid: the process.
        board: where it reports what it does.
        folder: of its temporary files.
        started: when.
        service: number of the queue that it serves, among those of the worker.
        number: among the living slots of the worker; one that follows a dead one may have its number.
        killed_for: why it is ended, empty where it isn't.
        cause: the same for metrics.
        guilty: thread whose job it is ended for, None where none is to blame.
        is_leaving: whether it was ordered to take no more jobs.
    """

    pid: int
    board: Board
    folder: Path
    started: float
    service: int = 0
    number: int = 0
    killed_for: str = ""
    cause: str = ""
    guilty: int | None = None
    is_leaving: bool = False


class Link:
    """A thread's side of the line to its supervisor.

    Args:
        board: where to report what the thread does.
        start: ends when the slot may claim.
        folder: that all slots of the worker share, for what each would else make for itself.
        service: number of the queue that the slot serves, among those of the worker.
        thread: number of the thread within the slot.
    """

    def __init__(self, board: Board, start: int, folder: Path, service: int = 0, thread: int = 0) -> None:
        self.folder = folder
        self.service = service
        self._board = board
        self._start = start
        self._thread = thread

    def of_thread(self, thread: int) -> Link:
        """The same line for another thread."""
        return Link(self._board, self._start, self.folder, self.service, thread)

    def wait_for_start(self, consumer: str) -> None:
        """Report the name of the class that runs the jobs, and wait until the worker is registered."""
        self._board.set_ready(consumer)
        os.read(self._start, 1)

    def report(self, job: Job | None) -> None:
        """Report which job runs, None for none; the same one again means that it made progress."""
        self._board.note(self._thread, job)

    def pause(self, reason: str) -> None:
        """Report why the thread takes no jobs for now, empty once it takes them again."""
        self._board.set_pause(self._thread, reason)


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
