"""How many CPUs may this process use?"""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cpus(cgroup: Path = _CGROUP) -> int:
    """Count the CPUs that affinity and the container's quota leave to this process, at least 1.

    A library that counts the machine's CPUs instead starts too many threads in a container, and each waits for the
    others.

    Args:
        cgroup: where the kernel shows the container's limits.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return max(1, math.ceil(min(cpus, _quota(cgroup))))


def _quota(cgroup: Path) -> float:
    """CPUs' worth of time that the container gets, infinite where nothing limits it."""
    try:
        if (cgroup / "cpu.max").is_file():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        # No cgroup, or "max", which is no number.
        return math.inf
