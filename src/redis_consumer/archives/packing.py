"""Packs files into a zip archive, and merges many result zips into one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import time
import unicodedata
import uuid
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO

from redis_consumer import wanted
from redis_consumer.archives.limits import safe_name
from redis_consumer.errors import ConsumerError, InvalidJob, PermanentError, UnsafeArchive

#: Level 1 packs label images 10 times as fast as the default of zlib. The result is hardly larger.
FAST_LEVEL = 1
#: A file whose size isn't divided by at least this factor is stored unpacked. Packing probabilities (factor 1.2) takes
#: longer than sending them over a network of 1 Gbit/s. The factor of label images is at least 7.
LEAST_GAIN = 2
_COPY_BYTES = 1 << 20
#: Members above this size are written as zip64, because their packed size can need it.
_LARGE = 1 << 30
#: The factor is estimated from samples that are spread over the file.
_SAMPLES = 4
_SAMPLE_BYTES = 1 << 12


def zip_files(
    files: Iterable[str | os.PathLike[str]],
    dest: str | os.PathLike[str] | None = None,
    prefix: str | None = None,
    *,
    name: str | None = None,
) -> str:
    """Pack files into a new archive ``[<prefix>_]<md5>.zip`` (contract, section 3).

    Args:
        files: local paths. A path that is listed twice is packed once.
        dest: folder of the archive. Names of members are relative to it. None for the common folder of all files.
        prefix: text before the digest.
        name: exact file name of the archive, instead of prefix and digest.

    Returns:
        Path of the archive. It uses deflate at a fast level, and zip64 if needed. Files that packing hardly makes
        smaller are stored unpacked.

    Raises:
        PermanentError: there are no files to pack.
        InvalidJob: `prefix` or `name` is not a plain file name.
        ValueError: a file is outside `dest`.
        OSError: a file can't be read, or the archive can't be written.
    """
    paths = list(dict.fromkeys(os.path.abspath(file) for file in files))
    if not paths:
        raise PermanentError("result: there are no files to pack; the worker's log says why none was written")
    folder = os.path.abspath(dest) if dest is not None else os.path.commonpath([os.path.dirname(p) for p in paths])
    target = os.path.join(folder, _plain_name(name or _unique_name(prefix)))
    try:
        _pack(paths, folder, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.remove(target)
        raise
    return target


def pack_folder(folder: Path) -> Path:
    """Pack an OME-Zarr into one file ``<folder>.ozx`` beside it, without compression, and remove the folder.

    Raises:
        OSError: a file can't be read, or the archive can't be written.
    """
    target = folder.with_name(f"{folder.name}.ozx")
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                wanted.check()
                archive.write(file, file.relative_to(folder).as_posix())
    shutil.rmtree(folder)
    return target


def check_result_zip(path: str | os.PathLike[str], label: str) -> None:
    """Read a whole result zip, to find damage before its files are used.

    Args:
        path: the zip.
        label: name of the image in messages.

    Raises:
        UnsafeArchive: the file is not a zip, or has a damaged or unsafe member.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                safe_name(member.filename, label)
                if stat.S_ISLNK(member.external_attr >> 16):
                    raise UnsafeArchive(f"{label}: its result contains a link; submit the image again")
                with archive.open(member) as source:
                    while source.read(_COPY_BYTES):
                        wanted.check()
    except (ConsumerError, MemoryError):
        raise
    except Exception as error:  # BadZipFile, zlib.error, EOFError, struct.error and more
        raise UnsafeArchive(f"{label}: its result zip is damaged; submit the image again") from error


class ResultZip:
    """A new zip on disk, to which the members of other zips are added one by one.

    Args:
        path: the new zip.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._archive = zipfile.ZipFile(path, "w", compresslevel=FAST_LEVEL, strict_timestamps=False)
        self._names: set[str] = set()

    def __enter__(self) -> ResultZip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()

    def add_zip(self, path: str | os.PathLike[str]) -> None:
        """Add all files of a zip that `check_result_zip` has accepted, with their compression method.

        If a name exists already, in upper or lower case, the file gets a number: ``HeLa_feature_0-2.tif``.
        """
        with zipfile.ZipFile(path) as other:
            for member in other.infolist():
                if member.is_dir():
                    continue
                is_stored = member.compress_type == zipfile.ZIP_STORED
                self._archive.compression = zipfile.ZIP_STORED if is_stored else zipfile.ZIP_DEFLATED
                name, is_large = self._free_name(safe_name(member.filename, member.filename)), member.file_size > _LARGE
                with other.open(member) as source, self._archive.open(name, "w", force_zip64=is_large) as sink:
                    shutil.copyfileobj(source, sink, _COPY_BYTES)
                self._archive.getinfo(name).date_time = member.date_time

    def add_file(self, path: Path, name: str) -> None:
        """Add a file."""
        self._archive.write(path, self._free_name(name), zipfile.ZIP_DEFLATED)

    def _free_name(self, name: str) -> str:
        path, number = PurePosixPath(name), 1
        while _folded(name) in self._names:
            number += 1
            name = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        self._names.add(_folded(name))
        return name


def _unique_name(prefix: str | None) -> str:
    # The clock alone isn't unique: two pods can read it at the same time.
    digest = hashlib.md5(f"{time.time_ns()}{uuid.uuid4()}".encode(), usedforsecurity=False).hexdigest()
    return f"{prefix}_{digest}.zip" if prefix else f"{digest}.zip"


def _plain_name(name: str) -> str:
    if name in {"", ".", ".."} or any(character in name for character in "/\\\0"):
        raise InvalidJob(f"archive name {name!r} is not a plain file name; leave out folders")
    return name


def _pack(paths: list[str], folder: str, target: str) -> None:
    with zipfile.ZipFile(
        target, "w", zipfile.ZIP_DEFLATED, compresslevel=FAST_LEVEL, strict_timestamps=False
    ) as archive:
        for path in paths:
            member = os.path.relpath(path, folder)
            if member.split(os.sep)[0] == os.pardir:
                raise ValueError(f"{path} is outside {folder}; pack only files below it")
            with open(path, "rb") as file:
                if _is_worth_packing(file):
                    archive.write(path, member)
                else:
                    _store(archive, file, member)


def _is_worth_packing(file: BinaryIO) -> bool:
    """Whether packing makes a file much smaller, estimated from samples that are spread over it."""
    size = os.path.getsize(file.name)
    if size <= _SAMPLES * _SAMPLE_BYTES:
        return True
    sample = b""
    for part in range(_SAMPLES):
        file.seek(size * part // _SAMPLES)
        sample += file.read(_SAMPLE_BYTES)
    return len(zlib.compress(sample, FAST_LEVEL)) * LEAST_GAIN <= len(sample)


def _store(archive: zipfile.ZipFile, file: BinaryIO, member: str) -> None:
    # `ZipFile.write` copies 8 KiB at a time, which takes twice as long.
    entry = zipfile.ZipInfo.from_file(file.name, member, strict_timestamps=False)
    file.seek(0)
    with archive.open(entry, "w") as sink:
        shutil.copyfileobj(file, sink, _COPY_BYTES)


def _folded(name: str) -> str:
    """Return a key that is equal for names that are the same file on Windows or macOS."""
    return unicodedata.normalize("NFC", name).casefold()
