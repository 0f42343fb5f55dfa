"""Handles the processes of slots: signals, exit codes, memory, and their end together with the supervisor's."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Collection
from pathlib import Path

#: Allocations above this are given back to the system as soon as they are freed.
_LARGE_BYTES = 4 << 20


def send_signal(pid: int, number: int) -> None:
    """Send a signal to a process if it still exists."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def kill_group(pid: int) -> None:
    """Kill a slot and the processes that it started."""
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
    """Reap processes whose own parents ended before them, as the first process of a container must.

    Args:
        slots: children that are reaped elsewhere.
    """
    if not _adopts_orphans():
        return
    with contextlib.suppress(ChildProcessError):  # there are no children at all
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid not in slots:
            os.waitpid(ended.si_pid, os.WNOHANG)


def _adopts_orphans() -> bool:
    """Return whether this process becomes the parent of its descendants' children when those descendants end."""
    if sys.platform != "linux":
        return False
    pr_get_child_subreaper, found = 37, ctypes.c_int(0)
    ctypes.CDLL(None).prctl(pr_get_child_subreaper, ctypes.byref(found), 0, 0, 0)
    return os.getpid() == 1 or bool(found.value)


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB; 0 if the system has no /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def return_freed_early() -> None:
    """Let freed memory of this process return to the system, instead of being kept for later (glibc).

    All threads allocate from two pools: with a pool each, each would keep freed memory. Large arrays lie outside of the
    pools, in which they would leave gaps. ``MALLOC_ARENA_MAX`` and ``MALLOC_MMAP_THRESHOLD_`` override this.
    """
    m_mmap_threshold, m_arena_max = -3, -8
    chosen = {"MALLOC_ARENA_MAX": (m_arena_max, 2), "MALLOC_MMAP_THRESHOLD_": (m_mmap_threshold, _LARGE_BYTES)}
    for variable, option in chosen.items() if sys.platform == "linux" else ():
        if variable not in os.environ:
            with contextlib.suppress(AttributeError):  # another C library
                ctypes.CDLL(None).mallopt(*option)


def die_with_parent(life: int) -> None:
    """End this process when the supervisor ends for any reason, even while native code holds the interpreter.

    Args:
        life: a pipe that the kernel closes when the supervisor ends.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)

    def watch() -> None:
        os.read(life, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
