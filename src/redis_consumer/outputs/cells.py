"""Defines label images and grey values that are read window by window, and the cells that are found in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.images.calibration import Calibration
from redis_consumer.processing.outlines import Corners, Outlines, find_corners, join_corners, joined_corners
from redis_consumer.processing.region_table import HALO_PX, RegionTable

Array = npt.NDArray[Any]
Window = tuple[slice, slice]
#: Pixels of a row of windows at most, if it is higher than this.
_MOST_ROW_AREA, _LEAST_ROW_PX = 1 << 24, 256
#: Takes the number of a frame, and rows and columns.
Read = Callable[[int, Window], Array]


@dataclass(frozen=True)
class LabelImages:
    """The label images of a result, and the grey values below them.

    Attributes:
        shape: (B, Y, X).
        read: returns the labels of a window, (y, x) integers, 0 is background.
        grey: returns the grey values of a window, (y, x, C); None if nothing asks for them.
        picture: the same, (y, x), of the channel that is shown below the outlines.
        tile_px: side of a window that is read at once; 0 for whole frames.
        calibration: axes and sizes.
        first_channel: number of the first channel of `grey`, for the names of columns.
        confidence: takes the number of a frame; returns the confidence of each object, with the label as its index.
            Objects beyond its end have none; None if nothing is known.
    """

    shape: tuple[int, int, int]
    read: Read
    grey: Read | None = None
    picture: Read | None = None
    tile_px: int = 0
    calibration: Calibration = field(default_factory=Calibration)
    first_channel: int = 0
    confidence: Callable[[int], Array] | None = None

    def rows(self) -> list[slice]:
        """The rows of windows. They are lower in a wide image, so that a row has a limited number of pixels."""
        height = self.tile_px
        while height > _LEAST_ROW_PX and height * self.shape[2] > _MOST_ROW_AREA:
            height //= 2
        return _sides(self.shape[1], height)

    def columns(self) -> list[slice]:
        """The columns of windows."""
        return _sides(self.shape[2], self.tile_px)

    def padded(self, frame: int, window: Window, before: int, after: int) -> Array:
        """Return the labels of a window with some pixels around it, 0 beyond the image."""
        wanted = [(side.start - before, side.stop + after) for side in window]
        inside = [
            slice(max(start, 0), min(stop, most)) for (start, stop), most in zip(wanted, self.shape[1:], strict=True)
        ]
        labels = self.read(frame, (inside[0], inside[1]))
        missing = [(side.start - start, stop - side.stop) for side, (start, stop) in zip(inside, wanted, strict=True)]
        return np.pad(labels, missing) if any(map(any, missing)) else labels


@dataclass(frozen=True)
class Cells:
    """Some regions of one frame.

    Attributes:
        frame: number of the frame.
        table: see `RegionTable.finish`, and the column ``confidence``; empty if it isn't wanted.
        outlines: empty if they aren't wanted.
    """

    frame: int
    table: dict[str, Array]
    outlines: Outlines


def find_cells(images: LabelImages, *, is_measured: bool, is_traced: bool) -> Iterator[Cells]:
    """Yield the cells of all frames, each once and complete. Memory depends on a row of windows, not on the image.

    Args:
        images: where they are.
        is_measured: whether `Cells.table` is wanted.
        is_traced: whether `Cells.outlines` are wanted.
    """
    rows, columns = images.rows(), images.columns()
    for frame in range(images.shape[0]):
        last_rows = _last_rows(images, frame) if len(rows) > 1 else np.zeros(0, np.int32)
        table = RegionTable((images.shape[1], images.shape[2]), images.first_channel)
        waiting: list[Corners] = []
        for number, side in enumerate(rows):
            for other in columns:
                window = (side, other)
                if is_measured:
                    table.add(
                        images.padded(frame, window, HALO_PX, HALO_PX), _channels(images, frame, window), _start(window)
                    )
                if is_traced:
                    waiting.append(_corners(images, frame, window))
            is_last = number == len(rows) - 1
            complete = None if is_last else np.flatnonzero(last_rows == number)
            found = table.finish(complete) if is_measured else {}
            if is_measured:
                found["confidence"] = _confidence(images, frame, found["label"])
            yield Cells(frame, found, _outlines(waiting, complete))


def whole_frames(read: Callable[[int], Array]) -> Read:
    """Return windows of frames that are read whole. The last frame is kept."""
    cached = lru_cache(maxsize=1)(read)
    return lambda frame, window: np.asarray(cached(frame)[window])


def _sides(length: int, tile_px: int) -> list[slice]:
    step = tile_px or length
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def _start(window: Window) -> tuple[int, int]:
    return window[0].start, window[1].start


def _channels(images: LabelImages, frame: int, window: Window) -> list[Array]:
    if images.grey is None:
        return []
    grey = images.grey(frame, window)
    return [grey[..., channel] for channel in range(grey.shape[-1])]


def _confidence(images: LabelImages, frame: int, labels: Array) -> Array:
    table: Array = np.zeros(0, np.float32) if images.confidence is None else images.confidence(frame)
    result = np.full(len(labels), np.nan, np.float32)
    is_known = labels < len(table)
    result[is_known] = table[labels[is_known]]
    return result


def _corners(images: LabelImages, frame: int, window: Window) -> Corners:
    """Return the corners at the upper left of each pixel of a window, and those at the far edges of the image."""
    _, height, width = images.shape
    padded = images.padded(frame, window, 1, 1)
    rows, columns = (None if side.stop == most else -1 for side, most in zip(window, (height, width), strict=True))
    return find_corners(padded[:rows, :columns], _start(window))


def _outlines(waiting: list[Corners], complete: Array | None) -> Outlines:
    """Join the corners of the labels that are complete, and keep the others."""
    corners = joined_corners(waiting)
    waiting.clear()
    if complete is None:
        return join_corners(corners)
    is_complete = np.isin(corners.labels, complete)
    waiting.append(corners.of(~is_complete))
    return join_corners(corners.of(is_complete))


def _last_rows(images: LabelImages, frame: int) -> Array:
    """Return for each label the last row of windows that has a corner of it; -1 for labels that don't occur."""
    found = np.full(1, -1, np.int32)
    rows = images.rows()
    for number, side in enumerate(rows):
        last: list[Array] = []
        for other in images.columns():
            labels = images.read(frame, (side, other))
            found = _grown(found, int(labels.max(initial=0)))
            found[labels] = number
            last.append(np.array(labels[-1]))
        # The lower corners of the last pixels are in the next row, also if other columns have the label, too.
        for labels in last:
            found[labels] = min(number + 1, len(rows) - 1)
    found[0] = -1
    return found


def _grown(found: Array, largest: int) -> Array:
    if largest < len(found):
        return found
    grown = np.full(max(largest + 1, ceil(1.5 * len(found))), -1, np.int32)
    grown[: len(found)] = found
    return grown
