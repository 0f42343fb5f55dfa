"""Corrects label images: deletes, merges, splits and paints objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import InvalidImage
from redis_consumer.processing.measure import object_areas

Array = npt.NDArray[Any]

#: Member of a result with the corrections of its labels.
CORRECTIONS = "corrections.json"
#: Largest label that the files of a result tell apart.
MOST_LABEL = 1 << 24
#: Bytes of a compressed file that is corrected.
_MOST_BYTES = 1 << 30


def correct(files: Sequence[Path], places: Sequence[Sequence[int]], ops: Sequence[Mapping[str, Any]]) -> int:
    """Correct the label images of a result in their files.

    Args:
        files: one of all frames, or one for each frame; TIFF.
        places: number of the frame at each time and plane.
        ops: operations in order, each with ``op``: ``delete`` (``label``) and ``merge`` (``labels``: the second one
            becomes the first) in all frames; ``split`` (``label``, two ``points`` as row and column, each in one of
            the parts, ``t``, ``z``), whose second part gets a new label; ``paint`` (``label``, 0 for background, ``t``,
            ``z``, ``runs`` as row, first and last column plus one).

    Returns:
        The number of objects, the sum over all frames.

    Raises:
        InvalidImage: a file can't be corrected, or an operation names an object or a place that doesn't exist.
    """
    arrays = [_Frames(path) for path in files]
    frames = [frame for each in arrays for frame in each.frames]
    largest = max(int(frame.max(initial=0)) for frame in frames)
    for number, op in enumerate(ops):
        try:
            largest = _OPERATIONS[op["op"]](frames, places, op, largest)
        except InvalidImage as error:
            raise InvalidImage(f"field ops.{number}: {error}") from None
    for each in arrays:
        each.close()
    return sum(len(object_areas(frame.astype(np.int32))) for frame in frames)


class _Frames:
    """The frames of a file, which can be written to."""

    def __init__(self, path: Path) -> None:
        from tifffile import TiffFile, memmap

        self._path = path
        try:
            self._array: Array = memmap(path, mode="r+")
            self._options: dict[str, Any] | None = None
        except ValueError:
            with TiffFile(path) as file:
                page = file.pages.first
                if file.series[0].nbytes > _MOST_BYTES:
                    raise InvalidImage(
                        f"{path.name}: is too large to be corrected here; correct the file in napari or Fiji"
                    ) from None
                self._array = file.series[0].asarray()
                self._options = {
                    "tile": page.tile if page.is_tiled else None,
                    "compression": "zlib",
                    "description": page.description,
                    "metadata": None,
                    "photometric": "minisblack",
                }
        except OSError as error:
            raise InvalidImage(f"{path.name}: labels in this format can't be corrected ({error})") from error
        self.frames = list(self._array.reshape(-1, *self._array.shape[-2:]))

    def close(self) -> None:
        from tifffile import imwrite

        if self._options is None:
            self._array.flush()  # type: ignore[attr-defined]
        else:
            imwrite(self._path, self._array, **self._options)


def _frame(frames: Sequence[Array], places: Sequence[Sequence[int]], op: Mapping[str, Any]) -> Array:
    t, z = int(op.get("t", 0)), int(op.get("z", 0))
    if t >= len(places) or z >= len(places[0]):
        raise InvalidImage(f"t = {t}, z = {z} is outside; there are {len(places)} times and {len(places[0])} planes")
    return frames[places[t][z]]


def _require(frames: Sequence[Array], label: int) -> None:
    if not any((frame == label).any() for frame in frames):
        raise InvalidImage(f"there is no object {label}; read the labels again")


def _delete(frames: Sequence[Array], _: Sequence[Sequence[int]], op: Mapping[str, Any], largest: int) -> int:
    _require(frames, op["label"])
    for frame in frames:
        frame[frame == op["label"]] = 0
    return largest


def _merge(frames: Sequence[Array], _: Sequence[Sequence[int]], op: Mapping[str, Any], largest: int) -> int:
    first, second = op["labels"]
    for label in (first, second):
        _require(frames, label)
    for frame in frames:
        frame[frame == second] = first
    return largest


def _split(frames: Sequence[Array], places: Sequence[Sequence[int]], op: Mapping[str, Any], largest: int) -> int:
    from skimage.segmentation import watershed

    frame, label = _frame(frames, places, op), op["label"]
    is_object = frame == label
    for y, x in op["points"]:
        if not (y < frame.shape[0] and x < frame.shape[1] and is_object[y, x]):
            raise InvalidImage(f"point ({y}, {x}) is not in object {label}; give two points inside of it")
    if op["points"][0] == op["points"][1]:
        raise InvalidImage("the points are equal; give one in each part")
    rows, columns = np.flatnonzero(is_object.any(axis=1)), np.flatnonzero(is_object.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    markers = np.zeros(is_object[box].shape, np.int32)
    for number, (y, x) in enumerate(op["points"], 1):
        markers[y - rows[0], x - columns[0]] = number
    # On a flat image each pixel goes to the marker that is nearest within the object.
    parts = watershed(np.zeros(markers.shape, np.uint8), markers, mask=is_object[box])
    largest += 1
    if largest > MOST_LABEL:
        raise InvalidImage(f"there are labels up to {MOST_LABEL}; no new one is left")
    frame[box][parts == 2] = largest
    return largest


def _paint(frames: Sequence[Array], places: Sequence[Sequence[int]], op: Mapping[str, Any], largest: int) -> int:
    frame = _frame(frames, places, op)
    for y, start, stop in op["runs"]:
        if not (y < frame.shape[0] and start < stop <= frame.shape[1]):
            raise InvalidImage(
                f"run [{y}, {start}, {stop}] is outside of the image of {frame.shape[1]} x {frame.shape[0]} px"
            )
        frame[y, start:stop] = op["label"]
    return max(largest, int(op["label"]))


_OPERATIONS: dict[str, Callable[[Sequence[Array], Sequence[Sequence[int]], Mapping[str, Any], int], int]] = {
    "delete": _delete,
    "merge": _merge,
    "split": _split,
    "paint": _paint,
}
