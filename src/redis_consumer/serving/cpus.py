"""Counts the CPUs that this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

from redis_consumer.serving import cgroups


def usable_cpus(groups: Iterable[Path] | None = None) -> int:
    """Count the whole CPUs that affinity and the container's quota leave to this process, at least 1.

    A library that counts the machine's CPUs instead starts too many threads in a container, and each waits for the
    others.

    Args:
        groups: folders of the control groups whose quota counts; by default those of this process.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quotas = (_quota(group) for group in (cgroups.folders("cpu") if groups is None else groups))
    return max(1, int(min([cpus, *quotas])))


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
