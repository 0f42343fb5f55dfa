"""Packs files into a zip archive."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterable
from typing import BinaryIO

from redis_consumer.errors import InvalidJob, PermanentError

#: Level 1 packs label images 10 times as fast as the default of zlib. The result is hardly larger.
FAST_LEVEL = 1
#: A file whose size isn't divided by at least this factor is stored unpacked. Packing probabilities (factor 1.2) takes
#: longer than sending them over a network of 1 Gbit/s. The factor of label images is at least 7.
LEAST_GAIN = 2
_COPY_BYTES = 1 << 20
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
