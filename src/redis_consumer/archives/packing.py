"""How do files go into a zip archive?"""

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

#: Level 1 packs label images 10 times as fast as zlib's default, and hardly larger.
FAST_LEVEL = 1
#: What doesn't become so many times smaller is stored: to pack probabilities (1.2 times) takes longer than a network of
#: 1 Gbit/s takes to carry them. Label images become 7 times smaller at least.
LEAST_GAIN = 2
_COPY_BYTES = 1 << 20
#: What is packed to see how much smaller a file becomes: parts that are spread over it.
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
        files: local paths; one listed twice is packed once.
        dest: folder of the archive; its members are named relative to it. None for the folder that all
            files have in common.
        prefix: put before the digest.
        name: exact file name of the archive, in place of prefix and digest.

    Returns:
        Path of the archive: deflate at a fast level, files that hardly become smaller stored; zip64 where needed.

    Raises:
        PermanentError: there are no files to pack.
        InvalidJob: `prefix` or `name` is no plain file name.
        ValueError: a file lies outside `dest`.
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
    # The clock alone isn't enough: two pods can ask it in the same moment.
    digest = hashlib.md5(f"{time.time_ns()}{uuid.uuid4()}".encode(), usedforsecurity=False).hexdigest()
    return f"{prefix}_{digest}.zip" if prefix else f"{digest}.zip"


def _plain_name(name: str) -> str:
    if name in {"", ".", ".."} or any(character in name for character in "/\\\0"):
        raise InvalidJob(f"archive name {name!r} is no plain file name; leave out folders")
    return name


def _pack(paths: list[str], folder: str, target: str) -> None:
    with zipfile.ZipFile(
        target, "w", zipfile.ZIP_DEFLATED, compresslevel=FAST_LEVEL, strict_timestamps=False
    ) as archive:
        for path in paths:
            member = os.path.relpath(path, folder)
            if member.split(os.sep)[0] == os.pardir:
                raise ValueError(f"{path} lies outside {folder}; pack only files below it")
            with open(path, "rb") as file:
                if _is_worth_packing(file):
                    archive.write(path, member)
                else:
                    _store(archive, file, member)


def _is_worth_packing(file: BinaryIO) -> bool:
    """Whether packing makes a file much smaller, judged by parts that are spread over it."""
    size = os.path.getsize(file.name)
    if size <= _SAMPLES * _SAMPLE_BYTES:
        return True
    sample = b""
    for part in range(_SAMPLES):
        file.seek(size * part // _SAMPLES)
        sample += file.read(_SAMPLE_BYTES)
    return len(zlib.compress(sample, FAST_LEVEL)) * LEAST_GAIN <= len(sample)


def _store(archive: zipfile.ZipFile, file: BinaryIO, member: str) -> None:
    # The library's own copies are of 8 KiB, which take twice as long.
    entry = zipfile.ZipInfo.from_file(file.name, member, strict_timestamps=False)
    file.seek(0)
    with archive.open(entry, "w") as sink:
        shutil.copyfileobj(file, sink, _COPY_BYTES)
