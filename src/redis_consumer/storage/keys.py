"""Checks object keys, gives their local paths, and names the objects of a job's result."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
from itertools import count, takewhile
from typing import Any

from redis_consumer.errors import InvalidJob
from redis_consumer.job import Job, OrphanedResult
from redis_consumer.text import in_utf8

OUTPUT_DIR = "output"

_LONGEST_KEY_BYTES = 1024
_LONGEST_PART_BYTES = 255

# Types of machines differ. These are the types of our own files, and must be the same everywhere.
_CONTENT_TYPES = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".npy": "application/octet-stream",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".zip": "application/zip",
}


def check_key(key: str, what: str = "object key") -> str:
    """Check that a key can't lead out of its bucket or folder, and give it without a leading slash.

    Args:
        key: name of an object, its parts joined by ``/``.
        what: its name in messages, such as ``field input_file_name``.

    Raises:
        InvalidJob: the key is empty, too long, ends as a folder does, or has a part that is empty, ``.`` or ``..``,
            a backslash or a control character.
    """
    stripped = key[1:] if key.startswith("/") else key
    problem = _problem(stripped)
    if problem:
        raise InvalidJob(
            f"{what}: {key[:200]!r} {problem}; give a key such as uploads/image.tif",
            key=in_utf8(key),
        )
    return stripped


def _problem(key: str) -> str | None:
    parts = key.split("/")
    if not key:
        return "is empty"
    if any(part in {".", ".."} for part in parts):
        return "has . or .. as a part"
    if "" in parts:
        return "names a folder" if key.endswith("/") and "" not in parts[:-1] else "has an empty part"
    if "\\" in key or any(ord(character) < 32 or ord(character) == 127 for character in key):
        return "has a backslash or a control character"
    return _size_problem(key, parts)


def _size_problem(key: str, parts: list[str]) -> str | None:
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "isn't valid Unicode"
    if len(key.encode()) > _LONGEST_KEY_BYTES or max(sizes) > _LONGEST_PART_BYTES:
        return f"is longer than {_LONGEST_KEY_BYTES} bytes, or {_LONGEST_PART_BYTES} in one part"
    return None


def local_path(key: str, download_dir: str | os.PathLike[str]) -> str:
    """Return the path below `download_dir` for an object: the key without its first part (contract, section 3).

    >>> local_path("uploads/a/b.tif", "/tmp/job")
    '/tmp/job/a/b.tif'
    >>> local_path("b.tif", "/tmp/job")
    '/tmp/job/b.tif'
    """
    _, slash, rest = key.partition("/")
    return os.path.join(os.fspath(download_dir), *(rest if slash else key).split("/"))


def output_key(filepath: str | os.PathLike[str], subdir: str | None = None) -> str:
    """Return the key under which a local file is uploaded (contract, section 3).

    >>> output_key("/tmp/job/result.zip", "/plate/1")
    'output/plate/1/result.zip'
    """
    folder = (subdir or "").strip("/")
    start = f"{OUTPUT_DIR}/{folder}" if folder else OUTPUT_DIR
    return check_key(f"{start}/{os.path.basename(os.fspath(filepath))}")


def content_type(key: str) -> str:
    """Return the media type of an object by the suffix of its key; if it isn't known, that of plain bytes."""
    ending = os.path.splitext(key)[1].lower()
    return _CONTENT_TYPES.get(ending) or mimetypes.guess_type("x" + ending)[0] or "application/octet-stream"


def strip_bucket_path(path: str) -> str:
    """Join repeated slashes of a bucket path into one and drop those at its ends.

    >>> strip_bucket_path("/models//nuclear/")
    'models/nuclear'
    """
    return re.sub(r"/+", "/", path).strip("/")


def zip_name(job: Job, number: int = 0) -> str:
    """Return the name of a zip of one run of a job. It is unique, so a late run can't overwrite the result of another.

    Args:
        job: the job with the number of the run.
        number: number of zips that this run has uploaded before.
    """
    text = f"{job.id}:{job.attempt}" + (f":{number}" if number else "")
    return hashlib.md5(text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest() + ".zip"


def record_key(job: Job) -> str:
    """Return the key of the provenance record of one run of a job, beside its zip.

    >>> record_key(Job("predict:a.tif:1"))
    'output/f7ed7baaf8b638c92af6e3e2d5462f94.provenance.json'
    """
    return output_key(zip_name(job).removesuffix(".zip") + ".provenance.json")


def discard_record(storage: Any, orphan: OrphanedResult) -> None:
    """Remove the provenance record of one run, but never the visible one."""
    key = record_key(orphan.job)
    if hasattr(storage, "delete") and key != orphan.record:
        storage.delete(key)


def discard_zips(storage: Any, orphan: OrphanedResult) -> list[str]:
    """Remove the zips that one run has uploaded, but never the visible one; return the removed keys."""
    if not hasattr(storage, "delete"):
        return []
    keys = (output_key(zip_name(orphan.job, number)) for number in count())
    # The first one is removed last. If it is gone, so are the others.
    found = [key for key in reversed(list(takewhile(storage.exists, keys))) if key != orphan.visible]
    for key in found:
        storage.delete(key)
    return found
