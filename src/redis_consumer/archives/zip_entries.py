"""Reads the entries of a zip archive, with little cost for a malicious one."""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from redis_consumer.archives.limits import ArchiveLimits, Entry, check_count, unreadable

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
                yield Entry(member.filename, partial(archive.open, member), *_fault(member))


def _fault(member: zipfile.ZipInfo) -> tuple[str, str]:
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
