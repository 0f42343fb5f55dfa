"""Records the objects that a run downloads and uploads, with their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

#: Most objects that are listed for one run. Further ones are only counted.
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
    """The objects that one run has transferred, in order. Only the run's own thread is recorded.

    Attributes:
        downloads: the first `MOST_LISTED` of them.
        uploads: the same.
        left_out: number of further objects.
        not_wanted: keys of objects that aren't recorded.
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


#: Where the downloads and uploads of this thread are recorded; None if they aren't.
current: ContextVar[Transfers | None] = ContextVar("transfers", default=None)


def new_digest(key: str) -> Any:
    """Return a digest for an object that is recorded; None for any other."""
    transfers = current.get()
    return None if transfers is None or key in transfers.not_wanted else hashlib.sha256()


def folder_of(key: str, parts: Sequence[Moved]) -> Moved:
    """Combine all objects of a folder into one entry."""
    lines = sorted(f"{part.sha256}  {part.key}\n" for part in parts)
    digest = hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape"))
    return Moved(f"{key}/", sum(part.size for part in parts), digest.hexdigest())
