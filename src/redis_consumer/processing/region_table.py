"""Measures the regions of a label image and their grey values, window by window.

What it measures is defined as in `skimage.measure.regionprops`, with the same numbers, but all regions are measured at
once. A window gives one row for each region that it holds. Rows of a region from several windows are joined, so memory
depends on the windows and on the regions that are not complete yet, not on the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Pixels around a window that decide how long the perimeter in it is.
HALO_PX = 2
#: Part of the perimeter that a pixel at the edge of a region adds, by its neighbours at the edge: beside it (rows), and
#: at its corners (columns). K. Benkrid and D. Crookes, Design and FPGA implementation of a perimeter estimator, 2000.
_PERIMETER = np.zeros((5, 5))
_PERIMETER[[2, 3, 2, 3, 2, 3], [0, 0, 1, 1, 2, 2]] = 1
_PERIMETER[[0, 1], [2, 3]] = sqrt(2)
_PERIMETER[[1, 1], [1, 2]] = (1 + sqrt(2)) / 2
#: Labels up to this one are counted in a table, others by sorting.
_TABLE = 1 << 26
_FIRST_COLUMNS = ("label", "area_px", "centroid_y_px", "centroid_x_px", "top_px", "left_px", "bottom_px", "right_px")


@dataclass(frozen=True)
class _Rows:
    """Measurements of regions, one row each: sums that can be joined, and the extent of each pixel row."""

    label: Array
    area: Array
    mean: Array  # (n, 2) y, x
    spread: Array  # (n, 3) sums of the squared distances from the mean: yy, xx, yx
    box: Array  # (n, 4) top, left, bottom, right
    perimeter: Array
    grey: Array  # (n, C, 4) mean, sum of the squared differences from it, lowest, highest
    extent: Array  # (m, 4) label, row, first column, last column; by label and row

    def split(self, complete: Array) -> tuple[_Rows, _Rows]:
        """Divide the rows by whether their label is in `complete`, sorted."""
        is_in = np.isin(self.label, complete)
        has_extent = np.isin(self.extent[:, 0], complete)
        return self._of(is_in, has_extent), self._of(~is_in, ~has_extent)

    def _of(self, rows: Array, extents: Array) -> _Rows:
        names = ("label", "area", "mean", "spread", "box", "perimeter", "grey")
        return _Rows(**{name: getattr(self, name)[rows] for name in names}, extent=self.extent[extents])


class RegionTable:
    """Collects measurements of the regions of one image plane.

    Args:
        shape_yx: sides of the plane.
        first_channel: number of the first channel, for the names of columns.
    """

    def __init__(self, shape_yx: tuple[int, int], first_channel: int = 0) -> None:
        self._shape_yx = shape_yx
        self._first_channel = first_channel
        self._open: list[_Rows] = []

    def add(self, padded: Array, channels: Sequence[Array], origin_yx: tuple[int, int] = (0, 0)) -> None:
        """Measure a window.

        Args:
            padded: (y + 4, x + 4) integers: the labels of a window with `HALO_PX` pixels around it, 0 beyond the
                image.
            channels: (y, x) real numbers each, the grey values of the window.
            origin_yx: row and column of the window in the plane.
        """
        self._open.append(_measure(padded, channels, origin_yx))

    def finish(self, complete: Array | None = None) -> dict[str, Array]:
        """Return the columns of regions that are complete, and forget them.

        Args:
            complete: their labels; None for all.

        Returns:
            One row for each region, by rising label: ``label``, ``area_px``, ``centroid_y_px``, ``centroid_x_px``,
            ``top_px``, ``left_px``, ``bottom_px``, ``right_px`` (the last two are one past the region),
            ``major_axis_px``, ``minor_axis_px``, ``eccentricity``, ``perimeter_px``, ``solidity``,
            ``touches_border``, and for each channel ``c<n>_mean``, ``c<n>_sd``, ``c<n>_min``, ``c<n>_max``,
            ``c<n>_sum``. Empty if nothing was added.
        """
        if not self._open:
            return {}
        rows = self._open[0] if len(self._open) == 1 else _joined(self._open)
        self._open = []
        if complete is not None:
            rows, rest = rows.split(np.sort(complete))
            self._open = [rest]
        return _columns(rows, self._shape_yx, self._first_channel)


def measure_regions(labels: Array, channels: Sequence[Array] = ()) -> dict[str, Array]:
    """Measure all regions of a label image, see `RegionTable.finish`.

    Args:
        labels: (Y, X) integers, 0 is background; labels can have gaps.
        channels: (Y, X) real numbers each.

    Raises:
        ValueError: `labels` is not an image of integers of 0 or more, or a channel has another shape.

    >>> table = measure_regions(np.array([[0, 5, 5], [0, 5, 0]]))
    >>> table["area_px"].tolist(), table["touches_border"].tolist()
    ([3], [True])
    """
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise ValueError(f"labels: {labels.dtype} of shape {labels.shape}; need (y, x) integers, 0 or more")
    for channel in channels:
        if channel.shape != labels.shape:
            raise ValueError(f"channel: shape {channel.shape} differs from that of labels, {labels.shape}")
    table = RegionTable((labels.shape[0], labels.shape[1]))
    table.add(np.pad(labels, HALO_PX), channels)
    return table.finish()


def _measure(padded: Array, channels: Sequence[Array], origin_yx: tuple[int, int]) -> _Rows:
    labels = np.ascontiguousarray(padded[HALO_PX:-HALO_PX, HALO_PX:-HALO_PX])
    width = max(labels.shape[1], 1)
    flat = labels.ravel()
    pixels = np.flatnonzero(flat)
    values = flat[pixels]
    # Runs: neighbouring pixels of one label in one row.
    is_start = np.ones(len(pixels), np.bool_)
    is_start[1:] = (np.diff(pixels) != 1) | (values[1:] != values[:-1]) | (pixels[1:] % width == 0)
    starts = np.flatnonzero(is_start)
    lengths = np.diff(starts, append=len(pixels))
    known, owner = indexed(values[starts])
    row, left = np.divmod(pixels[starts], width)
    row, left = row + origin_yx[0], left + origin_yx[1]
    count = len(known)
    area = np.bincount(owner, lengths, count)
    middle = left + (lengths - 1) / 2
    mean = np.stack([np.bincount(owner, lengths * at, count) for at in (row, middle)], axis=-1) / area[:, np.newaxis]
    y, x = row - mean[owner, 0], middle - mean[owner, 1]
    moments = (lengths * y * y, lengths * (x * x + (lengths * lengths - 1) / 12), lengths * y * x)
    spread = np.stack([np.bincount(owner, moment, count) for moment in moments], axis=-1)
    # The runs region by region, each by row and column.
    order = np.argsort(owner, kind="stable")
    first = np.searchsorted(owner[order], np.arange(count))
    ends = left + lengths
    box = np.stack([
        row[order][first],
        _reduced(np.minimum, left[order], first),
        row[order][np.append(first[1:], len(order))[:count] - 1] + 1,
        _reduced(np.maximum, ends[order], first),
    ], axis=-1)  # fmt: skip
    grey = np.zeros((count, len(channels), 4))
    for number, channel in enumerate(channels):
        grey[:, number] = _grey(channel, pixels, starts, lengths, owner, area)
    extent = _extent(np.stack([known[owner], row, left, ends - 1], axis=-1)[order])
    edge = _perimeter(padded, known, count)
    return _Rows(known, area, mean, spread, box.reshape(count, 4), edge, grey, extent)


def _grey(channel: Array, pixels: Array, starts: Array, lengths: Array, owner: Array, area: Array) -> Array:
    """Return for each region the mean, the sum of the squared differences from it, the lowest and highest value."""
    count = len(area)
    if not count:
        return np.zeros((0, 4))
    values = channel.ravel()[pixels].astype(np.float64)
    mean = np.bincount(owner, np.add.reduceat(values, starts), count) / area
    order = np.argsort(owner, kind="stable")
    first = np.searchsorted(owner[order], np.arange(count))
    low = _reduced(np.minimum, np.minimum.reduceat(values, starts)[order], first)
    high = _reduced(np.maximum, np.maximum.reduceat(values, starts)[order], first)
    values -= np.repeat(mean[owner], lengths)
    values *= values
    return np.stack([mean, np.bincount(owner, np.add.reduceat(values, starts), count), low, high], axis=-1)


def _reduced(function: np.ufunc, values: Array, first: Array) -> Array:
    return np.asarray(function.reduceat(values, first)) if len(first) else values


def _extent(runs: Array) -> Array:
    """Return first and last column of each label in each row, of (label, row, first, last) by label and row."""
    if not len(runs):
        return runs
    is_new = np.ones(len(runs), np.bool_)
    is_new[1:] = (runs[1:, :2] != runs[:-1, :2]).any(axis=1)
    first = np.flatnonzero(is_new)
    columns = (np.minimum.reduceat(runs[:, 2], first), np.maximum.reduceat(runs[:, 3], first))
    return np.column_stack([runs[first, :2], *columns])


def _perimeter(padded: Array, known: Array, count: int) -> Array:
    """Return the part of each region's perimeter in a window."""
    inner = padded[1:-1, 1:-1]
    is_edge = (inner != padded[:-2, 1:-1]) | (inner != padded[2:, 1:-1])
    is_edge |= (inner != padded[1:-1, :-2]) | (inner != padded[1:-1, 2:])
    edge = np.where(is_edge, inner, 0).ravel()
    width = inner.shape[1]
    rows, columns = np.divmod(np.flatnonzero(edge), max(width, 1))
    is_core = (rows > 0) & (rows < inner.shape[0] - 1) & (columns > 0) & (columns < width - 1)
    places = rows[is_core] * width + columns[is_core]
    values = edge[places]
    beside, corner = (
        np.sum([edge[places + step] == values for step in steps], axis=0, dtype=np.int64)
        for steps in ((-width, width, -1, 1), (-width - 1, -width + 1, width - 1, width + 1))
    )
    return np.bincount(np.searchsorted(known, values), _PERIMETER[beside, corner], count)


