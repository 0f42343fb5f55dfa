"""Streams one zip of many result zips, with a folder for each, without unpacking them."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from copy import copy
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from redis_consumer.errors import ConsumerError
from redis_consumer.storage import Storage
from redis_consumer.text import cell, result_stem

SUMMARY, MISSING = "summary.csv", "missing.csv"
_CHUNK_BYTES = 1 << 20
#: Bytes of the local header before name and extra field, and places of their lengths in it.
_HEADER, _NAME_AT, _EXTRA_AT = 30, 26, 28
_HAS_DESCRIPTOR, _IS_ENCRYPTED = 0x08, 0x01


class _Sink(io.RawIOBase):
    """Holds what was written until it is taken. It can't seek."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """Return all bytes since the last call."""
        data, self._parts = b"".join(self._parts), []
        return data


def merged(storage: Storage, folder: Path, results: Iterable[tuple[str, str]], summary: str) -> Iterator[bytes]:
    """Yield the parts of a zip.

    Args:
        storage: the bucket.
        folder: for one result at a time.
        results: name of the image and key of the zip of each result.
        summary: text of the file ``summary.csv``.

    Members keep their compression. A result that can't be read is listed in ``missing.csv``.
    """
    sink, names, missing = _Sink(), set[str](), []
    archive = zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED)
    archive.writestr(SUMMARY, summary)
    with tempfile.TemporaryDirectory(dir=folder, prefix="merged-") as name:
        path = Path(name) / "result.zip"
        for image, key in results:
            try:
                storage.download_file(key, path)
                with path.open("rb") as file, zipfile.ZipFile(file) as source:
                    for _ in _copied(source, file, archive, _free(str(result_stem(image or key)), names)):
                        yield sink.take()
            except (ConsumerError, OSError, zipfile.BadZipFile) as error:
                missing.append(f"{cell(image)},{cell(str(error))!r}\n")
    if missing:
        archive.writestr(MISSING, "image,reason\n" + "".join(missing))
    archive.close()
    yield sink.take()


def _free(stem: str, names: set[str]) -> str:
    """Return the name of a folder that no other result has."""
    name, number = stem, 1
    while name.casefold() in names:
        number += 1
        name = f"{stem}-{number}"
    names.add(name.casefold())
    return name


def _inside(name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise zipfile.BadZipFile(f"{name}: leads out of its folder")
    return str(path)


def _copied(source: zipfile.ZipFile, file: BinaryIO, target: zipfile.ZipFile, folder: str) -> Iterator[None]:
    """Copy the members as they are compressed; yield after each part."""
    for member in source.infolist():
        if member.is_dir() or member.flag_bits & _IS_ENCRYPTED:
            continue
        own = copy(member)
        own.filename = f"{folder}/{_inside(member.filename)}"
        own.flag_bits &= ~_HAS_DESCRIPTOR
        own.extra = b""
        own.header_offset = target.fp.tell()  # type: ignore[union-attr]
        target.fp.write(own.FileHeader(zip64=None))  # type: ignore[union-attr]
        file.seek(member.header_offset)
        header = file.read(_HEADER)
        lengths = (int.from_bytes(header[at : at + 2], "little") for at in (_NAME_AT, _EXTRA_AT))
        file.seek(member.header_offset + _HEADER + sum(lengths))
        left = member.compress_size
        while left:
            data = file.read(min(left, _CHUNK_BYTES))
            if not data:
                raise zipfile.BadZipFile(f"{member.filename}: ends early")
            target.fp.write(data)  # type: ignore[union-attr]
            left -= len(data)
            yield
        target.filelist.append(own)
        target.NameToInfo[own.filename] = own
        target.start_dir = target.fp.tell()  # type: ignore[union-attr]
        target._didModify = True  # type: ignore[attr-defined]
