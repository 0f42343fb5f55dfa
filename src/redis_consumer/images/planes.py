"""Reads a part of an image without the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from redis_consumer.errors import InvalidImage
from redis_consumer.images.image import Array, Source

Window = tuple[slice, slice]

#: Decoded bytes of a tile, strip or chunk that is read whole to get a part of it. Larger ones are refused.
MAX_SEGMENT_BYTES = 64 << 20


class NotWindowedError(InvalidImage):
    """A file whose planes can be read only all at once."""


@dataclass(frozen=True)
class Planes:
    """An opened file whose planes are read in windows; only while the file is open.

    Planes are counted over all axes besides Y and X, in the order of the file, the last axis fastest.

    Attributes:
        source: what the header says.
        read: takes numbers of planes and a window of rows and columns, gives (y, x, planes) in the source's dtype.
        open_array: gives what is sliced like an array of the source's shape; None if there is no such thing.
    """

    source: Source
    read: Callable[[Sequence[int], Window], Array]
    open_array: Callable[[], Any] | None = None


def array_planes(source: Source, open_array: Callable[[], Any]) -> Planes:
    """Read planes from anything that is sliced like an array of the source's shape.

    Args:
        source: what the header says.
        open_array: gives the array; called once a reading, so that a memory map's pages are given back after it.
    """

    def read(planes: Sequence[int], window: Window) -> Array:
        array = open_array()
        others = tuple(side for side, axis in zip(source.shape, source.axes, strict=True) if axis not in "YX")
        parts = []
        for plane in planes:
            where = iter(np.unravel_index(plane, others) if others else ())
            index = tuple({"Y": window[0], "X": window[1]}.get(axis) or next(where) for axis in source.axes)
            part = np.asarray(array[index], dtype=source.dtype.newbyteorder("="))
            parts.append(part if source.axes.index("Y") < source.axes.index("X") else part.T)
        return np.stack(parts, axis=-1)

    return Planes(source, read, open_array)


def with_axes(planes: Planes, source: Source) -> Planes:
    """Return the same planes by other axes, which the job or the shape gives them.

    Args:
        planes: of an opened file.
        source: the same file with other letters for its axes.
    """
    if planes.open_array is not None:
        return array_planes(source, planes.open_array)
    if [planes.source.axes.index(axis) for axis in "YX"] == [source.axes.index(axis) for axis in "YX"]:
        return Planes(source, planes.read)
    return array_planes(source, lambda: _Sliced(planes))


class _Sliced:
    """Reads planes of a file for an index along all of its axes, where rows or columns lie across the planes."""

    def __init__(self, planes: Planes) -> None:
        self._planes = planes

    def __getitem__(self, index: tuple[Any, ...]) -> Array:
        source = self._planes.source
        ranges = [
            range(each.start, each.stop) if isinstance(each, slice) else range(int(each), int(each) + 1)
            for each in index
        ]
        others = [axis for axis, letter in enumerate(source.axes) if letter not in "YX"]
        sides = tuple(source.shape[axis] for axis in others)
        rows, columns = (ranges[source.axes.index(axis)] for axis in "YX")
        window = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
        numbers = [int(np.ravel_multi_index(at, sides)) for at in product(*(ranges[axis] for axis in others))]
        pixels = self._planes.read(numbers, window)
        # (y, x, others...) to the order of the file.
        pixels = pixels.reshape(len(rows), len(columns), *(len(ranges[axis]) for axis in others))
        order = [source.axes.index("Y"), source.axes.index("X"), *others]
        fixed = tuple(0 if not isinstance(each, slice) else slice(None) for each in index)
        result: Array = pixels.transpose([order.index(axis) for axis in range(len(order))])[fixed]
        return result
