"""Finds spots, such as single molecules, with a position between the pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.processing.maxima import local_maxima

Array = npt.NDArray[Any]
Points = npt.NDArray[np.float64]

#: A normal distribution has this standard deviation for a median absolute deviation of 1.
_NOISE_OF_MAD = 1.4826
#: A response below this part of the highest one is a rounding error.
_LEAST_RESPONSE = 0.01


def points_of_maps(classes: Array, offsets: Array, threshold: float = 0.95, min_distance: int = 1) -> Points:
    """Return the spots in the outputs of a model that gives each pixel a probability and an offset.

    A spot is a local maximum of the probability. The model's offset moves it to its position between the pixels.
    Neighbouring pixels with the same probability are one spot, at the mean of their positions. The method is that of E.
    Laubscher et al., "Accurate single-molecule spot detection for image-based spatial transcriptomics with weakly
    supervised deep learning", Cell Systems 15, 475-482 (2024). The parameters are those of the contract, section 5.4.

    Args:
        classes: (Y, X, 2) float, the probabilities of background and of a spot.
        offsets: (Y, X, 2) float, the offsets along y and x from the centre of the pixel, in pixels.
        threshold: the probability of a spot is larger than this; 0..1.
        min_distance: of two spots that are nearer than this along each axis, in pixels, only the more probable one is
            kept. Pixels this close to the border have no spots.

    Returns:
        (N, 2) float64, y and x of each spot in pixels, in the order of rows. The centre of the first pixel is (0, 0).

    Raises:
        ValueError: the shapes are wrong, or a value isn't finite.

    >>> classes, offsets = np.zeros((2, 4, 5, 2))
    >>> classes[2, 3, 1] = 1
    >>> offsets[2, 3] = 0.25, -0.5
    >>> points_of_maps(classes, offsets).tolist()
    [[2.25, 2.5]]
    """
    if classes.ndim != 3 or classes.shape[-1] != 2 or offsets.shape != classes.shape:
        raise ValueError(
            f"classes and offsets have the shapes {classes.shape} and {offsets.shape}; wanted two of (Y, X, 2)"
        )
    if not (np.isfinite(classes).all() and np.isfinite(offsets).all()):
        raise ValueError("classes or offsets hold NaN or infinity; wanted finite numbers")
    is_spot = local_maxima(classes[..., 1], min_distance, threshold, border_px=min_distance)
    return _joined(is_spot, offsets[np.nonzero(is_spot)].astype(np.float64))


def points_of_blobs(image: Array, sigma_px: float = 1.5, min_snr: float = 4.0) -> Points:
    """Find bright spots of one size without a model.

    A spot is a local maximum of the negative, scale-normalised Laplacian of Gaussian, after T. Lindeberg, "Feature
    detection with automatic scale selection", International Journal of Computer Vision 30, 79-116 (1998). A parabola
    through the neighbours along each axis gives the position between the pixels.

    Args:
        image: (Y, X) finite real numbers.
        sigma_px: standard deviation of a spot in pixels, above 0. About the width at half height divided by 2.35.
        min_snr: least height of a maximum, in standard deviations of the noise. The noise is estimated from the median
            absolute deviation.

    Returns:
        (N, 2) float64, y and x of each spot in pixels, in the order of rows. Pixels at the border have no spots.

    Raises:
        ValueError: the rank isn't 2, or `sigma_px` isn't above 0.
    """
    from scipy import ndimage

    if image.ndim != 2 or sigma_px <= 0:
        raise ValueError(f"image of shape {image.shape} with sigma {sigma_px}; wanted (Y, X) and a number above 0")
    if min(image.shape) < 3:
        return np.zeros((0, 2))
    response = -(sigma_px**2) * ndimage.gaussian_laplace(image.astype(np.float64), sigma_px, mode="nearest")
    noise = _NOISE_OF_MAD * float(np.median(np.abs(response - np.median(response))))
    least = max(min_snr * noise, _LEAST_RESPONSE * float(response.max()))
    if least <= 0:
        return np.zeros((0, 2))
    is_spot = local_maxima(response, 1, least, border_px=1)
    where = np.stack(np.nonzero(is_spot), axis=-1)
    steps = (np.array([1, 0]), np.array([0, 1]))
    offsets = [_vertex(*(response[tuple((where + count * step).T)] for count in (-1, 0, 1))) for step in steps]
    return _joined(is_spot, np.stack(offsets, axis=-1))


def _joined(is_spot: npt.NDArray[np.bool_], offsets: Points) -> Points:
    """Return the points of pixels, of which neighbours are one spot at their mean; offsets are by row and column."""
    from scipy import ndimage

    spots, count = ndimage.label(is_spot, np.ones((3, 3)))
    where = np.nonzero(spots)
    points = np.stack(where, axis=-1) + offsets
    members = spots[where] - 1
    sums = [np.bincount(members, points[:, axis], count) for axis in range(2)]
    return np.asarray(np.stack(sums, axis=-1) / np.bincount(members, minlength=count)[:, np.newaxis])


def _vertex(before: Points, at: Points, after: Points) -> Points:
    """Return where a parabola through three neighbouring values is highest, relative to the middle one."""
    curvature = before - 2 * at + after
    flat = curvature >= 0
    offsets = np.where(flat, 0, (before - after) / (2 * np.where(flat, 1, curvature)))
    return np.clip(offsets, -0.5, 0.5)
