"""Writes arrays as the TIFF files of a result."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import InvalidJob, PermanentError
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.image import Array
from redis_consumer.text import url_in_path

logger = logging.getLogger(__name__)

#: The largest integer up to which every integer is a float32.
MAX_EXACT = 1 << 24


def write_channels(
    array: Array,
    path_stem: str | os.PathLike[str],
    *,
    word: str = "feature",
    first: int = 0,
    calibration: Calibration | None = None,
) -> list[Path]:
    """Write one TIFF a channel: ``<path_stem>_<word>_<c>.tif`` (contract, section 5.1).

    Args:
        array: (..., Y, X, C) of any real dtype; rank 2 is one channel. Leading axes become pages.
        path_stem: folder and name without extension; missing folders are made.
        word: for the file names.
        first: number of the first channel in the file names.
        calibration: axes of the frames and sizes of the image; None if they aren't known.

    Returns:
        The files, in the order of the channels. Their pixels are float32, uncompressed, with axes and sizes as
        `Calibration.tiff_options` says.

    Raises:
        PermanentError: the array has no image plane, or labels that float32 can't tell apart.
        OSError: the files can't be written.
    """
    if array.ndim < 2:
        raise PermanentError(f"result of shape {array.shape}: has no image plane; save arrays of rank 2 or more")
    planes = array[..., np.newaxis] if array.ndim == 2 else array
    _check_exact(planes)
    paths = [Path(f"{os.fspath(path_stem)}_{word}_{first + channel}.tif") for channel in range(planes.shape[-1])]
    for channel, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_tiff(path, planes[..., channel], calibration or Calibration())
    return paths


def write_frames(
    labels: Iterable[Array], shape: tuple[int, int, int], path: Path, calibration: Calibration | None = None
) -> Path:
    """Write the label images of a movie as one TIFF, frame by frame.

    Args:
        labels: (Y, X) integers of 0 or more, frame by frame; taken one at a time.
        shape: (T, Y, X) of all.
        path: of the file; its pixels are float32, uncompressed, as those of `write_channels`.
        calibration: sizes of the movie; None if they aren't known.

    Returns:
        `path`.

    Raises:
        PermanentError: labels are too large for float32.
        OSError: the file can't be written.
    """
    from tifffile import imwrite

    def frames() -> Iterator[Array]:
        for frame in labels:
            _check_exact(frame)
            yield frame.astype(np.float32)

    sizes = replace(calibration or Calibration(), axes=(("T", shape[0]),))
    imwrite(path, frames(), **sizes.tiff_options(np.float32, shape[1:]))
    return path


class StackFiles:
    """The TIFFs of a stack whose frames come in groups, the same files as `write_channels` makes of all at once.

    Args:
        path_stem: as for `write_channels`.
        frames: how many will come, 2 or more.
        calibration: axes of the frames and sizes of the image; None if they aren't known.

    Attributes:
        paths: the files, in the order of the channels.
    """

    def __init__(self, path_stem: str | os.PathLike[str], frames: int, calibration: Calibration | None = None) -> None:
        self._stem = os.fspath(path_stem)
        self._calibration = (calibration or Calibration()).fitting(frames)
        self._offset = self._done = 0
        self.paths: list[Path] = []

    def add(self, arrays: Sequence[Array]) -> None:
        """Write the next frames: (b, Y, X, C) each, whose channels are numbered onward.

        Raises:
            PermanentError: they hold labels that float32 can't tell apart.
            ValueError: frames or channels are others than those before.
            OSError: the files can't be written.
        """
        for array in arrays:
            _check_exact(array)
        planes = [array[..., channel] for array in arrays for channel in range(array.shape[-1])]
        if not self.paths:
            self.paths = [self._new_file(number, plane.shape[1:3]) for number, plane in enumerate(planes)]
        for plane, path in zip(planes, self.paths, strict=True):
            with path.open("r+b") as file:
                file.seek(self._offset + self._done * plane[0].size * 4)
                file.writelines(np.ascontiguousarray(frame, "<f4").data for frame in plane)
        self._done += len(arrays[0])

    def _new_file(self, number: int, shape_yx: tuple[int, int]) -> Path:
        """Write a file whose pixels are all zero."""
        from tifffile import imwrite

        path = Path(f"{self._stem}_feature_{number}.tif")
        path.parent.mkdir(parents=True, exist_ok=True)
        options = self._calibration.tiff_options(np.float32, shape_yx)
        place = imwrite(path, byteorder="<", returnoffset=True, **options)
        self._offset = 0 if place is None else int(place[0])
        return path


def split_frames(path: Path, path_stem: Path, channel: int) -> list[Path]:
    """Turn a file of `write_channels` into one file for each frame: ``<path_stem>_batch_<b>_feature_<c>.tif``.

    Args:
        path: the file, which is removed; its pixels are (Y, X) or (B, Y, X).
        path_stem: folder and beginning of the new names.
        channel: number of the channel in the new names.

    Returns:
        The files, in the order of the frames.

    Raises:
        OSError: the files can't be written.
    """
    from tifffile import TiffFile, imwrite

    def named(frame: int) -> Path:
        return path_stem.with_name(f"{path_stem.name}_batch_{frame}_feature_{channel}.tif")

    with TiffFile(path) as file:
        series = file.series[0]
        count = series.shape[0] if series.ndim == 3 else 1
        if count > 1:
            for frame in range(count):
                page = series.asarray(key=frame) if len(series) == count else series.asarray()[frame]
                imwrite(named(frame), page, photometric="minisblack", resolution=series.keyframe.resolution)
    if count == 1:
        return [path.rename(named(0))]
    path.unlink()
    return [named(frame) for frame in range(count)]


def save_numpy_array(
    arr: Array | Sequence[Array],
    name: str = "",
    subdir: str = "",
    output_dir: str | os.PathLike[str] | None = None,
) -> list[str]:
    """Write results as the consumers of 2020 did (contract, sections 5.1 and 6.1).

    Args:
        arr: one array, see `write_channels`, or a list of them, whose channels are numbered onward.
        name: file name without ``_feature_<c>.tif``.
        subdir: folder below `output_dir`; a leading slash is dropped. The folders of a URL are left out.
        output_dir: None for the working directory.

    Returns:
        Paths of the files; empty if writing failed, which is logged.

    Raises:
        InvalidJob: `name` or `subdir` leads out of `output_dir`.
        PermanentError: as `write_channels`.
    """
    stem = _stem_inside(os.fspath(output_dir or ""), subdir, name)
    arrays = [arr] if isinstance(arr, np.ndarray) else [np.asarray(item) for item in arr]
    paths: list[Path] = []
    try:
        for array in arrays:
            paths += write_channels(array, stem, first=len(paths))
    except OSError:
        logger.exception("Could not write the result %s", name)
        return []
    return [str(path) for path in paths]


def _stem_inside(folder: str, subdir: str, name: str) -> str:
    relative = os.path.join(subdir.lstrip("/"), name.lstrip("/"))
    if url_in_path(relative):
        relative = os.path.basename(relative)
    if ".." in Path(relative).parts or "\0" in relative:
        raise InvalidJob(f"field original_name: {relative!r} leads out of the result; give a plain file name")
    return os.path.join(folder, relative)


def _check_exact(array: Array) -> None:
    if array.dtype.kind in "iu" and array.size and max(int(array.max()), -int(array.min())) > MAX_EXACT:
        raise PermanentError(
            f"result: holds labels up to {int(array.max())}, but result files (float32) keep only those up to "
            f"{MAX_EXACT} apart; split the image into several files"
        )


def _write_tiff(path: Path, plane: npt.NDArray[Any], calibration: Calibration) -> None:
    from tifffile import imwrite

    # Uncompressed: the zip around the files compresses once, and every reader opens it.
    options = calibration.fitting(prod(plane.shape[:-2])).tiff_options(np.float32, plane.shape[-2:])
    if "metadata" not in options:
        options["shape"] = plane.shape
    imwrite(path, np.ascontiguousarray(plane, dtype=np.float32).reshape(options.pop("shape")), **options)