def _joined(parts: Sequence[_Rows]) -> _Rows:
    """Join the rows of each region."""
    known, owner = indexed(np.concatenate([part.label for part in parts]))
    count = len(known)
    area, mean, spread, box, edge, grey = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("area", "mean", "spread", "box", "perimeter", "grey")
    )
    areas = np.bincount(owner, area, count)

    def summed(column: Array) -> Array:
        return np.bincount(owner, column, count)

    means = np.stack([summed(area * mean[:, axis]) for axis in (0, 1)], axis=-1) / areas[:, np.newaxis]
    away = mean - means[owner]
    steps = ((0, 0), (1, 1), (0, 1))
    spreads = np.stack(
        [summed(spread[:, at] + area * away[:, one] * away[:, other]) for at, (one, other) in enumerate(steps)], axis=-1
    )
    order = np.argsort(owner, kind="stable")
    first = np.searchsorted(owner[order], np.arange(count))
    boxes = np.column_stack([
        _reduced(np.minimum if column < 2 else np.maximum, box[order, column], first) for column in range(4)
    ])  # fmt: skip
    greys = np.zeros((count, grey.shape[1], 4))
    for channel in range(grey.shape[1]):
        values = grey[:, channel]
        greys[:, channel, 0] = summed(area * values[:, 0]) / areas
        greys[:, channel, 1] = summed(values[:, 1] + area * (values[:, 0] - greys[owner, channel, 0]) ** 2)
        greys[:, channel, 2] = _reduced(np.minimum, values[order, 2], first)
        greys[:, channel, 3] = _reduced(np.maximum, values[order, 3], first)
    extent = np.concatenate([part.extent for part in parts])
    extent = _extent(extent[np.lexsort((extent[:, 1], extent[:, 0]))])
    return _Rows(known, areas, means, spreads, boxes.reshape(count, 4), summed(edge), greys, extent)


