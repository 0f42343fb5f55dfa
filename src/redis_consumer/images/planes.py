"""Reads a part of an image without the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    """

    source: Source
    read: Callable[[Sequence[int], Window], Array]


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

    return Planes(source, read)
