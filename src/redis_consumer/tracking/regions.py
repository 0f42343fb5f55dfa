"""Measures the regions of a label image, and the overlap of regions in two frames.

All values are computed over all pixels of a frame at once (``numpy.bincount``), for any number of regions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

#: Labels below this number are indexed by a table with one entry for each number, higher ones by sorting.
_TABLE = 1 << 22


@dataclass(frozen=True)
class Regions:
    """The regions of one label image, in rising order of their labels.

    Attributes:
        labels: (n,) labels in the image.
        areas_px: (n,) numbers of pixels.
        centroids_px: (n, 2) rows and columns of the centres.
        roundness: (n,) ratio of the shorter to the longer axis of the ellipse with the same second moments, 0 to 1.
        at_border: (n,) whether a region touches the border of the image.
    """

    labels: Array
    areas_px: Floats
    centroids_px: Floats
    roundness: Floats
    at_border: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, indices: Indices) -> Regions:
        """Return the regions at these indices."""
        return Regions(
            self.labels[indices],
            self.areas_px[indices],
            self.centroids_px[indices],
            self.roundness[indices],
            self.at_border[indices],
        )


@dataclass(frozen=True)
class Frame:
    """The regions of a label image and their pixels.

    Attributes:
        shape: (Y, X) of the image.
        regions: the regions of the image.
        pixels: flat indices of the foreground pixels.
        owners: for each of `pixels` the index of its region in `regions`.
    """

    shape: tuple[int, ...]
    regions: Regions
    pixels: Indices
    owners: Indices


def measure(labels: Array) -> Frame:
    """Measure the regions of a label image.

    Args:
        labels: (Y, X) integers, 0 is background; labels can have gaps.

    Raises:
        ValueError: `labels` is not an image of integers, or has negative values.

    >>> measure(np.array([[0, 5, 5], [0, 5, 2]])).regions.areas_px
    array([1., 3.])
    """
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise ValueError(f"labels: {labels.dtype} of shape {labels.shape}; need (y, x) integers, 0 or more")
    pixels = np.flatnonzero(labels)
    values, owners = _indexed(labels.ravel()[pixels])
    rows, columns = np.divmod(pixels, labels.shape[1])
    areas = np.bincount(owners, minlength=len(values)).astype(np.float64)
    centroids = np.stack([np.bincount(owners, axis, len(values)) / areas for axis in (rows, columns)], axis=-1)
    away_y, away_x = rows - centroids[owners, 0], columns - centroids[owners, 1]
    moments = ((away_y, away_y), (away_x, away_x), (away_y, away_x))
    roundness = _roundness(*(np.bincount(owners, one * other, len(values)) / areas for one, other in moments))
    at_border = np.zeros(len(values), bool)
    last_row, last_column = labels.shape[0] - 1, labels.shape[1] - 1
    at_border[owners[(rows == 0) | (rows == last_row) | (columns == 0) | (columns == last_column)]] = True
    return Frame(labels.shape, Regions(values, areas, centroids, roundness, at_border), pixels, owners)


def overlaps(before: Frame, after: Frame, shift_px: tuple[int, int] = (0, 0)) -> tuple[Indices, Indices, Floats]:
    """Count the pixels that regions of two frames share.

    Args:
        before: the earlier frame.
        after: the later frame, of the same shape.
        shift_px: rows and columns by which the scene has moved from `before` to `after`.

    Returns:
        For each overlapping pair: its index in `before`, its index in `after`, and the number of shared pixels.
    """
    from scipy.sparse import coo_array

    owner_before = np.full(int(np.prod(before.shape)), -1, np.int32)
    owner_before[before.pixels] = before.owners
    pixels, owners = _moved(after, shift_px)
    under = owner_before[pixels]
    both = under >= 0
    counts = coo_array(
        (np.ones(int(both.sum())), (under[both], owners[both])), (len(before.regions), len(after.regions))
    )
    counts = counts.tocsr().tocoo()  # adds up equal pairs without sorting all pixels
    return counts.coords[0].astype(np.intp), counts.coords[1].astype(np.intp), counts.data


def _indexed(values: Array) -> tuple[Array, Indices]:
    """Return the distinct values in rising order, and the index of each value among them."""
    if values.size and int(values.max()) >= _TABLE:
        distinct, index = np.unique(values, return_inverse=True)
        return distinct, index.astype(np.intp)
    distinct = np.flatnonzero(np.bincount(values)) if values.size else np.zeros(0, np.intp)
    table = np.zeros(int(distinct[-1]) + 1 if distinct.size else 0, np.intp)
    table[distinct] = np.arange(len(distinct))
    return distinct, table[values]


def _moved(frame: Frame, shift_px: tuple[int, int]) -> tuple[Indices, Indices]:
    """Return the foreground pixels of a frame, moved back by a shift, without those that leave the image."""
    if shift_px == (0, 0):
        return frame.pixels, frame.owners
    rows, columns = np.divmod(frame.pixels, frame.shape[1])
    rows, columns = rows - shift_px[0], columns - shift_px[1]
    inside = (rows >= 0) & (rows < frame.shape[0]) & (columns >= 0) & (columns < frame.shape[1])
    return (rows * frame.shape[1] + columns)[inside], frame.owners[inside]


def _roundness(yy: Floats, xx: Floats, xy: Floats) -> Floats:
    """Return the ratio of the shorter to the longer axis, from the second central moments.

    1/12 is the second moment of a single pixel about its centre.
    """
    middle = (yy + xx) / 2 + 1 / 12
    spread = np.hypot((yy - xx) / 2, xy)
    return np.sqrt((middle - spread) / (middle + spread))
