"""How much memory may this process use?"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from redis_consumer.serving import cgroups

_FILES = ("memory.max", "memory.limit_in_bytes")


def usable_bytes(groups: Iterable[Path] | None = None) -> int:
    """Bytes that the container's limit leaves to this process, by default all that the machine has.

    Args:
        groups: folders of the control groups whose limit counts; by default those of this process.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = cgroups.folders("memory") if groups is None else groups
    return min([machine, *(limit for group in found for limit in _limits(group))])


def _limits(group: Path) -> list[int]:
    texts = [(group / name).read_text().strip() for name in _FILES if (group / name).is_file()]
    # "max" is no number.
    return [int(text) for text in texts if text.isdecimal()]
