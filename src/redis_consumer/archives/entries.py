"""Describes one entry of a zip or tar archive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from redis_consumer.errors import UnsafeArchive


@dataclass(frozen=True)
class Entry:
    """One file of an archive.

    Attributes:
        name: its name in the archive.
        open: opens a stream of its bytes.
        fault: why the archive is refused because of it; empty if it is accepted.
        advice: what to do about the fault.
    """

    name: str
    open: Callable[[], IO[bytes]]
    fault: str = ""
    advice: str = ""

    def check(self, label: str) -> None:
        """Raise `UnsafeArchive` if this entry has a fault."""
        if self.fault:
            raise UnsafeArchive(f"{label}: member {self.name[:100]!r} {self.fault}; {self.advice}")
