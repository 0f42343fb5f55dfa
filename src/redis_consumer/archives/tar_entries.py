"""Reads the entries of a tar or tar.gz archive in one pass."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from redis_consumer import wanted
from redis_consumer.archives.limits import ArchiveLimits, Entry, Meter, check_count, unreadable
from redis_consumer.errors import ConsumerError, UnsafeArchive

#: Largest size of the headers of one member. The library reads a name of any length into memory.
_MAX_HEADER_BYTES = 1 << 20
#: Largest number of zeros after the last member.
_MAX_PADDING_BYTES = 64 << 20
_BLOCK_BYTES = 512
_COPY_BYTES = 1 << 20


#: Largest size of all extended headers of an archive.
_MAX_EXTENDED_BYTES = 256 << 20
#: A long run of digits in an extended header. Older libraries need quadratic time for it (CVE-2024-6232).
_LONG_NUMBER = re.compile(rb"\d{40}")


class _Header(tarfile.TarInfo):
    """Checks an extended header before the library parses it."""

    def _proc_pax(self, archive: _Tar) -> tarfile.TarInfo:
        stream: Any = archive.fileobj
        archive.extended_bytes += self.size
        body = stream.read(-(-self.size // _BLOCK_BYTES) * _BLOCK_BYTES)
        if archive.extended_bytes > _MAX_EXTENDED_BYTES or _LONG_NUMBER.search(body):
            raise tarfile.ReadError("extended headers that no ordinary tar has")
        archive.fileobj = _Replayed(body, stream)  # type: ignore[assignment]
        try:
            entry: tarfile.TarInfo = super()._proc_pax(archive)  # type: ignore[misc]
            return entry
        finally:
            archive.fileobj = stream


class _Tar(tarfile.TarFile):
    """Counts the bytes of extended headers."""

    tarinfo = _Header
    extended_bytes = 0


class _Replayed:
    """A stream that returns a part which was already read, and then the rest."""

    def __init__(self, part: bytes, stream: Any) -> None:
        self._part = part
        self._stream = stream

    def read(self, size: int) -> bytes:
        """Return the part, then read from the stream."""
        part, self._part = self._part, b""
        return part or bytes(self._stream.read(size))

    def tell(self) -> int:
        """Return the position of the stream."""
        return int(self._stream.tell())


class _Metered:
    """A stream that raises an error if more than `left` bytes are read."""

    def __init__(self, file: BinaryIO, label: str) -> None:
        self._file = file
        self._label = label
        self.left = _MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        wanted.check()
        data = self._file.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise UnsafeArchive(f"{self._label}: has a header of more than 1 MiB; pack it again with an ordinary tar")
        return data


def tar_entries(path: Path, label: str, limits: ArchiveLimits) -> Iterator[Entry]:
    """Yield the files of a tar archive, in its order. Read each file before the next one is requested.

    Raises:
        UnsafeArchive: the archive can't be read, is cut off, or exceeds the limits.
    """
    with contextlib.ExitStack() as stack:
        file: BinaryIO = stack.enter_context(path.open("rb"))
        is_packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = _Metered(stack.enter_context(gzip.GzipFile(fileobj=file)) if is_packed else file, label)  # type: ignore[arg-type]
        # Skipped members are unpacked, too.
        meter = Meter(limits, path.stat().st_size, label)
        try:
            yield from _entries(stream, meter, limits)
        except (ConsumerError, MemoryError):
            raise
        except (tarfile.TarError, EOFError, ValueError, OverflowError, OSError) as error:
            # gzip.BadGzipFile is an OSError without errno. Other faults, such as a full disk, have one.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise unreadable(label) from error
        except Exception as error:  # zlib.error, struct.error and more
            raise unreadable(label) from error


def _entries(stream: _Metered, meter: Meter, limits: ArchiveLimits) -> Iterator[Entry]:
    label = meter.label
    with _Tar.open(fileobj=stream, mode="r|", errorlevel=2, errors="surrogateescape") as archive:  # type: ignore[call-overload]
        for number in itertools.count():
            check_count(number, limits, meter.label)
            stream.left = _MAX_HEADER_BYTES
            member = archive.next()
            meter.add_bytes(_MAX_HEADER_BYTES - stream.left)
            # The library keeps a list of all members, which isn't needed here and takes memory.
            archive.members = []
            if member is None:
                break
            if member.size < 0:
                raise unreadable(label)
            stream.left = member.size + _MAX_HEADER_BYTES
            if member.isdir():
                continue
            body = _body(archive, member)
            yield Entry(member.name, lambda body=body: body, *_fault(member))  # type: ignore[misc]
            if body is not None and not body.closed:
                _skip(body, meter)
        stream.left = _MAX_PADDING_BYTES
        _check_end(archive, label)


def _body(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes] | None:
    return archive.extractfile(member) if member.isreg() else None


def _fault(member: tarfile.TarInfo) -> tuple[str, str]:
    if member.issym() or member.islnk():
        return "is a link", "pack the file itself"
    if member.issparse():
        return "is a sparse file", "pack it without the option for sparse files"
    if not member.isreg():
        return "is a device", "pack plain files only"
    return "", ""


def _skip(body: IO[bytes], meter: Meter) -> None:
    """Read the rest of a member that the caller didn't read."""
    while chunk := body.read(_COPY_BYTES):
        meter.add_bytes(len(chunk))


def _check_end(archive: tarfile.TarFile, label: str) -> None:
    """Check that only zeros follow the last member. The library also stops at a damaged header, without an error."""
    count = 0
    while archive.fileobj is not None and (chunk := archive.fileobj.read(_COPY_BYTES)):
        if chunk.strip(b"\0"):
            raise unreadable(label)
        count += len(chunk)
    if count < _BLOCK_BYTES:
        raise unreadable(label)
