"""Unpacks the images of an untrusted archive, one at a time."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from redis_consumer import wanted
from redis_consumer.archives.limits import Entry, Meter, damaged, is_junk, local_name, safe_name, unreadable
from redis_consumer.archives.readers import tar_entries, zip_entries
from redis_consumer.errors import ConsumerError
from redis_consumer.job import PACKED_HEAD_BYTES, packed_as
from redis_consumer.options import ArchiveLimits

_COPY_BYTES = 1 << 20
#: Errors that the archive causes: an offset before the start of the file, a name that is too long, or of a file and a
#: folder. gzip.BadGzipFile has no number.
_OF_THE_ARCHIVE = (None, errno.EINVAL, errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


@dataclass(frozen=True)
class Member:
    """A file of an archive, or a folder that is one image.

    Attributes:
        name: its name with its folders, joined by slashes.
        path: path of the unpacked file or folder, which the caller deletes; None if it was skipped.
        reason: why it was skipped; empty if it wasn't.
    """

    name: str
    path: Path | None
    reason: str = ""


def iter_members(
    path: str | os.PathLike[str],
    folder: Path,
    *,
    label: str,
    why_skipped: Callable[[str], str],
    limits: ArchiveLimits | None = None,
    whole_folder: Callable[[str], str] = lambda _: "",
) -> Iterator[Member]:
    """Unpack a zip, tar or tar.gz archive file by file. The first bytes decide which format it has.

    Files that were unpacked before an error are kept, and the caller decides what to do with them. Folders and
    metadata files of macOS and Windows are left out.

    Args:
        path: the archive.
        folder: folder to unpack into. Each file gets its own folder there.
        label: name of the archive in messages.
        why_skipped: gets the name of a member and returns why to skip it; empty to unpack it.
        limits: limits for the content.
        whole_folder: gets the name of a member and returns the folder in the archive that is one image with it; empty
            for a file by itself. These folders come last.

    Raises:
        UnsafeArchive: the file is not an archive, is damaged or encrypted, exceeds the limits, or has a member that
            leads out of its folder, is a link or a device, or occurs twice.
        OSError: the files can't be written.
    """
    archive, allowed = Path(path), limits or ArchiveLimits()
    meter = Meter(allowed, archive.stat().st_size, label)
    folders: dict[str, Path] = {}
    for number, entry in enumerate(_entries(archive, label, allowed)):
        entry.check(label)
        name = safe_name(entry.name, label)
        meter.add_member(name)
        if is_junk(name):
            continue
        whole = whole_folder(name)
        if whole:
            target = folders.setdefault(whole, folder / f"{number}-whole" / "image.zarr")
            _unpack(entry, target / name.removeprefix(f"{whole}/"), meter)
            continue
        reason = why_skipped(name)
        if reason:
            yield Member(name, None, reason)
            continue
        target = folder / str(number) / local_name(name)
        if _unpack(entry, target, meter):
            yield Member(name, target)
        else:
            target.unlink()
            yield Member(name, None, "is empty")
    yield from (Member(name, path) for name, path in folders.items())


def _entries(path: Path, label: str, limits: ArchiveLimits) -> Iterator[Entry]:
    with path.open("rb") as file:
        head = file.read(PACKED_HEAD_BYTES)
    packed = packed_as(head)
    if packed in ("gzip", "tar"):
        return tar_entries(path, label, limits)
    if head.startswith(b"PK"):
        return zip_entries(path, label, limits)
    raise unreadable(label, packed)


def _unpack(entry: Entry, target: Path, meter: Meter) -> int:
    """Write a file and return its size."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with entry.open() as source, target.open("wb") as sink:
            while chunk := source.read(_COPY_BYTES):
                wanted.check()
                meter.add_bytes(len(chunk))
                sink.write(chunk)
            return sink.tell()
    except (ConsumerError, MemoryError):
        raise
    except OSError as error:
        if error.errno not in _OF_THE_ARCHIVE:
            raise
        raise damaged(meter.label, entry.name) from error
    except Exception as error:  # zlib.error, BadZipFile, NotImplementedError, RuntimeError, EOFError, TarError
        raise damaged(meter.label, entry.name) from error
