"""Compares two results file by file and label images pixel by pixel, and draws the differences."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from redis_consumer.errors import InvalidImage
from redis_consumer.images import read_planes
from redis_consumer.processing.render import show_difference, to_png_bytes
from redis_consumer.segmentation.results import count_objects

Array = npt.NDArray[Any]

#: Files that contain times, or a different encoding of the same data. They are not compared.
_NOT_COMPARED = ("summary.csv", ".gif", ".trk", ".trks")
#: Larger images are compared only by checksum.
MOST_PX = 1 << 28
#: Above this, a float cannot represent every whole number, so larger values are not labels.
_HIGHEST_LABEL = 1 << 53


@dataclass(frozen=True)
class FileDifference:
    """How one file of two results compares.

    Attributes:
        name: the name in the zip.
        is_identical: whether all bytes, or all pixels, are the same.
        note: why pixels were not counted; empty if they were, or if nothing differs.
        pixels: number of pixels that differ, None if they were not counted.
        total: number of pixels in the image.
        largest: the largest difference between two pixels that are numbers.
        objects: number of labels before and now, None for an image without labels.
    """

    name: str
    is_identical: bool
    note: str = ""
    pixels: int | None = None
    total: int | None = None
    largest: float | None = None
    objects: tuple[int, int] | None = None

    def in_words(self) -> str:
        """Describe the difference in one line."""
        if self.is_identical:
            return f"{self.name}: identical" + (f", {self.objects[1]} objects" if self.objects else "")
        if self.pixels is None:
            return f"{self.name}: {self.note}"
        words = f"{self.name}: {self.pixels} of {self.total} pixels differ"
        if self.objects:
            return f"{words}; {self.objects[0]} objects before, {self.objects[1]} now"
        return f"{words}, by {self.largest:g} at most"

    def as_data(self) -> dict[str, Any]:
        """Return the difference as data for scripts."""
        return asdict(self)


def compare_zips(before: Path, after: Path) -> list[FileDifference]:
    """Compare the files of two valid result zips, except files that contain times."""
    with zipfile.ZipFile(before) as old, zipfile.ZipFile(after) as new:
        sums = [{entry.filename: (entry.file_size, entry.CRC) for entry in each.infolist()} for each in (old, new)]
        names = _compared(sums)
        return [_compare_file(name, old, new, sums) for name in names]


def compare_sums(
    recorded: Sequence[Mapping[str, Any]], after: Path, *, is_complete: bool = True
) -> list[FileDifference]:
    """Compare a result zip with the checksums that a record lists for a deleted result.

    Args:
        recorded: ``name``, ``bytes`` and ``crc32`` of each file.
        after: the new zip.
        is_complete: whether the record lists all files. If not, unlisted files are not compared.
    """
    with zipfile.ZipFile(after) as archive:
        new = {entry.filename: (entry.file_size, f"{entry.CRC:08x}") for entry in archive.infolist()}
    old = {each["name"]: (each["bytes"], each["crc32"]) for each in recorded}
    new = new if is_complete else {name: sums for name, sums in new.items() if name in old}
    note = "the checksum differs; the recorded result was deleted, so pixels cannot be counted"
    return [
        FileDifference(
            name, is_identical=old.get(name) == new.get(name), note="" if old.get(name) == new.get(name) else note
        )
        for name in _compared([old, new])
    ]


def _compared(sums: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for each in sums for name in each)
    return [name for name in names if not name.lower().endswith(_NOT_COMPARED)]


def _compare_file(
    name: str, old: zipfile.ZipFile, new: zipfile.ZipFile, sums: Sequence[Mapping[str, tuple[int, int]]]
) -> FileDifference:
    if any(name not in each for each in sums):
        return FileDifference(name, is_identical=False, note="new file" if name not in sums[0] else "missing now")
    if name.lower().endswith(".tif") and max(each[name][0] for each in sums) <= MOST_PX * 4:
        with contextlib.suppress(InvalidImage):
            return compare_images(name, read_member(old, name), read_member(new, name))
    is_same = sums[0][name] == sums[1][name]
    return FileDifference(name, is_identical=is_same, note="" if is_same else "the checksum differs")


def read_member(archive: zipfile.ZipFile, name: str) -> Array:
    """Read a TIFF of a result zip, of any shape.

    Raises:
        InvalidImage: not an image, damaged, more than `MOST_PX` pixels, or pixels that are not numbers.
    """
    content = BytesIO(archive.read(name))
    try:
        with tifffile.TiffFile(content) as file:
            if file.series[0].size > MOST_PX or file.series[0].dtype.kind not in "biuf":
                raise InvalidImage(f"{name}: cannot be compared pixel by pixel")
            array: Array = file.asarray()
    except InvalidImage:
        raise
    except Exception as error:  # TiffFileError, ValueError, IndexError, struct.error and what decoders raise
        raise InvalidImage(f"{name}: not an image, or damaged") from error
    return array


def compare_images(name: str, before: Array, after: Array) -> FileDifference:
    """Compare two images of any shape pixel by pixel. Images of whole numbers are treated as label images."""
    if before.shape != after.shape:
        return FileDifference(name, is_identical=False, note=f"shape {after.shape} now, {before.shape} before")
    differs = before != after
    if before.dtype.kind == after.dtype.kind == "f":
        differs &= ~(np.isnan(before) & np.isnan(after))
    pixels = int(np.count_nonzero(differs))
    gaps = np.abs(before[differs].astype(np.float64) - after[differs])
    largest = float(gaps[np.isfinite(gaps)].max(initial=0))
    counts = [count_labels(each) for each in (before, after)]
    objects = None if None in counts else (counts[0] or 0, counts[1] or 0)
    return FileDifference(name, pixels == 0, "", pixels, before.size, largest, objects)


def count_labels(image: Array) -> int | None:
    """Count the objects in a label image (Y, X) or in all images of a stack. None if it contains no labels."""
    if image.min(initial=0) < 0 or image.max(initial=0) > _HIGHEST_LABEL:
        return None
    if image.dtype.kind == "f" and not np.array_equal(image, np.rint(image)):
        return None
    stack = image.astype(np.int64).reshape(-1, *image.shape[-2:], 1)
    return count_objects(stack)["objects"]


def draw_difference(name: str, before: Path, after: Path, image: Path | None) -> bytes:
    """Draw as PNG where a label image differs in two result zips. For a stack, draw the first image that differs.

    Args:
        name: name of the file in both zips.
        before: the earlier zip; its outlines are yellow.
        after: the later zip; its outlines are blue. Pixels that differ are red.
        image: the segmented image. It is the background if it can be read and has the same size.
    """
    with zipfile.ZipFile(before) as old, zipfile.ZipFile(after) as new:
        planes = [_planes(read_member(each, name)) for each in (old, new)]
    index = next(number for number, pair in enumerate(zip(*planes, strict=True)) if not np.array_equal(*pair))
    ground = _ground(image, len(planes[0]), index, planes[0].shape[1:])
    return to_png_bytes(show_difference(ground, planes[0][index], planes[1][index]))


def _planes(labels: Array) -> Array:
    return labels.reshape(-1, *labels.shape[-2:])


def _ground(path: Path | None, count: int, index: int, shape: tuple[int, ...]) -> Array:
    if path is not None:
        try:
            planes = read_planes(path)
        except (InvalidImage, OSError):
            return np.zeros(shape, np.float32)
        if planes.shape == (count, *shape):
            plane: Array = planes[index]
            return plane
    return np.zeros(shape, np.float32)
