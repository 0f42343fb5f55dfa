"""Traces the outlines of regions along the edges of their pixels.

An outline has a corner wherever it turns. The corners of all regions are found at once, and joined to closed rings:
two corners of a region that follow each other on a row of the pixel grid are the ends of a horizontal edge, two that
follow each other on a column are the ends of a vertical one. Filling the rings gives back exactly the same pixels.

A polygon is one 4-connected part of a region, with its holes. No ring passes a point twice, and rings touch each other
at single points only, so that the polygons are valid simple features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Ring = Array
"""(n, 2) integers: x and y of each corner, the first one not repeated."""

# What an outline does at a corner: its horizontal edge is on the right, its vertical edge is below, and it leaves the
# corner by the horizontal one. With the region on its right, in a picture whose y points down. Two corners of a region
# can be at one point.
_RIGHT, _BELOW, _LEAVES_BY_ROW, _IS_DOUBLE = 1, 2, 4, 8
_KINDS = {1: 4, 2: 1, 4: 2, 8: 7, 14: 0, 13: 5, 11: 6, 7: 3}
#: The first and second corner by the pixels around a grid point that belong to a region: 1 above left, 2 above right,
#: 4 below left, 8 below right. Two pixels that touch only there are two corners.
_FIRST = np.full(16, -1, np.int8)
_SECOND = np.full(16, -1, np.int8)
for _pixels, _kind in _KINDS.items():
    _FIRST[_pixels] = _kind
_FIRST[[9, 6]] = _KINDS[1] | _IS_DOUBLE, _KINDS[2] | _IS_DOUBLE
_SECOND[[9, 6]] = _KINDS[8] | _IS_DOUBLE, _KINDS[4] | _IS_DOUBLE
#: What a corner adds to four times the Euler number: 1 where the outline turns around a pixel, -1 where it turns around
#: what is missing, and 2 less for each of two corners at one point.
_EULER = np.array([(1 if kind in (1, 2, 4, 7) else -1) - 2 * is_double for is_double in (0, 1) for kind in range(8)])


@dataclass(frozen=True)
class Corners:
    """The corners of the outlines of regions, in any order.

    Attributes:
        labels: the label of the region of each corner.
        points: (n, 2) x and y of the grid point; pixel (y, x) has the corners (x, y) and (x + 1, y + 1).
        kinds: how the outline turns there.
    """

    labels: Ints
    points: Ints
    kinds: npt.NDArray[np.int8]

    def of(self, chosen: Array) -> Corners:
        """Return some of the corners, by their indices or a mask."""
        return Corners(self.labels[chosen], self.points[chosen], self.kinds[chosen])


@dataclass(frozen=True)
class Outlines:
    """The rings of regions, region by region. The rings of a polygon follow each other, the outer one first.

    Attributes:
        points: (n, 2) x and y of the corners of all rings.
        starts: for each ring the index of its first corner; one more at the end.
        labels: for each ring the label of its region, in rising order.
        is_hole: whether a ring is a hole of the polygon whose outer ring precedes it. In (x, y), outer rings have a
            positive area, and holes a negative one.
    """

    points: Ints
    starts: Ints
    labels: Ints
    is_hole: npt.NDArray[np.bool_]

    def regions(self) -> Iterator[tuple[int, list[list[Ring]]]]:
        """Yield the label of each region and its polygons. A polygon is its outer ring and its holes."""
        label, polygons = 0, list[list[Ring]]()
        starts, labels, is_hole = self.starts.tolist(), self.labels.tolist(), self.is_hole.tolist()
        for index, hole in enumerate(is_hole):
            ring = self.points[starts[index] : starts[index + 1]]
            if labels[index] != label and polygons:
                yield label, polygons
                polygons = []
            label = labels[index]
            if hole:
                polygons[-1].append(ring)
            else:
                polygons.append([ring])
        if polygons:
            yield label, polygons


def trace_outlines(labels: Array) -> Outlines:
    """Trace the outlines of all regions of a label image.

    Args:
        labels: (Y, X) integers, 0 is background; labels can have gaps, and a label can have several parts.

    Raises:
        ValueError: `labels` is not an image of integers.

    >>> outlines = trace_outlines(np.array([[0, 7, 7], [0, 7, 0]]))
    >>> [(label, rings[0].tolist()) for label, [rings] in outlines.regions()]
    [(7, [[1, 0], [3, 0], [3, 1], [2, 1], [2, 2], [1, 2]])]
    """
    if labels.ndim != 2 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels: {labels.dtype} of shape {labels.shape}; need (y, x) integers")
    return join_corners(find_corners(np.pad(labels, 1)))


def find_corners(padded: Array, origin_yx: tuple[int, int] = (0, 0)) -> Corners:
    """Find the corners at the inner grid points of a part of a label image.

    Args:
        padded: (y + 1, x + 1) integers; the grid points between its pixels are those of the part. A whole image has a
            border of 0 on each side.
        origin_yx: row and column of the first such grid point in the image.
    """
    across, down = padded[:, :-1] == padded[:, 1:], padded[:-1] == padded[1:]
    is_straight = (across[:-1] & across[1:]) | (down[:, :-1] & down[:, 1:])
    rows, columns = np.divmod(np.flatnonzero(~is_straight), is_straight.shape[1])
    quad = [padded[rows + y, columns + x] for y in (0, 1) for x in (0, 1)]
    points = np.stack([columns + origin_yx[1], rows + origin_yx[0]], axis=-1).astype(np.int64)
    found: list[tuple[Array, Array, Array]] = []
    for place, label in enumerate(quad):
        pixels = sum((other == label).astype(np.int8) << bit for bit, other in enumerate(quad))
        is_new = (label != 0) & np.all([other != label for other in quad[:place]], axis=0)
        for kinds in (_FIRST, _SECOND):
            kind = kinds[pixels]
            chosen = np.flatnonzero(is_new & (kind >= 0))
            found.append((label[chosen].astype(np.int64), points[chosen], kind[chosen]))
    return Corners(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def euler_numbers(labels: Array, count: int) -> Ints:
    """Return the number of parts minus the number of holes of each label from 0 to `count`; 1 for label 0.

    Pixels that touch at a corner are one part. Gray's method: S. B. Gray, Local properties of binary images, 1971.

    Args:
        labels: (Y, X) integers of 0 or more, 0 is background.
        count: the largest label.
    """
    corners = find_corners(np.pad(labels, 1))
    sums = np.bincount(corners.labels, _EULER[corners.kinds], count + 1)
    sums[0] = 4
    return np.asarray(np.rint(sums / 4), np.int64)


def joined_corners(parts: Sequence[Corners]) -> Corners:
    """Return the corners of several parts of a label image together."""
    if not parts:
        return Corners(np.zeros(0, np.int64), np.zeros((0, 2), np.int64), np.zeros(0, np.int8))
    names = ("labels", "points", "kinds")
    return Corners(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def join_corners(corners: Corners) -> Outlines:
    """Join all corners of some regions to rings, and the rings to polygons."""
    count = len(corners.labels)
    if not count:
        return Outlines(np.zeros((0, 2), np.int64), np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_))
    # In this order, every two corners are the ends of a horizontal edge, and a ring begins with its uppermost corner.
    x, y = corners.points.T
    corners = corners.of(np.lexsort((corners.kinds & _RIGHT, x, y, corners.labels)))
    values, owners = np.unique(corners.labels, return_inverse=True)
    following = _following(corners, owners)
    ring, place = _rings(following)
    twice = _touching(corners, owners, ring)
    if len(twice):
        # A ring that touches itself becomes two rings.
        following[twice] = following[twice[:, ::-1]]
        ring, place = _rings(following)
    lengths = np.bincount(ring)
    order = np.empty(count, np.int64)
    order[(np.cumsum(lengths) - lengths)[ring] + place] = np.arange(count)
    points, first = corners.points[order], np.cumsum(lengths) - lengths
    is_hole = np.add.reduceat(_turned(points, first, lengths), first) < 0
    owner = owners[order[first]]
    outer = _outer_rings(points, first, lengths, is_hole, owner)
    sequence = np.lexsort((is_hole, outer, owner))
    taken = _spread(first[sequence], lengths[sequence])
    starts = np.concatenate([[0], np.cumsum(lengths[sequence])])
    return Outlines(points[taken], starts, values[owner[sequence]], is_hole[sequence])


def _following(corners: Corners, owners: Ints) -> Ints:
    """Return for each corner the index of the next one of its ring."""
    x, y = corners.points.T
    order = np.lexsort((corners.kinds & _BELOW, y, x, owners))
    by_column = np.empty_like(order)
    by_column[order[::2]], by_column[order[1::2]] = order[1::2], order[::2]
    by_row = np.arange(len(order)) ^ 1
    return np.where(corners.kinds & _LEAVES_BY_ROW, by_row, by_column)


def _rings(following: Ints) -> tuple[Ints, Ints]:
    """Return the number of the ring of each corner, and the corner's place in it.

    In each pass, a corner looks twice as far along its ring.
    """
    count = len(following)
    first, ahead = np.arange(count), following
    while True:
        nearer = np.minimum(first, first[ahead])
        if np.array_equal(nearer, first):
            break
        first, ahead = nearer, ahead[ahead]
    is_first = first == np.arange(count)
    steps, ahead = np.where(is_first, 0, 1), np.where(is_first, first, following)
    while not np.array_equal(ahead, first):
        steps, ahead = steps + steps[ahead], ahead[ahead]
    number = np.cumsum(is_first) - 1
    ring = number[first]
    lengths = np.bincount(ring)
    return ring, (lengths[ring] - steps) % lengths[ring]


def _touching(corners: Corners, owners: Ints, ring: Ints) -> Ints:
    """Return pairs of corners at which a ring touches itself, (n, 2) indices."""
    double = np.flatnonzero(corners.kinds & _IS_DOUBLE)
    x, y = corners.points[double].T
    pairs = double[np.lexsort((x, y, owners[double]))].reshape(-1, 2)
    return np.asarray(pairs[ring[pairs[:, 0]] == ring[pairs[:, 1]]])


def _turned(points: Ints, first: Ints, lengths: Ints) -> Ints:
    """Return for each corner its part of the area of its ring."""
    after = np.arange(1, len(points) + 1)
    after[first + lengths - 1] = first
    return np.asarray(points[:, 0] * (points[after, 1] - points[:, 1]))


def _spread(first: Ints, lengths: Ints) -> Ints:
    """Return ``first[0], first[0] + 1, …`` for each of `first`, as many as `lengths` says."""
    starts = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(int(lengths.sum())) + np.repeat(first - starts, lengths))


def _outer_rings(points: Ints, first: Ints, lengths: Ints, is_hole: Array, owner: Ints) -> Ints:
    """Return for each ring the outer ring of its polygon, by its index."""
    outer = np.arange(len(first))
    outers = np.bincount(owner[~is_hole], minlength=int(owner.max()) + 1)
    only = np.zeros(len(outers), np.int64)
    only[owner[~is_hole]] = np.flatnonzero(~is_hole)
    outer[is_hole] = only[owner[is_hole]]
    # In a region of several parts, the part of a hole is that of the pixel on its left.
    is_open = is_hole & (outers[owner] > 1)
    if is_open.any():
        chosen = np.flatnonzero(np.isin(owner, owner[is_open]))
        outer[is_open] = _left_rings(points, first, lengths, chosen, owner)[is_open]
        while is_hole[outer].any():
            outer = outer[outer]
    return outer


def _left_rings(points: Ints, first: Ints, lengths: Ints, chosen: Ints, owner: Ints) -> Ints:
    """Return for the rings the ring that has the next edge on the left of their leftmost edge."""
    taken = _spread(first[chosen], lengths[chosen])
    ring = np.repeat(chosen, lengths[chosen])
    after = np.arange(1, len(taken) + 1)
    ends = np.cumsum(lengths[chosen])
    after[ends - 1] = ends - lengths[chosen]
    x, y, below = points[taken, 0], points[taken, 1], points[taken[after], 1]
    top, rows = np.minimum(y, below), np.abs(below - y)
    # Each vertical edge, pixel row by pixel row.
    row, edge_x, edge_ring = _spread(top, rows), np.repeat(x, rows), np.repeat(ring, rows)
    width, height = int(edge_x.max()) + 1, int(row.max()) + 1
    keys = (owner[edge_ring] * height + row) * width + edge_x
    order = np.argsort(keys)
    before = edge_ring[order[np.maximum(np.arange(len(order)) - 1, 0)]]
    leftmost = np.lexsort((row, edge_x, edge_ring))
    leftmost = leftmost[np.searchsorted(edge_ring[leftmost], chosen)]
    left = np.arange(len(first))
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    left[chosen] = before[position[leftmost]]
    return left


def fill_holes(labels: Array) -> Array:
    """Give the pixels of each hole to the label around it, also if another label is in the hole.

    A hole is what a label and the edge of the image don't leave open between two pixels with a common side.

    Args:
        labels: (B, Y, X, C) integers of 0 or more, 0 is background.

    Returns:
        The same shape and dtype. The labels of each image are 1..n in the order of their old numbers.

    Raises:
        ValueError: rank or dtype is another, or a label is negative.

    >>> labels = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 5]]).reshape(1, 3, 4, 1)
    >>> fill_holes(labels)[0, ..., 0].tolist()
    [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 2]]
    """
    if labels.ndim != 4 or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise ValueError(f"labels has the shape {labels.shape} and type {labels.dtype}; wanted (B, Y, X, C) labels")
    result = np.empty_like(labels)
    for item in range(labels.shape[0]):
        for channel in range(labels.shape[3]):
            result[item, ..., channel] = _filled(labels[item, ..., channel])
    return result


def _filled(image: Array) -> Array:
    from scipy import ndimage
    from skimage import measure

    values, numbers = np.unique(image, return_inverse=True)
    filled = numbers.reshape(image.shape) + (0 if values[:1] == 0 else 1)
    count = int(filled.max(initial=0))
    parts = measure.label(filled, background=0, connectivity=2)
    part_labels = np.zeros(int(parts.max(initial=0)) + 1, np.int64)
    part_labels[parts] = filled
    # A region of one part has a hole unless its Euler number is 1.
    has_parts = np.bincount(part_labels[1:], minlength=count + 1) > 1
    boxes = ndimage.find_objects(filled)
    for label in np.flatnonzero(has_parts | (euler_numbers(filled, count) != 1)).tolist():
        box = boxes[label - 1]
        filled[box][ndimage.binary_fill_holes(filled[box] == label)] = label
    is_left = np.bincount(filled.ravel(), minlength=count + 1) > 0
    is_left[0] = False
    return (np.cumsum(is_left) * is_left)[filled].astype(image.dtype)
