"""What is one entry of an archive, of whichever kind?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from redis_consumer.errors import UnsafeArchive


@dataclass(frozen=True)
class Entry:
    """One file of an archive.

    Attributes:
        name: as the archive has it.
        open: gives its bytes.
        fault: why the archive is refused for it, empty for none.
        advice: what to do about the fault.
    """

    name: str
    open: Callable[[], IO[bytes]]
    fault: str = ""
    advice: str = ""

    def check(self, label: str) -> None:
        """Refuse an archive for what this entry is."""
        if self.fault:
            raise UnsafeArchive(f"{label}: member {self.name[:100]!r} {self.fault}; {self.advice}")
