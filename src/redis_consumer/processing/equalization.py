"""Equalises contrast by neighbourhood in an image that is processed in parts.

The method is that of `histogram_normalization`: contrast-limited adaptive histogram equalisation after K. Zuiderveld
(Graphics Gems IV, 1994). The histograms of the neighbourhoods come from a sample of the whole image. The result of a
pixel depends only on its value and its position.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.processing.blocks import Window
from redis_consumer.processing.normalization import CLAHE_BINS, CLAHE_CLIP_LIMIT, CLAHE_KERNEL_FRACTION

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Equalization:
    """Parameters to equalise one plane.

    Attributes:
        shape_yx: sides of the whole plane in pixels.
        span: smallest and largest value.
        maps: (rows, columns, bins), the equalised value of each bin in each neighbourhood, 0..1.
        kernel_yx: rows and columns of a neighbourhood, as parts of the sides of the whole plane.
        result_span: smallest and largest equalised value, which are mapped to 0 and 1.
    """

    shape_yx: tuple[int, int]
    span: tuple[float, float]
    maps: Floats
    kernel_yx: tuple[float, float]
    result_span: tuple[float, float] = (0.0, 1.0)

    def apply(self, part: Array, window: Window) -> Floats:
        """Equalise a part (y, x) that shows this window of the plane, at any scale. Return float32 in 0..1."""
        low, high = self.span
        if low == high:
            return np.zeros(part.shape, np.float32)
        bins = _bins(part, low, high)
        (above, below, down), (left, right, across) = (
            _neighbours(count, side, whole, kernel, known)
            for count, side, whole, kernel, known in zip(
                part.shape, window, self.shape_yx, self.kernel_yx, self.maps.shape, strict=False
            )
        )
        result = np.zeros(part.shape, np.float32)
        for rows, row_weights in ((above, 1 - down), (below, down)):
            for columns, column_weights in ((left, 1 - across), (right, across)):
                result += self.maps[rows[:, None], columns, bins] * (row_weights[:, None] * column_weights)
        low, high = self.result_span
        return np.asarray(np.clip((result - low) / max(high - low, 1e-6), 0, 1), np.float32)


def fit_equalization(plane: Array, shape_yx: tuple[int, int], kernel_px: float | None = None) -> Equalization:
    """Compute the histograms of neighbourhoods from a sample.

    Args:
        plane: (y, x), every n-th pixel of the whole plane.
        shape_yx: sides of the whole plane in pixels.
        kernel_px: side of a neighbourhood in pixels of `plane`; None for an eighth of each side.
    """
    sides = [
        max(math.floor(side / CLAHE_KERNEL_FRACTION if kernel_px is None else kernel_px), 1) for side in plane.shape
    ]
    span = (float(plane.min()), float(plane.max()))
    counts = [math.ceil(side / kernel) for side, kernel in zip(plane.shape, sides, strict=True)]
    kernel_yx = (sides[0] / plane.shape[0], sides[1] / plane.shape[1])
    if span[0] == span[1]:
        return Equalization(shape_yx, span, np.zeros((*counts, CLAHE_BINS), np.float32), kernel_yx)
    missing = [(0, count * kernel - side) for count, kernel, side in zip(counts, sides, plane.shape, strict=True)]
    bins = np.pad(_bins(plane, *span), missing, mode="reflect")
    rows, columns = (np.arange(side) // kernel for side, kernel in zip(bins.shape, sides, strict=True))
    where = (rows[:, None] * counts[1] + columns) * CLAHE_BINS + bins
    histograms = np.bincount(where.ravel(), minlength=math.prod(counts) * CLAHE_BINS).reshape(*counts, CLAHE_BINS)
    limit = max(int(CLAHE_CLIP_LIMIT * math.prod(sides)), 1)
    maps = np.cumsum(_limited(histograms, limit), axis=-1) / math.prod(sides)
    fitted = Equalization(shape_yx, span, np.minimum(maps, 1).astype(np.float32), kernel_yx)
    result = fitted.apply(plane, (slice(0, shape_yx[0]), slice(0, shape_yx[1])))
    return Equalization(shape_yx, span, fitted.maps, kernel_yx, (float(result.min()), float(result.max())))


def _bins(values: Array, low: float, high: float) -> npt.NDArray[np.intp]:
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(CLAHE_BINS / (high - low))
    return np.asarray(np.clip(scaled, 0, CLAHE_BINS - 1), np.intp)


def _limited(histograms: Array, limit: int) -> Array:
    """Cut histograms at a limit and spread the excess evenly over the bins below it.

    The amount for each bin is found by bisection, so that the sum stays the same.
    """
    totals = histograms.sum(axis=-1, keepdims=True)
    least, most = np.zeros(totals.shape), np.full(totals.shape, float(limit))
    for _ in range(40):
        middle = (least + most) / 2
        is_enough = np.minimum(histograms + middle, limit).sum(axis=-1, keepdims=True) >= totals
        least, most = np.where(is_enough, least, middle), np.where(is_enough, middle, most)
    return np.asarray(np.minimum(histograms + most, limit))


def _neighbours(
    count: int, side: slice, whole: int, kernel: float, known: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
    """Return for each pixel along an axis the two nearest neighbourhoods, and the weight of the second one."""
    centres = (side.start + (np.arange(count) + 0.5) * (side.stop - side.start) / count) / whole
    place = centres / kernel - 0.5
    first = np.floor(place).astype(np.intp)
    weight = (place - first).astype(np.float32)
    return np.clip(first, 0, known - 1), np.clip(first + 1, 0, known - 1), weight
