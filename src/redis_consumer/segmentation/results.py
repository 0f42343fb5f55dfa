"""Turns the findings of a consumer in an image into files of the result and fields of the job."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import PermanentError
from redis_consumer.images import StackFiles, write_channels
from redis_consumer.images.calibration import Calibration
from redis_consumer.job import OWN_FIELDS
from redis_consumer.processing.measure import object_areas
from redis_consumer.segmentation.frames import Frames
from redis_consumer.text import cell, result_stem

Array = npt.NDArray[Any]
#: Findings by name: images (B, Y, X, C), integers are labels; files as bytes; numbers and texts.
Analysis = Mapping[str, Array | Sequence[Array] | bytes | str | float | np.bool_]

#: Name of the label images, and the name in their files that every client knows (contract, section 5.1).
LABELS, FEATURE = "labels", "feature"
VALUES = "values.csv"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def write_analysis(
    found: Analysis, folder: Path, original_name: str, calibration: Calibration | None = None
) -> tuple[list[Path], dict[str, Any]]:
    """Write the findings.

    Args:
        found: the findings. Images become ``<stem>_<name>_<c>.tif``, a file for each channel, and ``labels`` become
            ``<stem>_feature_<c>.tif``; bytes become ``<stem>_<name>``; numbers and texts become fields of the job,
            and lines of ``<stem>_values.csv``.
        folder: for the files; made here.
        original_name: name of the image, see `result_stem`.
        calibration: axes and sizes of the image, which results of its size keep; None if they aren't known.

    Returns:
        The files and the fields. The field ``objects`` is the number of labels in the first image.

    Raises:
        ValueError: a name is not a valid file name, or is a field that workers write; two files would have the same
            name, or there are none; an array has no image plane, or labels that are too large for float32.
        TypeError: the findings have no names, or a value has an unknown type.
    """
    if not isinstance(found, Mapping):
        kind = type(found).__name__
        raise TypeError(f"analyze: it returned a {kind}; return a dictionary, e.g. {{'labels': labels}}")
    stem = folder / result_stem(original_name)
    stem.parent.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    images: list[Array] = []
    values: dict[str, Any] = {}
    for name, value in found.items():
        _check_name(name)
        if isinstance(value, bytes):
            path = stem.with_name(f"{stem.name}_{name}")
            path.write_bytes(value)
            files.append(path)
        elif isinstance(value, (str, Real, np.bool_)):
            values[_field(name)] = value
        else:
            arrays = arrays_of(name, value)
            images += arrays
            files += _write_images(name, arrays, stem, calibration)
    files += _write_values(values, stem) if values else []
    _check_files(files)
    return files, {**values, **count_objects(images)}


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"analyze: {name!r} can't be part of a file's name; give letters, digits, '.', '_', '-'")


def _check_files(files: Sequence[Path]) -> None:
    """Refuse a result without files, or with files that overwrite each other. Some disks ignore the case of names."""
    if not files:
        raise ValueError("analyze: it returned nothing to write; give at least an array, bytes, a number or a text")
    counts = Counter(file.name.casefold() for file in files)
    twice = [file.name for file in files if counts[file.name.casefold()] > 1]
    if twice:
        raise ValueError(f"analyze: it gave file {twice[-1]} twice; call one of what makes it otherwise")


def _field(name: str) -> str:
    if name in OWN_FIELDS:
        raise ValueError(f"analyze: {name!r} is a field that workers write; call it otherwise, e.g. my_{name}")
    return name


def arrays_of(name: str, value: object) -> list[Array]:
    """Return the arrays of one finding.

    Raises:
        TypeError, ValueError: as `write_analysis`.
    """
    arrays = [value] if isinstance(value, np.ndarray) else value
    if not (isinstance(arrays, Sequence) and all(isinstance(each, np.ndarray) for each in arrays)):
        kind = type(value).__name__
        raise TypeError(f"analyze: {name!r} is a {kind}; give an array, a list of arrays, bytes, a number or a text")
    for array in arrays:
        if array.dtype.kind not in "biuf":
            raise TypeError(f"analyze: {name!r} is an array of {array.dtype}; give whole or real numbers, or booleans")
        if array.ndim < 2 or not array.size:
            raise ValueError(
                f"analyze: {name!r} is an array of shape {array.shape}, which is no image; give (batch, y, x, channel) "
                "or (y, x), or numbers one by one"
            )
    return list(arrays)


def _write_images(name: str, arrays: list[Array], stem: Path, calibration: Calibration | None) -> list[Path]:
    word = FEATURE if name == LABELS else name
    files: list[Path] = []
    for array in arrays:
        # The contract's files have no batch axis of 1.
        image = array[0] if array.ndim == 4 and array.shape[0] == 1 else array
        try:
            files += write_channels(image, stem, word=word, first=len(files), calibration=calibration)
        except PermanentError as error:
            # The class is wrong, not the job.
            raise ValueError(f"analyze: {name!r}: {error}") from error
    return files


def _write_values(values: Mapping[str, object], stem: Path) -> list[Path]:
    path = stem.with_name(f"{stem.name}_{VALUES}")
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        rows.writerow(("name", "value"))
        for name, value in values.items():
            rows.writerow((cell(name), cell(value) if isinstance(value, str) else value))
    return [path]


def write_groups(
    results: Iterator[list[Array]],
    frames: Frames,
    folder: Path,
    original_name: str,
    keep: Callable[[Sequence[Array]], None] = lambda _: None,
) -> tuple[list[Path], dict[str, Any]]:
    """Write results one by one to the files of `write_analysis` for labels.

    Args:
        results: the result of each group, (b, Y, X, C).
        frames: all frames of the image, 2 or more.
        folder: for the files; made here.
        original_name: of the image.
        keep: called with each result after it was written.

    Returns:
        The files and the fields: ``objects`` if the first result is a label image.

    Raises:
        PermanentError: labels are too large for float32.
    """
    files = StackFiles(folder / result_stem(original_name), frames.shape[0], frames.calibration)
    counts = []
    for arrays in results:
        files.add(arrays)
        keep(arrays)
        counts.append(count_objects(arrays))
        del arrays  # memory for the next group
    has_objects = all(counts)
    return files.paths, {"objects": sum(count["objects"] for count in counts)} if has_objects else {}


def write_result(arrays: Iterable[Array], folder: Path, original_name: str) -> list[Path]:
    """Write the arrays of a result below a folder, one file per channel, numbered consecutively; see `write_channels`.

    Raises:
        PermanentError: as `write_channels`.
        OSError: the files can't be written.
    """
    files: list[Path] = []
    for array in arrays:
        files += write_channels(array, folder / result_stem(original_name), first=len(files))
    return files


def count_objects(results: Array | Sequence[Array]) -> dict[str, int]:
    """Return the field with the number of objects in all frames of the first label image; empty if there is none.

    >>> import numpy as np
    >>> count_objects(np.array([0, 2, 2, 7]).reshape(1, 2, 2, 1))
    {'objects': 2}

    Args:
        results: (B, Y, X, C), or a list of them; integers are labels.
    """
    first = results if isinstance(results, np.ndarray) else next(iter(results), None)
    if first is None or first.dtype.kind not in "iu" or first.ndim != 4 or first.min(initial=0) < 0:
        return {}
    return {"objects": sum(len(object_areas(frame[..., 0])) for frame in first)}
