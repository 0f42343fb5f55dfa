"""Where are the peaks of a map?"""

from __future__ import annotations

from itertools import product
from math import ceil, isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

# scikit-image has no annotations.

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

#: Differences below a float's own rounding, relative to the value, are none.
ROUNDING = 2 * float(np.finfo(np.float32).resolution)
#: Side of the windows in which walks are followed, which take about 100 bytes a pixel, and what is added on each side.
WINDOW_PX, WINDOW_MARGIN_PX = 512, 32


def h_maxima(image: Array, height: float, radius: int) -> Mask:
    """Find the peaks that rise by `height` above all that a walk to a higher place must cross.

    A step of the walk goes anywhere within `radius`, so a peak that near a higher one never counts.

    Args:
        image: (Y, X) finite float.
        height: larger than 0, in the image's own unit.
        radius: in pixels, 0 or more.

    Returns:
        (Y, X) bool; all False where the whole image spans less than `height`.

    Raises:
        ValueError: the height isn't positive.

    >>> h_maxima(np.array([[0, 3, 0, 0, 0, 1, 0]]), height=2, radius=1)[0].tolist()
    [False, True, False, False, False, False, False]
    """
    if height <= 0:
        raise ValueError(f"height is {height}; wanted a number above 0")
    image = np.asarray(image, np.float32)
    if image.size == 0 or np.ptp(image) < height:
        return np.zeros(image.shape, np.bool_)
    level = image - np.float32(height) - np.float32(ROUNDING) * np.abs(image)
    # The first step of every walk and the lowest place of any bound from below what can be reached.
    lower_bound = np.maximum(_disk_maximum(level, radius), min(image.min(), level.max()))
    is_candidate = np.asarray(image - lower_bound >= np.float32(height))
    del lower_bound
    if not is_candidate.any():
        return is_candidate
    # No walk that could decide about a candidate goes below this, so land between which no step leads is apart.
    floor = level[is_candidate].min()
    return _rising(image, level, is_candidate, (floor, height, radius))


def _reached(ground: Array, image: Array, is_here: Mask, limits: tuple[np.float32, int]) -> Array:
    """Raise the ground by walks to it, window by window until nothing changes: as at once, in less memory and time.

    Args:
        ground: (Y, X) where walks may begin, at most `image`; changed in place.
        image: (Y, X), which walks can't be above.
        is_here: where walks may go.
        limits: what is not below counts as this, and the length of a step in pixels.
    """
    from skimage.morphology import disk, reconstruction

    floor, radius = limits
    margin = max(radius, WINDOW_MARGIN_PX)
    windows = list(product(*(_spans(side, margin) for side in ground.shape)))
    waiting = {number: None for number, window in enumerate(windows) if is_here[window].any()}
    while waiting:
        number = next(iter(waiting))
        del waiting[number]
        window = windows[number]
        top = np.where(is_here[window], np.maximum(image[window], floor), floor)
        reached = reconstruction(ground[window], top, footprint=disk(radius))
        rows, columns = np.nonzero(reached != ground[window])
        ground[window] = reached
        if rows.size:
            changed = (rows + window[0].start, columns + window[1].start)
            waiting |= {
                other: None
                for other, (down, across) in enumerate(windows)
                if other != number
                and np.any(
                    (changed[0] >= down.start)
                    & (changed[0] < down.stop)
                    & (changed[1] >= across.start)
                    & (changed[1] < across.stop)
                )
            }
    return ground


def _spans(side: int, margin: int) -> list[slice]:
    """Divide a side into about equal parts with a margin on both sides."""
    step = ceil(side / max(1, round(side / WINDOW_PX)))
    return [slice(max(start - margin, 0), start + step + margin) for start in range(0, side, step)]


def _rising(image: Array, level: Array, is_candidate: Mask, limits: tuple[np.float32, float, int]) -> Mask:
    """Which candidates rise by `height` above all that is reached from higher places; one island after the other."""
    from scipy import ndimage
    from skimage.morphology import disk

    floor, height, radius = limits
    land = ndimage.binary_dilation(image > floor, disk(radius // 2 + 1))
    islands, _ = ndimage.label(land, np.ones((3, 3)))
    is_peak = np.zeros(image.shape, np.bool_)
    for number, box in enumerate(ndimage.find_objects(islands), start=1):
        is_here = islands[box] == number
        if not (is_here & is_candidate[box]).any():
            continue
        ground = np.where(is_here, np.maximum(level[box], floor), floor)
        reached = _reached(ground, image[box], is_here, (floor, radius))
        is_peak[box] |= is_here & is_candidate[box] & (image[box] - reached >= np.float32(height))
    return is_peak


def local_maxima(image: Array, min_distance: int, threshold: float) -> Mask:
    """Mark local maxima above a threshold, at the image's border too.

    Args:
        image: (Y, X) finite float.
        min_distance: of two maxima nearer than this, in pixels along either axis, the higher one stays.
        threshold: a maximum is larger.

    Returns:
        (Y, X) bool.

    >>> local_maxima(np.array([[0, 3, 0, 0, 0, 1, 0]]), min_distance=1, threshold=2)[0].tolist()
    [False, True, False, False, False, False, False]
    """
    from skimage.feature import peak_local_max

    where = peak_local_max(image, min_distance=min_distance, threshold_abs=threshold, exclude_border=False)
    is_maximum = np.zeros(image.shape, np.bool_)
    is_maximum[tuple(where.T)] = True
    return is_maximum


def _disk_maximum(image: Array, radius: int) -> Array:
    """Find the largest value within `radius` of each pixel of a (Y, X) image, one row of the disk at a time."""
    from scipy import ndimage

    low = image.min()
    result = np.full_like(image, low)
    length = image.shape[0]
    for dy in range(min(radius, length - 1) + 1):
        width = 2 * isqrt(radius**2 - dy**2) + 1
        rows = ndimage.maximum_filter1d(image, width, axis=1, mode="constant", cval=low)
        np.maximum(result[dy:], rows[: length - dy], out=result[dy:])
        np.maximum(result[: length - dy], rows[dy:], out=result[: length - dy])
    return result
