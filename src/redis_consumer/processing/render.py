"""Draws label images as pictures: outlines over an image, differences and thumbnails."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Picture = npt.NDArray[np.uint8]

YELLOW = (255, 214, 10)
BLUE = (64, 156, 255)
RED = (255, 40, 40)
#: Percentiles of the image that become black and white, so that hot pixels don't darken the picture.
STRETCH = (0.5, 99.7)
#: Exponent for the grey levels. A value below 1 makes dim cells brighter.
GAMMA = 0.6


def overlay_outlines(
    image: Array, labels: Array, *, color: tuple[int, int, int] = YELLOW, thickness: int = 1
) -> Picture:
    """Draw the outline of every region over an image. Touching cells have separate lines.

    Args:
        image: (Y, X) of any real dtype, shown from its 0.5th to its 99.7th percentile.
        labels: (Y, X) integers, 0 is background.
        color: red, green and blue of the outlines, 0..255.
        thickness: width of a line in pixels. Lines are inside their region.

    Returns:
        (Y, X, 3) uint8.

    Raises:
        ValueError: the arrays aren't two images of the same shape.
    """
    if image.ndim != 2 or image.shape != labels.shape:
        raise ValueError(f"image of shape {image.shape} and labels of {labels.shape}: need two (y, x) of one size")
    picture = np.repeat(stretch(image)[..., np.newaxis], 3, axis=-1)
    picture[_outlines(labels, thickness)] = color
    return picture


def mark_points(
    image: Array, points: Array, *, color: tuple[int, int, int] = RED, arm_px: tuple[int, int] = (2, 4)
) -> Picture:
    """Draw a cross around each point over an image. Its middle is open, so that the pixels of the point can be seen.

    Args:
        image: (Y, X) of any real dtype, shown from its 0.5th to its 99.7th percentile.
        points: (N, 2), y and x of each point in pixels.
        color: red, green and blue of the crosses, 0..255.
        arm_px: distances from the point at which an arm of a cross begins and ends, in pixels.

    Returns:
        (Y, X, 3) uint8.
    """
    picture = np.repeat(stretch(image)[..., np.newaxis], 3, axis=-1)
    places = np.rint(points).astype(np.intp)
    for length in range(arm_px[0], arm_px[1] + 1):
        for step in ((length, 0), (-length, 0), (0, length), (0, -length)):
            arm = places + step
            arm = arm[((arm >= 0) & (arm < image.shape)).all(axis=-1)]
            picture[arm[:, 0], arm[:, 1]] = color
    return picture


def show_difference(image: Array, before: Array, after: Array) -> Picture:
    """Draw two label images of the same image over it: outlines of both, and pixels with different labels in red.

    Args:
        image: (Y, X) of any real dtype.
        before: (Y, X) labels, 0 is background, with yellow outlines.
        after: (Y, X) labels, 0 is background, with blue outlines over the yellow ones.

    Returns:
        (Y, X, 3) uint8.

    Raises:
        ValueError: as `overlay_outlines`.
    """
    picture = overlay_outlines(image, before)
    picture[_outlines(after, 1)] = BLUE
    picture[before != after] = RED
    return picture


def stretch(image: Array) -> Picture:
    """Map an image of finite values to grey levels between two percentiles. Dim values are made brighter.

    >>> stretch(np.zeros((2, 2))).tolist()
    [[0, 0], [0, 0]]
    """
    if image.size == 0:
        return np.zeros(image.shape, np.uint8)
    low, high = np.percentile(image, STRETCH)
    if high <= low:  # nearly all pixels are equal: use the whole range
        low, high = float(image.min()), float(image.max())
    span = high - low if high > low else 1.0
    levels = np.clip((image.astype(np.float32) - low) / span, 0, 1) ** GAMMA
    grey: Picture = (levels * 255).astype(np.uint8)
    return grey


def thumbnail(picture: Picture, max_side_px: int) -> Picture:
    """Shrink a picture (Y, X) or (Y, X, 3) uint8 so that no side is longer than `max_side_px`. Never enlarge it."""
    from PIL import Image

    small = Image.fromarray(picture)
    small.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
    return np.asarray(small)


def to_png_bytes(picture: Picture) -> bytes:
    """Encode a picture (Y, X) or (Y, X, 3) uint8 as PNG."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _outlines(labels: Array, thickness: int) -> npt.NDArray[np.bool_]:
    """Return the pixels of regions that have another value within `thickness` pixels, diagonals included."""
    from scipy.ndimage import maximum_filter, minimum_filter

    side = 2 * thickness + 1
    differs = minimum_filter(labels, side, mode="nearest") != maximum_filter(labels, side, mode="nearest")
    outlines: npt.NDArray[np.bool_] = differs & (labels != 0)
    return outlines
