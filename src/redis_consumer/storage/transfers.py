"""Which objects does a run download and upload, and what was in them?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

#: Objects that are listed for one run; of more only their number is known.
MOST_LISTED = 100


@dataclass(frozen=True)
class Moved:
    """An object that was downloaded or uploaded.

    Attributes:
        key: its key; that of a folder ends with a slash.
        size: bytes, of all objects together for a folder.
        sha256: digest of the bytes, or for a folder of the lines ``<sha256>  <key>`` of its objects, sorted.
    """

    key: str
    size: int
    sha256: str


@dataclass(slots=True)
class Transfers:
    """What one run has moved, in this order. Other threads than the run's own aren't listened to.

    Attributes:
        downloads: the first `MOST_LISTED` of them.
        uploads: the same.
        left_out: how many more there were.
        not_wanted: keys of objects that nobody wants to know of.
    """

    downloads: list[Moved] = field(default_factory=list)
    uploads: list[Moved] = field(default_factory=list)
    left_out: int = 0
    not_wanted: set[str] = field(default_factory=set)

    def add(self, moved: Moved, *, is_upload: bool = False) -> None:
        """Take an object."""
        listed = self.uploads if is_upload else self.downloads
        if len(listed) < MOST_LISTED:
            listed.append(moved)
        else:
            self.left_out += 1


_noted: ContextVar[Transfers | None] = ContextVar("transfers", default=None)


def note(transfers: Transfers | None) -> None:
    """Note in `transfers` what this thread downloads and uploads from now on; None ends it."""
    _noted.set(transfers)


def noted() -> Transfers | None:
    """Where downloads and uploads are to be noted, None where nobody wants to know."""
    return _noted.get()


def new_digest(key: str) -> Any:
    """A digest for an object that is to be noted, None where it isn't."""
    transfers = noted()
    return None if transfers is None or key in transfers.not_wanted else hashlib.sha256()


def folder_of(key: str, parts: Sequence[Moved]) -> Moved:
    """Make one of all objects of a folder."""
    lines = sorted(f"{part.sha256}  {part.key}\n" for part in parts)
    digest = hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape"))
    return Moved(f"{key}/", sum(part.size for part in parts), digest.hexdigest())
