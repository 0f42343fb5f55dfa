"""Normalises the intensities of images for a model.

All functions take (B, Y, X, C) arrays and return float32 arrays of this layout. Each plane (one channel of one batch
item) is processed independently. They use the whole plane, so they run before an image is cut into tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

# scikit-image has no annotations.

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

#: Avoids a division by zero for a constant plane.
EPSILON = 1e-7
CLAHE_CLIP_LIMIT = 0.01
CLAHE_BINS = 256
#: By default, the kernel of CLAHE is a side divided by this number.
CLAHE_KERNEL_FRACTION = 8


def normalize(image: Array) -> Floats:
    """Scale each plane to mean 0 and standard deviation 1.

    Args:
        image: (B, Y, X, C), any real dtype. An array of another rank is normalised as a whole, like in 2020.

    Returns:
        float32 of the shape of `image`. A constant plane becomes zeros.

    >>> normalize(np.array([1, 3]).reshape(1, 1, 2, 1)).ravel().tolist()
    [-0.9999998807907104, 0.9999998807907104]
    """

    def standardize(plane: Array) -> Array:
        return np.asarray((plane - plane.mean()) / (plane.std() + EPSILON))

    if image.ndim != 4:
        return standardize(image.astype(np.float64)).astype(np.float32) if image.size else image.astype(np.float32)
    return _each_plane(image, standardize)


def histogram_normalization(image: Array, kernel_size: int | None = None) -> Floats:
    """Stretch each plane to 0..1, then equalise its contrast by neighbourhood (CLAHE).

    Args:
        image: (B, Y, X, C), any real dtype.
        kernel_size: side of the neighbourhood in pixels; None for an eighth of each side of the plane.

    Returns:
        (B, Y, X, C) float32 in 0..1; a constant plane becomes zeros.

    Raises:
        ValueError: the rank isn't 4.
    """

    def equalize(plane: Array) -> Array:
        from skimage.exposure import equalize_adapthist

        if plane.min() == plane.max():
            return np.zeros(plane.shape)
        kernel = kernel_size or [max(side // CLAHE_KERNEL_FRACTION, 1) for side in plane.shape]
        return np.asarray(
            equalize_adapthist(_as_uint16(plane), kernel_size=kernel, clip_limit=CLAHE_CLIP_LIMIT, nbins=CLAHE_BINS)
        )

    # No one holds a plane as float64 while it is equalised: that takes four times its bytes by itself.
    return _each_plane(image, equalize, np.asarray)


def percentile_normalize(image: Array, low: float = 1.0, high: float = 99.8) -> Floats:
    """Map two percentiles of each plane to 0 and 1 and clip values outside.

    Unlike the smallest and largest value, percentiles hardly change with a few hot pixels or over-exposed cells.

    Args:
        image: (B, Y, X, C), any real dtype.
        low: percentile that becomes 0; 0..100.
        high: percentile that becomes 1; 0..100, larger than `low`.

    Returns:
        (B, Y, X, C) float32 in 0..1. A constant plane becomes zeros. If both percentiles are equal, as in a nearly
        empty plane, the smallest and largest value are used instead.

    Raises:
        ValueError: the rank isn't 4, or the percentiles aren't in order.

    >>> image = np.array([0, 1, 2, 3, 1000]).reshape(1, 1, 5, 1)
    >>> percentile_normalize(image, low=25, high=75).ravel().tolist()
    [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    if not 0 <= low < high <= 100:
        raise ValueError(f"low and high are {low} and {high}; wanted 0 <= low < high <= 100")

    def stretch(plane: Array) -> Array:
        bottom, top = np.percentile(plane, [low, high])
        if bottom == top:
            bottom, top = plane.min(), plane.max()
        return np.zeros_like(plane) if bottom == top else _stretch(plane, bottom, top)

    return _each_plane(image, stretch)


def percentile_threshold(image: Array, percentile: float = 99.9) -> Floats:
    """Limit each plane to a percentile of its non-zero pixels.

    Args:
        image: (B, Y, X, C), any real dtype.
        percentile: 0..100.

    Returns:
        (B, Y, X, C) float32. A plane of zeros doesn't change.

    Raises:
        ValueError: the rank isn't 4.

    >>> percentile_threshold(np.array([0, 2, 4, 600]).reshape(1, 1, 4, 1), percentile=50).ravel().tolist()
    [0.0, 2.0, 4.0, 4.0]
    """

    def cap(plane: Array) -> Array:
        values = plane[plane != 0]
        return np.minimum(plane, np.percentile(values, percentile)) if values.size else plane

    return _each_plane(image, cap)


def _as_uint16(plane: Array) -> npt.NDArray[np.uint16]:
    """Stretch a plane to the whole range."""
    from skimage.util import img_as_uint

    wide = plane.astype(np.float64)
    return np.asarray(img_as_uint(_stretch(wide, wide.min(), wide.max())), np.uint16)


def _stretch(plane: Array, low: float, high: float) -> Array:
    return np.clip((plane - low) / (high - low), 0, 1)


def _as_float64(plane: Array) -> Array:
    return plane.astype(np.float64)


def _each_plane(
    image: Array, change: Callable[[Array], Array], prepare: Callable[[Array], Array] = _as_float64
) -> Floats:
    """Apply a function to each (Y, X) plane, by default as float64. A plane without pixels doesn't change."""
    if image.ndim != 4:
        raise ValueError(f"image has the shape {image.shape}; wanted (B, Y, X, C)")
    result = np.empty(image.shape, np.float32)
    if image.size:
        for b, c in np.ndindex(image.shape[0], image.shape[3]):
            # Sums over millions of float32 pixels lose digits, and extreme values overflow.
            result[b, :, :, c] = change(prepare(image[b, :, :, c]))
    return result
