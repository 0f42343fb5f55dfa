"""Names the files of a result after the user's own file name, with unsafe characters replaced."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Sequence
from itertools import count, takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from redis_consumer.job import Job
from redis_consumer.storage.keys import output_key
from redis_consumer.text import url_in_path

if TYPE_CHECKING:
    from redis_consumer.job import OrphanedResult
    from redis_consumer.serving.base import Array

#: Bytes of one part of a name: file systems allow 255, and ``_feature_<c>.tif`` comes behind.
MAX_PART_BYTES = 200
MAX_FOLDERS = 8
FALLBACK = "image"


def result_stem(original_name: str) -> PurePosixPath:
    """Folder and file name, without extension, for the results of an image.

    Parts that lead out of the result, control characters and what isn't UTF-8 are left out; long parts are cut. Of a
    URL only the last part counts.

    >>> result_stem("plate 1/../HeLa.tif")
    PurePosixPath('plate 1/HeLa')
    >>> result_stem("../https:/host/bucket/uploads/HeLa%201.tif")
    PurePosixPath('HeLa 1')
    >>> result_stem("..tif")
    PurePosixPath('image')
    """
    url = url_in_path(original_name)
    name = PurePosixPath(original_name if url is None else posixpath.basename(unquote(urlsplit(url).path)))
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


def record_key(job: Job) -> str:
    """Key of the provenance record of one run of a job: beside its zip, and as its own as that.

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
    """Remove the zips that one run has uploaded, but never the visible one; give the keys that were removed."""
    if not hasattr(storage, "delete"):
        return []
    keys = (output_key(zip_name(orphan.job, number)) for number in count())
    # The first one last: where it is gone, so are the others.
    found = [key for key in reversed(list(takewhile(storage.exists, keys))) if key != orphan.visible]
    for key in found:
        storage.delete(key)
    return found


def count_objects(results: Array | Sequence[Array]) -> dict[str, int]:
    """Field with the number of objects: of the first label image, in each of its frames; none where there is none.

    >>> import numpy as np
    >>> count_objects(np.array([0, 2, 2, 7]).reshape(1, 2, 2, 1))
    {'objects': 2}

    Args:
        results: (B, Y, X, C), or a list of them; integers are labels.
    """
    import numpy as np

    first = results if isinstance(results, np.ndarray) else next(iter(results), None)
    if first is None or first.dtype.kind not in "iu" or first.ndim != 4 or first.min(initial=0) < 0:
        return {}
    return {"objects": sum(_count_labels(frame[..., 0]) for frame in first)}


def _count_labels(labels: Array) -> int:
    import numpy as np

    # A table as long as the highest label is quicker to fill than to sort is, but it must not outgrow the image.
    if labels.max(initial=0) > labels.size:
        return int(np.count_nonzero(np.unique(labels)))
    return int(np.count_nonzero(np.bincount(labels.ravel().astype(np.int64))[1:]))


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