def _columns(rows: _Rows, shape_yx: tuple[int, int], first_channel: int) -> dict[str, Array]:
    yy, xx, yx = (rows.spread / rows.area[:, np.newaxis]).T
    middle, apart = (yy + xx) / 2, np.hypot((yy - xx) / 2, yx)
    longer, shorter = middle + apart, np.maximum(middle - apart, 0)
    is_flat = longer <= 0
    first = (rows.label, rows.area.astype(np.int64), rows.mean[:, 0], rows.mean[:, 1], *rows.box.T)
    table: dict[str, Array] = dict(zip(_FIRST_COLUMNS, first, strict=True))
    table["major_axis_px"], table["minor_axis_px"] = 4 * np.sqrt(longer), 4 * np.sqrt(shorter)
    table["eccentricity"] = np.where(is_flat, 0, np.sqrt(np.maximum(1 - shorter / np.where(is_flat, 1, longer), 0)))
    table["perimeter_px"] = rows.perimeter
    table["solidity"] = rows.area / _hull_px(rows.extent, rows.label)
    top, left, bottom, right = rows.box.T
    table["touches_border"] = (top == 0) | (left == 0) | (bottom == shape_yx[0]) | (right == shape_yx[1])
    for channel in range(rows.grey.shape[1]):
        mean, squares, low, high = rows.grey[:, channel].T
        values = (mean, np.sqrt(squares / rows.area), low, high, mean * rows.area)
        for name, column in zip(("mean", "sd", "min", "max", "sum"), values, strict=True):
            table[f"c{first_channel + channel}_{name}"] = column
    return table


