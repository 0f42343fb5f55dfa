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


def share_pools() -> None:
    """Let all threads of this process allocate from two pools: with a pool each, each would keep freed memory (glibc).

    ``MALLOC_ARENA_MAX`` overrides this.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        m_arena_max, pools = -8, 2
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(m_arena_max, pools)


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
