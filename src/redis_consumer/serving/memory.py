"""Measures the memory that this process may use and holds, and returns what it has freed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from redis_consumer.serving import cgroups

T = TypeVar("T")

_FILES = ("memory.max", "memory.limit_in_bytes")


def usable_bytes(groups: Iterable[Path] | None = None) -> int:
    """Bytes that the container's limit leaves to this process, by default all that the machine has.

    Args:
        groups: folders of the control groups whose limit counts; by default those of this process.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = cgroups.folders("memory") if groups is None else groups
    return min([machine, *(limit for group in found for limit in _limits(group))])


def resident_bytes() -> int:
    """Bytes of memory that this process holds now; where the system doesn't say (no ``/proc``), at most so far."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_bytes() -> int:
    """Bytes of memory that this process has held at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def grown_by(call: Callable[[], T]) -> tuple[T, int]:
    """Make a call; give its result and by how many bytes the memory of this process has grown in it.

    Memory that was free within the process before isn't seen, so it may be less than what the call took.
    """
    held, peak = resident_bytes(), peak_bytes()
    result = call()
    reached = peak_bytes()
    return result, max(resident_bytes(), reached if reached > peak else 0) - held


def return_freed() -> None:
    """Return to the system what this process has freed (glibc keeps much of it for later)."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _limits(group: Path) -> list[int]:
    texts = [(group / name).read_text().strip() for name in _FILES if (group / name).is_file()]
    # "max" is no number.
    return [int(text) for text in texts if text.isdecimal()]
