"""Counts the CPUs and the memory that this process may use, measures its memory and returns what it has freed."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_GROUPS = Path("/sys/fs/cgroup")
_GROUP_TABLE = Path("/proc/self/cgroup")
_MEMORY_FILES = ("memory.max", "memory.limit_in_bytes")


def usable_cpus(groups: Iterable[Path] | None = None) -> int:
    """Count the whole CPUs that affinity and the container's quota leave to this process, at least 1.

    A library that counts the machine's CPUs instead starts too many threads in a container, and each waits for the
    others.

    Args:
        groups: folders of the control groups whose quota counts; by default those of this process.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quotas = (_quota(group) for group in (control_groups("cpu") if groups is None else groups))
    return max(1, int(min([cpus, *quotas])))


def usable_bytes(groups: Iterable[Path] | None = None) -> int:
    """Bytes that the container's limit leaves to this process, by default all that the machine has.

    Args:
        groups: folders of the control groups whose limit counts; by default those of this process.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = control_groups("memory") if groups is None else groups
    return min([machine, *(limit for group in found for limit in _limits(group))])


def control_groups(controller: str, *, root: Path = _GROUPS, table: Path = _GROUP_TABLE) -> list[Path]:
    """List the folders that can hold limits of this process (cgroup v1 and v2): its own group and all enclosing ones.

    Args:
        controller: ``cpu`` or ``memory``.
        root: where the kernel shows the groups; a container often sees its own group there.
        table: where the kernel says which groups this process is in.
    """
    found = {root: None, root / controller: None}
    for line in _lines(table):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Only the older version has a tree for each controller.
        base = root / controller if controllers else root
        # The name of a group outside of the container's view contains "..".
        group = base / path.replace("..", "").lstrip("/")
        found |= dict.fromkeys(folder for folder in (group, *group.parents) if folder.is_relative_to(base))
    return [folder for folder in found if folder.is_dir()]


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


def _quota(group: Path) -> float:
    """CPUs' worth of time that a group gets, infinite where nothing limits it."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        # No limit here, or "max", which is no number.
        return math.inf


def _limits(group: Path) -> list[int]:
    texts = [(group / name).read_text().strip() for name in _MEMORY_FILES if (group / name).is_file()]
    # "max" is no number.
    return [int(text) for text in texts if text.isdecimal()]


def _lines(table: Path) -> list[str]:
    try:
        return [line for line in table.read_text().splitlines() if line.count(":") >= 2]
    except OSError:
        return []
