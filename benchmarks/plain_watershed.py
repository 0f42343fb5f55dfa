"""The post-processing of before, unchanged, as the reference of `benchmarks.postprocess`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import ceil, isqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import measure, segmentation
from skimage.morphology import disk, reconstruction

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.int32]

ROUNDING = 2 * float(np.finfo(np.float32).resolution)
WINDOW_PX, WINDOW_MARGIN_PX = 512, 32


def plain_deep_watershed(
    outputs: Sequence[Array],
    *,
    radius: int,
    maxima_threshold: float,
    interior_threshold: float,
    maxima_smooth: float,
    interior_smooth: float,
    small_objects_threshold: int,
) -> Labels:
    """Turn maps (1, Y, X, 1) into int32 labels of the same shape, as `deep_watershed` does for one image."""
    peaks, interior = (output[0, ..., 0] for output in outputs)
    is_seed = _h_maxima(_smooth(peaks, maxima_smooth), maxima_threshold, radius)
    seeds = np.asarray(measure.label(is_seed, connectivity=2), np.int32)
    interior = _smooth(interior, interior_smooth)
    labels = segmentation.watershed(-interior, seeds, mask=interior > interior_threshold)
    sizes = np.bincount(labels.ravel())
    labels = _renumber(np.where(sizes[labels] < small_objects_threshold, 0, labels).astype(np.int32))
    return _renumber(labels)[np.newaxis, ..., np.newaxis]


def _smooth(image: Array, sigma: float) -> Array:
    return image if sigma == 0 else np.asarray(ndimage.gaussian_filter(image, sigma, mode="nearest"), np.float32)


def _renumber(labels: Labels) -> Labels:
    is_used = np.bincount(labels.ravel()) > 0
    is_used[:1] = False
    return np.asarray(np.cumsum(is_used)[labels] * is_used[labels], np.int32)


def _h_maxima(image: Array, height: float, radius: int) -> Mask:
    """Find the peaks from which every path to a higher place descends by at least `height`, by reconstruction."""
    image = np.asarray(image, np.float32)
    if image.size == 0 or np.ptp(image) < height:
        return np.zeros(image.shape, np.bool_)
    level = image - np.float32(height) - np.float32(ROUNDING) * np.abs(image)
    # A lower bound of the height that can be reached: after the first step of a path, and at its lowest place.
    lower_bound = np.maximum(_disk_maximum(level, radius), min(image.min(), level.max()))
    is_candidate = np.asarray(image - lower_bound >= np.float32(height))
    del lower_bound
    if not is_candidate.any():
        return is_candidate
    # Paths that matter for a candidate never go below this. So areas above it that no step connects are independent.
    floor = level[is_candidate].min()
    return _rising(image, level, is_candidate, (floor, height, radius))


def _reached(ground: Array, image: Array, is_here: Mask, limits: tuple[np.float32, int]) -> Array:
    """Raise the ground to the height that paths can reach, window in windows until nothing changes.

    The result is the same as for the whole image at once, with less memory and time.

    Args:
        ground: (Y, X) heights at which paths can begin, at most `image`; changed in place.
        image: (Y, X) upper limit for the heights of paths.
        is_here: (Y, X) pixels where paths can go.
        limits: lowest height, which replaces all lower values, and the length of a step in pixels.
    """

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
    """Divide a side into parts of about equal length, each with a margin on both sides."""
    step = ceil(side / max(1, round(side / WINDOW_PX)))
    return [slice(max(start - margin, 0), start + step + margin) for start in range(0, side, step)]


def _rising(image: Array, level: Array, is_candidate: Mask, limits: tuple[np.float32, float, int]) -> Mask:
    """Return the candidates that rise by `height` above all paths from higher places, for one island at a time."""

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


def _disk_maximum(image: Array, radius: int) -> Array:
    """Find the largest value within `radius` of each pixel of a (Y, X) image, one row of the disk at a time."""

    low = image.min()
    result = np.full_like(image, low)
    length = image.shape[0]
    for dy in range(min(radius, length - 1) + 1):
        width = 2 * isqrt(radius**2 - dy**2) + 1
        rows = ndimage.maximum_filter1d(image, width, axis=1, mode="constant", cval=low)
        np.maximum(result[dy:], rows[: length - dy], out=result[dy:])
        np.maximum(result[: length - dy], rows[dy:], out=result[: length - dy])
    return result
