"""Gives an object that is labelled in several planes of a z stack one label."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Objects of two neighbouring planes are one if they share at least this part of the smaller one.
LEAST_OVERLAP = 0.5


class PlaneLinker:
    """Relabels the planes of a stack one by one.

    An object keeps the label of the object below with which it shares the most pixels, if each is the best match of the
    other and they share at least half of the smaller one.

    Attributes:
        count: objects so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: Array | None = None

    def add(self, labels: Array) -> Array:
        """Return a plane with linked labels.

        >>> linker = PlaneLinker()
        >>> linker.add(np.array([[1, 1, 0, 0]])).tolist(), linker.add(np.array([[0, 2, 0, 1]])).tolist()
        ([[1, 1, 0, 0]], [[0, 1, 0, 2]])

        Args:
            labels: (Y, X) integers; 0 is background.

        Returns:
            (Y, X) int32.
        """
        values, index = np.unique(labels, return_inverse=True)
        index = index.reshape(labels.shape)
        table = np.zeros(len(values), np.int32)
        if self._before is not None:
            table = _links(self._before, index, len(values), is_object=values > 0)
        for place in np.flatnonzero((values > 0) & (table == 0)):
            self.count += 1
            table[place] = self.count
        self._before = table[index]
        return self._before


def _links(before: Array, index: Array, count: int, *, is_object: Array) -> Array:
    """The label of `before` for each of `count` objects; 0 for none."""
    width = int(before.max(initial=0)) + 1
    both, shared = np.unique(before.astype(np.int64) * count + index, return_counts=True)
    below, here = both // count, both % count
    areas_below, areas_here = np.bincount(before.ravel(), minlength=width), np.bincount(index.ravel(), minlength=count)
    smaller = np.minimum(areas_below[below], areas_here[here])
    is_link = (below > 0) & is_object[here] & (shared >= LEAST_OVERLAP * smaller)
    below, here, shared = below[is_link], here[is_link], shared[is_link]
    best_here, best_below = np.zeros(count, np.int64), np.zeros(width, np.int64)
    np.maximum.at(best_here, here, shared)
    np.maximum.at(best_below, below, shared)
    table = np.zeros(count, np.int32)
    taken: set[int] = set()
    for low, high, pixels in zip(below, here, shared, strict=True):
        if pixels == best_here[high] == best_below[low] and low not in taken and not table[high]:
            table[high] = low
            taken.add(low)
    return table
