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
class Slot:
    """One process and what it last reported."""

    pid: int
    pipe: int
    started: float
    job: Job | None = None
    job_started: float = 0.0
    progressed: float = 0.0
    unread: bytes = b""
    killed_for: str = ""
    has_run: bool = field(default=False)


class Link:
    """A slot's side of the line to its supervisor.

    Args:
        pipe: what is written there the supervisor reads.
        start: ends when the slot may claim.
    """

    def __init__(self, pipe: int, start: int) -> None:
        self._pipe = pipe
        self._start = start

    def wait_for_start(self) -> None:
        """Wait until the worker is registered."""
        os.read(self._start, 1)

    def report(self, job: Job | None) -> None:
        """Tell which job runs, None for none; told again with the same one, it made progress."""
        report = None if job is None else [job.id, job.attempt]
        # Short enough for the kernel to write it whole.
        os.write(self._pipe, json.dumps(report).encode() + b"\n")


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
