"""What is one slot of a worker: a forked process, its line to the supervisor, and how both end."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from redis_consumer.job import Job


@dataclass
class Run:
    """A job that runs in a thread of a slot, and since when; by the monotonic clock."""

    job: Job
    started: float
    progressed: float


@dataclass
class Slot:
    """One process and what it last reported.

    Attributes:
        pid: the process.
        pipe: what it writes is read there.
        folder: of its temporary files.
        started: when.
        runs: by the number of the thread.
        is_ready: whether it takes jobs.
        has_run: whether it ever ran one.
        killed_for: why it is ended, empty where it isn't.
        guilty: thread whose job it is ended for, None where none is to blame.
    """

    pid: int
    pipe: int
    folder: Path
    started: float
    runs: dict[int, Run] = field(default_factory=dict)
    unread: bytes = b""
    is_ready: bool = False
    has_run: bool = False
    killed_for: str = ""
    guilty: int | None = None


class Link:
    """A thread's side of the line to its supervisor.

    Args:
        pipe: what is written there the supervisor reads.
        start: ends when the slot may claim.
        thread: number of the thread within the slot.
    """

    def __init__(self, pipe: int, start: int, thread: int = 0) -> None:
        self._pipe = pipe
        self._start = start
        self._thread = thread

    def of_thread(self, thread: int) -> Link:
        """The same line for another thread."""
        return Link(self._pipe, self._start, thread)

    def wait_for_start(self) -> None:
        """Wait until the worker is registered."""
        self._tell("ready")
        os.read(self._start, 1)

    def report(self, job: Job | None) -> None:
        """Tell which job runs, None for none; told again with the same one, it made progress."""
        self._tell(None if job is None else [job.id, job.attempt])

    def _tell(self, what: object) -> None:
        # Short enough for the kernel to write it whole.
        os.write(self._pipe, json.dumps([self._thread, what]).encode() + b"\n")


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process, if it still is there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def cause_of(code: int, killed_for: str) -> str:
    """Say in words why a slot ended."""
    if killed_for:
        return killed_for
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


def rss_mb(pid: int) -> float:
    """Resident memory of a process in MB; 0 where the system doesn't tell by /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def die_with_parent(life: int) -> None:
    """End this process when the supervisor ends in whatever way, even while native code holds the interpreter."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)

    def watch() -> None:
        os.read(life, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