def _hull_px(extent: Array, known: Array) -> Array:
    """Return the pixels whose centres are in the convex hull of each region.

    The corners of the hull are the middles of the edges of pixels. Its numbers are doubled, so that they are whole.
    """
    if not len(known):
        return np.zeros(0)
    label, row, first, last = extent.T
    owner = np.searchsorted(known, label)
    right = _hull_side(owner, row, last)
    left = _hull_side(owner, row, -first)
    starts = np.searchsorted(owner, np.arange(len(known)))
    top, bottom = row[starts], row[np.append(starts[1:], len(row)) - 1]
    heights = bottom - top + 1
    each = np.repeat(np.arange(len(known)), heights)
    rows = np.arange(len(each)) - np.repeat(np.cumsum(heights) - heights, heights) + top[each]
    # The first and last column in the hull: -(the last one of the mirrored region), and the last one.
    counts = _last_column(right, each, rows) + _last_column(left, each, rows) + 1
    return np.bincount(each, counts, len(known))


def _hull_side(owner: Array, row: Array, last: Array) -> tuple[Array, Array, Array]:
    """Return the corners on the right side of each region's hull: region, 2 y, 2 x, by region and y."""
    groups = np.repeat(owner, 3)
    y = (2 * row[:, np.newaxis] + [-1, 0, 1]).ravel()
    x = (2 * last[:, np.newaxis] + [0, 1, 0]).ravel()
    # Two rows share the point between them: the one farther right counts.
    order = np.lexsort((-x, y, groups))
    groups, y, x = groups[order], y[order], x[order]
    is_new = np.ones(len(y), np.bool_)
    is_new[1:] = (groups[1:] != groups[:-1]) | (y[1:] != y[:-1])
    groups, y, x = groups[is_new], y[is_new], x[is_new]
    done: list[tuple[Array, Array, Array]] = []
    while len(y):
        is_inside = np.zeros(len(y), np.bool_)
        wide = (x[1:-1] - x[:-2]) * (y[2:] - y[:-2]) <= (x[2:] - x[:-2]) * (y[1:-1] - y[:-2])
        is_inside[1:-1] = wide & (groups[2:] == groups[:-2])
        # Regions that lose no point are done. In the others, the points that are left have new neighbours.
        is_changed = np.bincount(groups, is_inside)[groups] > 0
        done.append((groups[~is_changed], y[~is_changed], x[~is_changed]))
        kept = is_changed & ~is_inside
        groups, y, x = groups[kept], y[kept], x[kept]
    groups, y, x = (np.concatenate(parts) for parts in zip(*done, strict=True))
    order = np.lexsort((y, groups))
    return groups[order], y[order], x[order]


def _last_column(side: tuple[Array, Array, Array], owner: Array, rows: Array) -> Array:
    """Return the last column whose centre is in the hull, for each pixel row of the regions."""
    groups, y, x = side
    lowest, height = int(y.min()), int(y.max()) - int(y.min()) + 2
    keys, wanted = groups * height + (y - lowest), owner * height + (2 * rows - lowest)
    before = np.searchsorted(keys, wanted, side="right") - 1
    dy, dx = y[before + 1] - y[before], x[before + 1] - x[before]
    return np.asarray((x[before] * dy + dx * (2 * rows - y[before])) // (2 * dy))


def indexed(values: Array) -> tuple[Array, Array]:
    """Return the distinct values in rising order as int64, and the index of each value among them."""
    if values.size and int(values.max()) >= _TABLE:
        distinct, index = np.unique(values, return_inverse=True)
        return distinct.astype(np.int64), index.astype(np.int64)
    is_used = np.bincount(values.astype(np.int64)) > 0 if values.size else np.zeros(0, np.bool_)
    return np.flatnonzero(is_used), (np.cumsum(is_used) - 1)[values] if values.size else np.zeros(0, np.int64)
