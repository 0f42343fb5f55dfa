"""Finds the peaks of a map."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# scikit-image has no annotations.

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
#: Places of pixels in a flattened image.
Places = npt.NDArray[np.int64]

#: Differences below this part of a value are rounding errors and don't count.
ROUNDING = np.float32(2 * np.finfo(np.float32).resolution)
#: Numbers that are compared at once. Memory is about 50 bytes for each of them.
BATCH = 1 << 19
#: Steps of a path that are compared at once with all pixels that are left.
_STEPS = 16


def h_maxima(image: Array, height: float, radius: int) -> Mask:
    """Find the peaks from which every path to a higher place descends by at least `height`.

    A path consists of steps of any length up to `radius`. So a peak within `radius` of a higher peak never counts.

    Args:
        image: (Y, X) finite float.
        height: least height of a peak, larger than 0, in the unit of the image.
        radius: length of a step in pixels, 0 or more.

    Returns:
        (Y, X) bool. All values are False if the range of the whole image is less than `height`.

    Raises:
        ValueError: the height isn't positive.

    >>> h_maxima(np.array([[0, 3, 0, 0, 0, 1, 0]]), height=2, radius=1)[0].tolist()
    [False, True, False, False, False, False, False]
    """
    from scipy import ndimage

    if height <= 0:
        raise ValueError(f"height is {height}; wanted a number above 0")
    image = np.asarray(image, np.float32)
    if image.size == 0 or np.ptp(image) < height:
        return np.zeros(image.shape, np.bool_)
    # All of the image can be reached from a peak that is less than `height` above the lowest place.
    lowest = min(image.min(), _lowered(image.max(), np.float32(height)))
    if radius < 1:
        return np.asarray(image - lowest >= np.float32(height))
    margin = min(radius, max(image.shape))
    padded = np.pad(image, margin, constant_values=-np.inf)
    near, far = _steps(radius, margin, padded.shape[1])
    peaks = _local_peaks(padded.ravel(), lowest, np.float32(height), (near, far))
    is_peak = np.zeros(padded.shape, np.bool_)
    is_peak.ravel()[peaks] = True
    owner = np.empty(padded.shape, np.int32)
    ndimage.label(is_peak, None if radius == 1 else np.ones((3, 3)), output=owner)
    areas = _Areas(padded.ravel(), owner.ravel(), np.float32(height))
    is_peak.ravel()[peaks] = areas.surviving(peaks, near, far)
    return np.array(is_peak[margin:-margin, margin:-margin])


def _lowered(values: Array, height: np.float32) -> Array:
    """Lower values by the height of a peak, and by their rounding errors."""
    return np.asarray(values - height - ROUNDING * np.abs(values))


def _steps(radius: int, margin: int, width: int) -> tuple[Places, Places]:
    """List the steps of a path, as differences of places in a flattened image of this width.

    Returns:
        Steps to neighbours, also diagonal ones, and longer steps, short ones first.
    """
    across = np.arange(-margin, margin + 1)
    square = across[:, np.newaxis] ** 2 + across**2
    rows, columns = np.nonzero((square > 0) & (square <= radius**2))
    order = np.argsort(square[rows, columns], kind="stable")
    steps = ((rows - margin) * width + columns - margin)[order]
    count = int(np.count_nonzero(square[rows, columns] <= 2))
    return steps[:count], steps[count:]


def _local_peaks(flat: Floats, lowest: np.floating[Any], height: np.float32, steps: tuple[Places, Places]) -> Places:
    """Find the pixels that no single step takes to a higher place, and a few more, which `_Areas` finds."""
    near, far = steps
    found = []
    for start in range(0, flat.size, BATCH):
        pixels = start + np.flatnonzero(flat[start : start + BATCH] - lowest >= height)
        for step in near:
            pixels = pixels[flat[pixels] - _lowered(flat[pixels + step], height) >= height]
        for first in range(0, far.size, _STEPS):
            before = pixels.size
            pixels = _not_lower(flat, pixels, far[first : first + _STEPS], height)
            # Inside of a plateau, long steps find nothing that its edge doesn't find.
            if 10 * pixels.size > 9 * before:
                break
        found.append(pixels)
    return np.concatenate(found)


def _not_lower(flat: Floats, pixels: Places, steps: Places, height: np.float32) -> Places:
    """Return the pixels that none of the steps takes to a higher place."""
    kept = []
    for first in range(0, pixels.size, BATCH // _STEPS):
        some = pixels[first : first + BATCH // _STEPS]
        around = _lowered(flat[some[:, np.newaxis] + steps].max(axis=1), height)
        kept.append(some[flat[some] - around >= height])
    return np.concatenate(kept) if kept else pixels


class _Areas:
    """The areas around peaks: all pixels that paths from a peak reach without descending by `height`.

    A peak is lost as soon as its area reaches a higher place. If two areas meet, the higher peak is such a place for
    the other one. So each pixel is in one area only, and all areas can grow at once.

    Args:
        flat: (N,) float32, the flattened image. Its border of the width of a step is -inf.
        owner: (N,) int32, the number of the peak of each pixel in an area, else 0; changed in place.
        height: by which paths may not descend.
    """

    def __init__(self, flat: Floats, owner: Labels, height: np.float32) -> None:
        self._flat, self._owner, self._height = flat, owner, height
        peaks = np.flatnonzero(owner)
        self._top = np.full(int(owner.max()) + 1, -np.inf, np.float32)
        np.maximum.at(self._top, owner[peaks], flat[peaks])
        self._is_lost = np.zeros(self._top.size, np.bool_)
        self._last = np.empty(owner.size, np.int32)
        self._equals: list[Places] = []

    def surviving(self, peaks: Places, near: Places, far: Places) -> Mask:
        """Grow all areas to their ends, and return which of the pixels of peaks are higher than what was reached."""
        numbers = self._owner[peaks]
        new = peaks
        while new.size:
            grown = []
            while new.size:
                grown.append(new)
                new = self._grow(new, near)
            # A long step leaves an area at its edge: the pixel next to it on the way is already outside.
            rim = self._distinct(np.concatenate(grown))
            own = self._owner[rim]
            new = rim[np.any(self._owner[rim[:, np.newaxis] + near] != own[:, np.newaxis], axis=1)]
            new = self._grow(new, far)
        top, is_lost = self._of_equals()
        return np.asarray(
            ~is_lost[numbers] & (self._flat[peaks] - _lowered(top[numbers], self._height) >= self._height)
        )

    def _grow(self, pixels: Places, steps: Places) -> Places:
        """Add what the steps from these pixels reach to the areas, and return it."""
        new = [pixels[:0]]
        size = max(1, BATCH // max(steps.size, 1))
        for first in range(0, pixels.size, size):
            some = pixels[first : first + size]
            some = some[~self._is_lost[self._owner[some]]]
            reached, own = (some[:, np.newaxis] + steps).ravel(), np.repeat(self._owner[some], steps.size)
            is_other = self._owner[reached] != own
            reached, own = reached[is_other], own[is_other]
            values, top = self._flat[reached], self._top[own]
            is_inside = top - values < self._height
            reached, own, values, top = reached[is_inside], own[is_inside], values[is_inside], top[is_inside]
            self._is_lost[own[top - _lowered(values, self._height) < self._height]] = True
            is_growing = ~self._is_lost[own]
            new.append(self._take(reached[is_growing], own[is_growing]))
        return np.concatenate(new)

    def _take(self, pixels: Places, own: Labels) -> Places:
        """Add pixels to areas. Where areas meet, the one with the higher peak gets the pixel."""
        taken = [pixels[:0]]
        while pixels.size:
            other = self._owner[pixels]
            meets = (other != own) & (other > 0)
            self._meet(own[meets], other[meets])
            wins = self._top[own] > self._top[other]
            pixels, own = pixels[wins], own[wins]
            self._owner[pixels] = own
            taken.append(pixels)
        return self._distinct(np.concatenate(taken))

    def _distinct(self, pixels: Places) -> Places:
        """Return each pixel once. Writing to a table is faster than sorting."""
        numbers = np.arange(pixels.size, dtype=np.int32)
        self._last[pixels] = numbers
        return np.asarray(pixels[self._last[pixels] == numbers])

    def _meet(self, first: Labels, second: Labels) -> None:
        is_lower = self._top[first] <= self._top[second]
        low, high = np.where(is_lower, first, second), np.where(is_lower, second, first)
        loses = self._top[low] - _lowered(self._top[high], self._height) < self._height
        self._is_lost[low[loses]] = True
        if not loses.all():
            self._equals.append(np.unique(np.stack([low[~loses], high[~loses]]), axis=1))

    def _of_equals(self) -> tuple[Floats, Mask]:
        """Return for each peak the highest of the equal peaks that its area met, and whether it or that one is lost."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        count = self._top.size
        low, high = np.concatenate([np.zeros((2, 0), np.int32), *self._equals], axis=1)
        met = coo_array((np.ones(low.size, np.int8), (low, high)), shape=(count, count))
        groups, group = connected_components(met, directed=False)
        top = np.full(groups, -np.inf, np.float32)
        np.maximum.at(top, group, self._top)
        is_lost = np.zeros(groups, np.bool_)
        is_lost[group[self._is_lost & (self._top == top[group])]] = True
        return top[group], self._is_lost | is_lost[group]


def local_maxima(image: Array, min_distance: int, threshold: float, *, border_px: int = 0) -> Mask:
    """Mark local maxima above a threshold.

    Args:
        image: (Y, X) finite float.
        min_distance: of two maxima that are nearer than this along each axis, in pixels, only the higher one is kept.
        threshold: a maximum is larger than this.
        border_px: width of the border that has no maxima, in pixels.

    Returns:
        (Y, X) bool.

    >>> local_maxima(np.array([[0, 3, 0, 0, 0, 1, 0]]), min_distance=1, threshold=2)[0].tolist()
    [False, True, False, False, False, False, False]
    """
    from skimage.feature import peak_local_max

    where = peak_local_max(image, min_distance=min_distance, threshold_abs=threshold, exclude_border=border_px)
    is_maximum = np.zeros(image.shape, np.bool_)
    is_maximum[tuple(where.T)] = True
    return is_maximum
