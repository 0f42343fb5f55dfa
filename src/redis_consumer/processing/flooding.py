"""Floods a map from seeds.

Each pixel belongs to the seed or the summit that the steepest way up leads to. A summit without a seed joins the
neighbour across its highest pass. This gives the regions of a flood that takes one pixel after the other, highest
first, without a queue of pixels (Meyer, "Topographic distance and watershed lines", Signal Processing 38, 1994).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.processing.maxima import Floats, Labels, Mask

Array = npt.NDArray[Any]

#: Pixels that are compared at once, few enough for the caches of a processor.
BATCH = 1 << 16
#: Rows down and columns to the right of the neighbours of a pixel.
_SIDES = ((-1, 0), (0, -1), (0, 1), (1, 0))


def flood(image: Array, seeds: Labels, threshold: float) -> Labels:
    """Extend seeds over the bright part of a map.

    A pixel gets the label of the seed whose flood arrives first when floods take brighter pixels first. On a plateau,
    this is the nearest seed. Neighbours are the four pixels at the sides.

    Args:
        image: (Y, X) finite numbers, compared as float32.
        seeds: (Y, X) labels from 0; 0 is no seed.
        threshold: only pixels with a larger value are flooded.

    Returns:
        (Y, X) int32; 0 where the image isn't above the threshold or no flood arrives.

    >>> flood(np.array([[9, 8, 3, 4, 9, 1, 5]]), np.array([[1, 0, 0, 0, 2, 0, 0]]), threshold=2).tolist()
    [[1, 1, 1, 2, 2, 0, 0]]
    """
    padded = np.pad(np.asarray(image, np.float32), 1, constant_values=-np.inf)
    owner = np.pad(np.asarray(seeds, np.int32), 1)
    owner[~(padded > threshold)] = 0
    if owner.any():
        _Flood(padded, owner, threshold).run()
    return np.array(owner[1:-1, 1:-1])


class _Flood:
    """A flood of a padded map.

    Args:
        padded: (y, x) float32 with a border of -inf.
        owner: (y, x) int32, the seeds; changed in place into the labels.
        threshold: only pixels with a larger value are flooded.
    """

    def __init__(self, padded: Floats, owner: Labels, threshold: float) -> None:
        self._padded, self._owner, self._threshold = padded, owner, threshold
        self._flat = padded.ravel()
        self._seeds = int(owner.max())

    def run(self) -> None:
        """Flood the map."""
        summits = self._owner_of_summits(*self._ways_up())
        if summits > self._seeds:
            joined = self._join(summits, *self._passes())
            for rows in self._bands():
                self._owner[rows] = joined[self._owner[rows]]

    def _bands(self) -> Iterator[slice]:
        """Rows within the border, some at a time."""
        height, width = self._padded.shape
        step = max(1, BATCH // width)
        return (slice(start, min(start + step, height - 1)) for start in range(1, height - 1, step))

    def _shifted(self, array: Array, rows: slice, side: tuple[int, int] = (0, 0)) -> Array:
        """The pixels of some rows within the border, or those beside them."""
        down, right = side
        return array[rows.start + down : rows.stop + down, 1 + right : array.shape[1] - 1 + right]

    def _ways_up(self) -> tuple[Labels, Mask]:
        """Find for each pixel the place of its brightest neighbour.

        Returns:
            (y, x) places in the flattened map, its own at a summit and a seed; and whether the pixel is part of a
            summit without a seed.
        """
        width = self._padded.shape[1]
        up = np.arange(self._padded.size, dtype=np.int32).reshape(-1, width)
        is_summit = np.zeros(self._padded.shape, np.bool_)
        for rows in self._bands():
            values = self._shifted(self._padded, rows)
            highest, way = values.copy(), np.zeros(values.shape, np.int32)
            for side in _SIDES:
                beside = self._shifted(self._padded, rows, side)
                np.copyto(way, side[0] * width + side[1], where=beside > highest)
                np.maximum(highest, beside, out=highest)
            is_free = (values > self._threshold) & (self._shifted(self._owner, rows) == 0)
            self._shifted(is_summit, rows)[...] = is_free & (way == 0)
            self._shifted(up, rows)[...] += way * is_free
        self._cross_plateaus(up.ravel(), is_summit.ravel())
        return up, is_summit

    def _cross_plateaus(self, up: Labels, is_summit: Mask) -> None:
        """Lead each pixel of a plateau to the nearest one with a way up or a seed, ring by ring."""
        new = np.flatnonzero(is_summit)
        steps = [down * self._padded.shape[1] + right for down, right in _SIDES]
        for step in steps:
            beside = new + step
            # Seen from the plateau: its neighbours of the same height that aren't part of the summit.
            is_edge = (self._flat[beside] == self._flat[new]) & ~is_summit[beside]
            up[new[is_edge]] = beside[is_edge]
        new = new[up[new] != new]
        while new.size:
            is_summit[new] = False
            found = []
            for step in steps:
                beside = new + step
                is_next = is_summit[beside] & (self._flat[beside] == self._flat[new]) & (up[beside] == beside)
                up[beside[is_next]] = new[is_next]
                found.append(beside[is_next])
            new = np.concatenate(found)

    def _owner_of_summits(self, up: Labels, is_summit: Mask) -> int:
        """Give each pixel the number of its seed or summit; those of summits follow those of seeds.

        Returns:
            The largest number.
        """
        from scipy import ndimage

        numbers = np.empty(up.shape, np.int32)
        count = int(ndimage.label(is_summit, output=numbers))
        numbers += self._seeds
        np.copyto(self._owner, numbers, where=is_summit)
        owner, ways = self._owner.ravel(), up.ravel()
        for start in range(0, ways.size, BATCH):
            pixels = start + np.flatnonzero(self._flat[start : start + BATCH] > self._threshold)
            moving, place = pixels, ways[pixels]
            while moving.size:
                further = ways[place]
                is_moving = further != place
                moving, place = moving[is_moving], further[is_moving]
                ways[moving] = place
            owner[pixels] = owner[ways[pixels]]
        return self._seeds + count

    def _passes(self) -> tuple[Labels, Labels, Floats]:
        """Find the pairs of pixels where a summit without a seed borders on another owner, and their lower values."""
        found = []
        for rows in self._bands():
            for side in _SIDES[2:]:
                own, other = self._shifted(self._owner, rows), self._shifted(self._owner, rows, side)
                is_pass = (own != other) & (np.minimum(own, other) > 0) & (np.maximum(own, other) > self._seeds)
                values, beside = self._shifted(self._padded, rows), self._shifted(self._padded, rows, side)
                found.append((own[is_pass], other[is_pass], np.minimum(values[is_pass], beside[is_pass])))
        first, second, height = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return first, second, height

    def _join(self, count: int, first: Labels, second: Labels, height: Floats) -> Labels:
        """Let each summit without a seed join the neighbour across its highest pass, again and again.

        Returns:
            The seed of each owner; 0 for a summit that no seed is connected with.
        """
        joined = np.arange(count + 1, dtype=np.int32)
        while first.size:
            ends, others = np.concatenate([first, second]), np.concatenate([second, first])
            numbers = np.tile(np.arange(first.size), 2)
            highest = np.full(count + 1, -np.inf, np.float32)
            np.maximum.at(highest, ends, np.tile(height, 2))
            is_best = (np.tile(height, 2) == highest[ends]) & (ends > self._seeds)
            # Of equal passes the first one counts for both sides, so that no ring of summits can form.
            chosen = np.full(count + 1, first.size)
            np.minimum.at(chosen, ends[is_best], numbers[is_best])
            is_best &= numbers == chosen[ends]
            target = np.arange(count + 1, dtype=np.int32)
            target[ends[is_best]] = others[is_best]
            # Two summits that choose each other become one.
            is_mutual = (target[target] == np.arange(count + 1)) & (target > np.arange(count + 1))
            target[is_mutual] = np.flatnonzero(is_mutual)
            while not np.array_equal(further := target[target], target):
                target = further
            joined = target[joined]
            first, second = target[first], target[second]
            is_open = (first != second) & ((first > self._seeds) | (second > self._seeds))
            first, second, height = first[is_open], second[is_open], height[is_open]
        joined[joined > self._seeds] = 0
        return joined
