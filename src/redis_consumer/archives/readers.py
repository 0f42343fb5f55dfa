"""Reads the entries of a zip, tar or tar.gz archive, with little cost for a malicious one."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import re
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, BinaryIO

from redis_consumer import wanted
from redis_consumer.archives.limits import Entry, Meter, check_count, unreadable
from redis_consumer.errors import ConsumerError, UnsafeArchive
from redis_consumer.options import ArchiveLimits

#: Records of the zip format: end of the directory, end of the zip64 directory, its locator, header of a file.
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_HEADER = struct.Struct("<4s6H3L5H2L")
_MAX_COMMENT = 1 << 16
_ENCRYPTED = 0x1 | 0x40 | 0x2000
#: LZMA isn't allowed: an archive can set how much memory its reader takes.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)


def zip_entries(path: Path, label: str, limits: ArchiveLimits) -> Iterator[Entry]:
    """Yield the files of a zip archive, in its order.

    Raises:
        UnsafeArchive: the archive can't be read, or has too many members.
    """
    with path.open("rb") as file:
        check_count(_count_members(file, limits.max_members, label), limits, label)
    with contextlib.ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
        except Exception as error:  # BadZipFile, struct.error, OSError (a negative offset), UnicodeDecodeError and more
            raise unreadable(label) from error
        for member in archive.infolist():
            if not member.filename.endswith(("/", "\\")):
                yield Entry(member.filename, partial(archive.open, member), *_zip_fault(member))


def _zip_fault(member: zipfile.ZipInfo) -> tuple[str, str]:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a link", "pack the file itself"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a device", "pack plain files only"
    if member.flag_bits & _ENCRYPTED:
        return "is encrypted", "pack without a password"
    if member.compress_type not in _METHODS:
        return f"is packed by method {member.compress_type}", "pack it as an ordinary zip (deflate)"
    return "", ""


def _count_members(file: BinaryIO, most: int, label: str) -> int:
    """Count the headers of the directory, and stop at one more than allowed. The library reads all into memory."""
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(max(0, size - _MAX_COMMENT - _END.size))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise unreadable(label)
    end = size - len(tail) + at
    directory_bytes, before = _directory_bytes(file, end, _END.unpack_from(tail, at)[5])
    begin = end - before - directory_bytes
    if begin < 0:
        raise unreadable(label)
    file.seek(begin)
    count = 0
    while count <= most and file.tell() < begin + directory_bytes:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or not header.startswith(b"PK\x01\x02"):
            raise unreadable(label)
        file.seek(sum(_HEADER.unpack(header)[10:13]), os.SEEK_CUR)
        count += 1
    return count


def _directory_bytes(file: BinaryIO, end: int, directory_bytes: int) -> tuple[int, int]:
    """Return the size of the directory, and the size of the zip64 records between it and its end record."""
    before = _LOCATOR.size + _END64.size
    if end < before:
        return directory_bytes, 0
    file.seek(end - before)
    record = file.read(before)
    if not (record.startswith(b"PK\x06\x06") and record[_END64.size :].startswith(b"PK\x06\x07")):
        return directory_bytes, 0
    return int(_END64.unpack_from(record)[8]), before


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
            yield Entry(member.name, lambda body=body: body, *_tar_fault(member))  # type: ignore[misc]
            if body is not None and not body.closed:
                _skip(body, meter)
        stream.left = _MAX_PADDING_BYTES
        _check_end(archive, label)


def _body(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes] | None:
    return archive.extractfile(member) if member.isreg() else None


def _tar_fault(member: tarfile.TarInfo) -> tuple[str, str]:
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
