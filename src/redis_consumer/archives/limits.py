"""Checks the size of an untrusted archive and its entries."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO

from redis_consumer.errors import UnsafeArchive
from redis_consumer.job import READABLE_ARCHIVES
from redis_consumer.options import ArchiveLimits
from redis_consumer.text import in_utf8

#: Any archive can unpack to this size, even a small one: blank images are packed to a thousandth of their size.
_SMALL_BYTES = 256 << 20
_MAX_NAME_BYTES = 1024
_MAX_LOCAL_BYTES = 120
_DRIVE = re.compile(r"[A-Za-z]:")
#: Metadata files that macOS and Windows add to archives.
_JUNK = frozenset({".ds_store", "thumbs.db", "desktop.ini"})


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


class Meter:
    """Counts the members and the unpacked bytes of an archive, and refuses the archive above its limits.

    Args:
        limits: the limits.
        packed_bytes: size of the archive.
        label: name of the archive in messages.

    Raises:
        UnsafeArchive: (methods) a limit is exceeded, or two members have the same name.
    """

    def __init__(self, limits: ArchiveLimits, packed_bytes: int, label: str) -> None:
        self.label = label
        self._limits = limits
        self._most = min(limits.max_bytes, max(_SMALL_BYTES, limits.max_ratio * packed_bytes))
        self._bytes = 0
        self._names: set[str] = set()

    def add_member(self, name: str) -> None:
        """Count a member."""
        if name in self._names:
            raise UnsafeArchive(f"{self.label}: has two files with the name {name!r}; rename one of them")
        self._names.add(name)
        check_count(len(self._names), self._limits, self.label)

    def add_bytes(self, count: int) -> None:
        """Count unpacked bytes."""
        self._bytes += count
        if self._bytes > self._limits.max_bytes:
            raise UnsafeArchive(
                f"{self.label}: unpacks to more than the {self._limits.max_bytes} bytes allowed; "
                "split it into several archives"
            )
        if self._bytes > self._most:
            raise UnsafeArchive(
                f"{self.label}: unpacks to more than {self._limits.max_ratio} times its size; "
                "split it into several archives"
            )


def check_count(count: int, limits: ArchiveLimits, label: str) -> None:
    """Refuse an archive with too many members."""
    if count > limits.max_members:
        raise UnsafeArchive(
            f"{label}: has more than the {limits.max_members} files allowed; split it into several archives"
        )


def safe_name(name: str, label: str) -> str:
    """Return the name of a member with its folders, joined by slashes. Backslashes are replaced by slashes.

    >>> safe_name("./plate 1\\\\HeLa.tif", "a.zip")
    'plate 1/HeLa.tif'

    Raises:
        UnsafeArchive: the name is absolute, leads out of its folder, is empty, is too long or contains a NUL character.
    """
    text = in_utf8(name.replace("\\", "/"))
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or not path.parts or _DRIVE.match(text):
        raise UnsafeArchive(f"{label}: member {text[:100]!r} leads out of its folder; pack plain files only")
    if "\0" in text:
        raise UnsafeArchive(f"{label}: member {text[:100]!r} has a NUL in its name; rename it")
    if len(text.encode()) > _MAX_NAME_BYTES:
        raise UnsafeArchive(f"{label}: member {text[:40] + '…'!r} has too long a name; shorten it")
    return str(path)


def is_junk(name: str) -> bool:
    """Whether a member is a metadata file of macOS or Windows."""
    path = PurePosixPath(name)
    return "__MACOSX" in path.parts or path.name.startswith("._") or path.name.lower() in _JUNK


def local_name(name: str) -> str:
    """Return a safe file name for a member, on disk and in the bucket. Unsafe characters are replaced.

    >>> local_name("plate 1/He:La\\n.tif")
    'He_La_.tif'
    """
    kept = re.sub(r"[^\w .+()-]", "_", PurePosixPath(name).name).strip()
    cut = kept.encode()[-_MAX_LOCAL_BYTES:].decode("utf-8", "ignore").lstrip(". ")
    return cut or "image"


def damaged(label: str, name: str) -> UnsafeArchive:
    """Return the error for a member that can't be unpacked."""
    return UnsafeArchive(f"{label}: member {name[:100]!r} is damaged; pack it again and upload the whole file")


def unreadable(label: str, packed: str = "") -> UnsafeArchive:
    """Return the error for a file that is not an archive, or an archive in an unsupported format."""
    what = f"is a {packed} file, which can't be read" if packed else "isn't a readable archive"
    return UnsafeArchive(f"{label}: {what}; pack it again as {READABLE_ARCHIVES} and upload the whole file")
