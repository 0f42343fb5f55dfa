"""What the files of a result are called: after the scientist's own name, and safely so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from redis_consumer.job import Job

if TYPE_CHECKING:
    from redis_consumer.serving.base import Array

#: Bytes of one part of a name: file systems allow 255, and ``_feature_<c>.tif`` comes behind.
MAX_PART_BYTES = 200
MAX_FOLDERS = 8
FALLBACK = "image"


def result_stem(original_name: str) -> PurePosixPath:
    """Folder and file name, without extension, for the results of an image.

    Parts that lead out of the result, control characters and what isn't UTF-8 are left out; long parts are cut.

    >>> result_stem("plate 1/../HeLa.tif")
    PurePosixPath('plate 1/HeLa')
    >>> result_stem("..tif")
    PurePosixPath('image')
    """
    name = PurePosixPath(original_name)
    folders = [part for part in map(_safe_part, name.parent.parts) if part]
    return PurePosixPath(*folders[-MAX_FOLDERS:], _safe_part(name.stem) or FALLBACK)


def shown_name(original_name: str) -> str:
    """The file's name for messages: without folders, on one line and of limited length.

    >>> shown_name("plate 1/HeLa.tif")
    'HeLa.tif'
    """
    return _safe_part(PurePosixPath(original_name).name) or FALLBACK


def zip_name(job: Job, number: int = 0) -> str:
    """Name of a zip of one run of a job: a late run can't overwrite the result of another.

    Args:
        job: the job with the number of the run.
        number: how many zips this run has uploaded before.
    """
    text = f"{job.id}:{job.attempt}" + (f":{number}" if number else "")
    return hashlib.md5(text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest() + ".zip"


def write_result(arrays: Iterable[Array], folder: Path, original_name: str) -> list[Path]:
    """Write the arrays of a result below a folder, one file a channel, numbered onward; see `write_channels`.

    Raises:
        PermanentError: as `write_channels`.
        OSError: the files can't be written.
    """
    from redis_consumer.images import write_channels

    files: list[Path] = []
    for array in arrays:
        files += write_channels(array, folder / result_stem(original_name), first=len(files))
    return files


def _safe_part(part: str) -> str:
    kept = "".join(character for character in part if character.isprintable() and character not in "/\\")
    text = kept.encode("utf-8", "replace")[:MAX_PART_BYTES].decode("utf-8", "ignore").strip()
    return "" if not text.strip(".") else text
