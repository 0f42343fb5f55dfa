"""Runs functions that need the whole image on an image that is processed in parts.

The statistics are computed from a sample that is spread over the whole image. Then the function is applied part by
part. So the result doesn't depend on how the image is cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import InvalidJob, ModelMismatch
from redis_consumer.processing.blocks import Window
from redis_consumer.processing.equalization import fit_equalization
from redis_consumer.processing.normalization import EPSILON

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Change = Callable[[Array, Window], Floats]
"""Changes a part (1, y, x, C) that shows a window of the image, at any scale."""

#: Largest number of pixels of a plane in a sample. With this number, the error of a percentile is 0.001 percentiles.
MAX_SAMPLE_PX = 1 << 22
#: Numbers that are changed at once.
_STRIP_NUMBERS = 1 << 20


class Sampler:
    """Collects every n-th row and column of an image that is read in parts.

    Args:
        shape: (Y, X, C) of the image.
        max_px: largest number of pixels of a plane in the sample.

    Attributes:
        shape_yx: sides of the image in pixels.
        step: n.
        sample: (1, y, x, C) float32, complete after all parts were added. For a small image it is the whole image.
    """

    def __init__(self, shape: tuple[int, int, int], max_px: int = MAX_SAMPLE_PX) -> None:
        height, width, channels = shape
        self.shape_yx = (height, width)
        self.step = max(1, math.isqrt(height * width // max_px))
        while math.ceil(height / self.step) * math.ceil(width / self.step) > max_px:
            self.step += 1
        self.sample = np.empty((1, math.ceil(height / self.step), math.ceil(width / self.step), channels), np.float32)

    def add(self, window: Window, part: Array) -> None:
        """Copy the pixels for the sample from a part (1, y, x, C) of this window."""
        (top, below), (left, right) = (self._taken(side) for side in window)
        rows, columns = (slice(-side.start % self.step, None, self.step) for side in window)
        self.sample[:, top:below, left:right] = part[:, rows, columns]

    def _taken(self, side: slice) -> tuple[int, int]:
        return -(-side.start // self.step), -(-side.stop // self.step)


@dataclass(frozen=True)
class _Sample:
    """The sample from which a function computes its statistics.

    Attributes:
        pixels: (1, y, x, C) pixels of the sample.
        shape_yx: sides of the whole image in pixels.
        pitch_px: distance of two pixels of the sample, in pixels of the image that the function gets.
    """

    pixels: Array
    shape_yx: tuple[int, int]
    pitch_px: float


def can_fit(names: Sequence[str]) -> bool:
    """Return whether all functions of these names can be applied part by part."""
    return all(name.strip().lower() in FITS for name in names if name.strip())


def fit(
    names: Sequence[str], sampler: Sampler, options: Mapping[str, Mapping[str, Any]], *, scale: float = 1.0
) -> Change:
    """Prepare the functions before the model, with statistics of the whole image.

    Args:
        names: names of functions, see `FITS`.
        sampler: the sampler, to which all parts of the image were added.
        options: keyword arguments for a function, by its lower-case name.
        scale: factor by which the parts are resized before the functions are applied.

    Returns:
        A function that applies all functions to a part and returns (1, y, x, C) float32.

    Raises:
        InvalidJob: a function can't be applied part by part.
        ModelMismatch: a function doesn't accept its options.
    """
    whole = (slice(0, sampler.shape_yx[0]), slice(0, sampler.shape_yx[1]))
    pixels: Array = sampler.sample
    changes: list[Change] = []
    for key in filter(None, (name.strip().lower() for name in names)):
        if key not in FITS:
            raise InvalidJob(
                f"function {key}: can't be applied to an image that is larger than MAX_IMAGE_HEIGHT x MAX_IMAGE_WIDTH; "
                f"give one of {', '.join(sorted(FITS))} as preprocess_function, or a smaller image"
            )
        try:
            change = FITS[key](_Sample(pixels, sampler.shape_yx, sampler.step * scale), **options.get(key, {}))
        except (TypeError, ValueError) as error:
            raise ModelMismatch(f"function {key}: {error}; correct the options of the function") from error
        pixels = change(pixels, whole)
        changes.append(change)

    def apply(part: Array, window: Window) -> Floats:
        for change in changes:
            part = change(part, window)
        return np.asarray(part, np.float32)

    return apply


def _fit_normalize(sample: _Sample) -> Change:
    planes = sample.pixels.astype(np.float64)
    mean, spread = (np.asarray(take(planes, axis=(0, 1, 2)), np.float64) for take in (np.mean, np.std))
    return _in_strips(lambda part: (part - mean) / (spread + EPSILON))


def _fit_percentile_normalize(sample: _Sample, low: float = 1.0, high: float = 99.8) -> Change:
    if not 0 <= low < high <= 100:
        raise ValueError(f"low and high are {low} and {high}; wanted 0 <= low < high <= 100")
    pixels = sample.pixels
    bottom, top = np.percentile(pixels.astype(np.float64), [low, high], axis=(0, 1, 2))
    is_flat = bottom == top
    bottom = np.where(is_flat, pixels.min(axis=(0, 1, 2)), bottom)
    top = np.where(is_flat, pixels.max(axis=(0, 1, 2)), top)
    width = np.where(top == bottom, np.inf, top - bottom)
    return _in_strips(lambda part: np.clip((part - bottom) / width, 0, 1))


def _fit_percentile_threshold(sample: _Sample, percentile: float = 99.9) -> Change:
    caps = []
    for channel in range(sample.pixels.shape[-1]):
        plane = sample.pixels[..., channel]
        values = plane[plane != 0].astype(np.float64)
        caps.append(np.percentile(values, percentile) if values.size else np.inf)
    return _in_strips(lambda part: np.minimum(part, np.asarray(caps), dtype=np.float64))


def _fit_equalization(sample: _Sample, kernel_size: int | None = None) -> Change:
    kernel_px = None if kernel_size is None else kernel_size / sample.pitch_px
    fitted = [
        fit_equalization(sample.pixels[0, ..., channel], sample.shape_yx, kernel_px)
        for channel in range(sample.pixels.shape[-1])
    ]

    def change(part: Array, window: Window) -> Floats:
        result = np.empty(part.shape, np.float32)
        for channel, one in enumerate(fitted):
            result[0, ..., channel] = one.apply(part[0, ..., channel], window)
        return result

    return change


def _in_strips(change: Callable[[Array], Array]) -> Change:
    """A change that looks at each pixel alone: some rows at a time, since it makes arrays of float64."""

    def apply(part: Array, _: Window) -> Floats:
        result = np.empty(part.shape, np.float32)
        rows = max(1, _STRIP_NUMBERS // max(1, part.shape[2] * part.shape[3]))
        for start in range(0, part.shape[1], rows):
            result[:, start : start + rows] = change(part[:, start : start + rows])
        return result

    return apply


#: For each function of `redis_consumer.processing.normalization` the function that prepares it from a sample.
FITS: Mapping[str, Callable[..., Change]] = {
    "normalize": _fit_normalize,
    "percentile_normalize": _fit_percentile_normalize,
    "percentile_threshold": _fit_percentile_threshold,
    "histogram_normalization": _fit_equalization,
    "phase_preprocess": _fit_equalization,
}
