"""Are two results the same, and if not, how much do they differ?"""

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

from redis_consumer.consumers.results import count_objects
from redis_consumer.errors import InvalidImage

Array = npt.NDArray[Any]

#: Files whose bytes hold times or such: they tell nothing about pixels.
_NOT_COMPARED = ("summary.csv", ".gif", ".trk", ".trks")
#: Images of more pixels are told apart by their checksums alone.
MOST_PX = 1 << 28
#: Beyond this no float tells a whole number from the next one: what is larger is no label.
_HIGHEST_LABEL = 1 << 53


@dataclass(frozen=True)
class FileDifference:
    """How one file of two results compares.

    Attributes:
        name: within the zip.
        is_identical: whether each byte, or each pixel, is the same.
        note: why no pixels were counted, empty where they were or all are the same.
        pixels: that differ, None where they weren't counted.
        total: pixels of the image.
        largest: the largest difference of two pixels that are numbers.
        objects: labels before and now, None for an image that holds no labels.
    """

    name: str
    is_identical: bool
    note: str = ""
    pixels: int | None = None
    total: int | None = None
    largest: float | None = None
    objects: tuple[int, int] | None = None

    def in_words(self) -> str:
        """One line for people."""
        if self.is_identical:
            return f"{self.name}: identical" + (f", {self.objects[1]} objects" if self.objects else "")
        if self.pixels is None:
            return f"{self.name}: {self.note}"
        words = f"{self.name}: {self.pixels} of {self.total} pixels differ"
        if self.objects:
            return f"{words}; {self.objects[0]} objects before, {self.objects[1]} now"
        return f"{words}, by {self.largest:g} at most"

    def as_data(self) -> dict[str, Any]:
        """The same for scripts."""
        return asdict(self)


def compare_zips(before: Path, after: Path) -> list[FileDifference]:
    """Compare the files of two result zips, sound ones, but those that hold times."""
    with zipfile.ZipFile(before) as old, zipfile.ZipFile(after) as new:
        sums = [{entry.filename: (entry.file_size, entry.CRC) for entry in each.infolist()} for each in (old, new)]
        names = _compared(sums)
        return [_compare_file(name, old, new, sums) for name in names]


def compare_sums(
    recorded: Sequence[Mapping[str, Any]], after: Path, *, is_complete: bool = True
) -> list[FileDifference]:
    """Compare a result zip with what a record says of the files of one that is gone.

    Args:
        recorded: ``name``, ``bytes`` and ``crc32`` of each file.
        after: the new zip.
        is_complete: whether all files are recorded; else those that aren't tell nothing.
    """
    with zipfile.ZipFile(after) as archive:
        new = {entry.filename: (entry.file_size, f"{entry.CRC:08x}") for entry in archive.infolist()}
    old = {each["name"]: (each["bytes"], each["crc32"]) for each in recorded}
    new = new if is_complete else {name: sums for name, sums in new.items() if name in old}
    note = "differs by its checksum; the recorded result is gone, so pixels can't be counted"
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
        return FileDifference(name, is_identical=False, note="is new" if name not in sums[0] else "is missing now")
    if name.lower().endswith(".tif") and max(each[name][0] for each in sums) <= MOST_PX * 4:
        with contextlib.suppress(InvalidImage):
            return compare_images(name, read_member(old, name), read_member(new, name))
    is_same = sums[0][name] == sums[1][name]
    return FileDifference(name, is_identical=is_same, note="" if is_same else "differs by its checksum")


def read_member(archive: zipfile.ZipFile, name: str) -> Array:
    """Read a TIFF of a result zip, of any shape.

    Raises:
        InvalidImage: it is none, damaged, or unpacks to more than `MOST_PX` pixels, or to some that are no numbers.
    """
    import tifffile

    content = BytesIO(archive.read(name))
    try:
        with tifffile.TiffFile(content) as file:
            if file.series[0].size > MOST_PX or file.series[0].dtype.kind not in "biuf":
                raise InvalidImage(f"{name}: can't be compared pixel by pixel")
            array: Array = file.asarray()
    except InvalidImage:
        raise
    except Exception as error:  # TiffFileError, ValueError, IndexError, struct.error and what decoders raise
        raise InvalidImage(f"{name}: is no image, or a damaged one") from error
    return array


def compare_images(name: str, before: Array, after: Array) -> FileDifference:
    """Compare two images of any shape, pixel by pixel; those of whole numbers count as label images."""
    if before.shape != after.shape:
        return FileDifference(name, is_identical=False, note=f"has the shape {after.shape} now, {before.shape} before")
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
    """Number of objects in a label image (Y, X), of a stack in all its images; None where it holds no labels."""
    if image.min(initial=0) < 0 or image.max(initial=0) > _HIGHEST_LABEL:
        return None
    if image.dtype.kind == "f" and not np.array_equal(image, np.rint(image)):
        return None
    stack = image.astype(np.int64).reshape(-1, *image.shape[-2:], 1)
    return count_objects(stack)["objects"]
