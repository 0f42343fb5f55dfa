"""Runs functions that need the whole image on an image that is processed in parts.

The statistics are computed from a sample that is spread over the whole image. Then the function is applied part by
part. So the result doesn't depend on how the image is cut.

Contrast is equalised as by `histogram_normalization`: contrast-limited adaptive histogram equalisation after
K. Zuiderveld (Graphics Gems IV, 1994). The histograms of the neighbourhoods come from the sample.
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
from redis_consumer.processing.normalization import CLAHE_BINS, CLAHE_CLIP_LIMIT, CLAHE_KERNEL_FRACTION, EPSILON

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


@dataclass(frozen=True)
class Equalization:
    """Parameters to equalise one plane.

    Attributes:
        shape_yx: sides of the whole plane in pixels.
        span: smallest and largest value.
        maps: (rows, columns, bins), the equalised value of each bin in each neighbourhood, 0..1.
        kernel_yx: rows and columns of a neighbourhood, as parts of the sides of the whole plane.
        result_span: smallest and largest equalised value, which are mapped to 0 and 1.
    """

    shape_yx: tuple[int, int]
    span: tuple[float, float]
    maps: Floats
    kernel_yx: tuple[float, float]
    result_span: tuple[float, float] = (0.0, 1.0)

    def apply(self, part: Array, window: Window) -> Floats:
        """Equalise a part (y, x) that shows this window of the plane, at any scale. Return float32 in 0..1."""
        low, high = self.span
        if low == high:
            return np.zeros(part.shape, np.float32)
        bins = _bins(part, low, high)
        (above, below, down), (left, right, across) = (
            _neighbours(count, side, whole, kernel, known)
            for count, side, whole, kernel, known in zip(
                part.shape, window, self.shape_yx, self.kernel_yx, self.maps.shape, strict=False
            )
        )
        result = np.zeros(part.shape, np.float32)
        for rows, row_weights in ((above, 1 - down), (below, down)):
            for columns, column_weights in ((left, 1 - across), (right, across)):
                result += self.maps[rows[:, None], columns, bins] * (row_weights[:, None] * column_weights)
        low, high = self.result_span
        return np.asarray(np.clip((result - low) / max(high - low, 1e-6), 0, 1), np.float32)


def fit_equalization(plane: Array, shape_yx: tuple[int, int], kernel_px: float | None = None) -> Equalization:
    """Compute the histograms of neighbourhoods from a sample.

    Args:
        plane: (y, x), every n-th pixel of the whole plane.
        shape_yx: sides of the whole plane in pixels.
        kernel_px: side of a neighbourhood in pixels of `plane`; None for an eighth of each side.
    """
    sides = [
        max(math.floor(side / CLAHE_KERNEL_FRACTION if kernel_px is None else kernel_px), 1) for side in plane.shape
    ]
    span = (float(plane.min()), float(plane.max()))
    counts = [math.ceil(side / kernel) for side, kernel in zip(plane.shape, sides, strict=True)]
    kernel_yx = (sides[0] / plane.shape[0], sides[1] / plane.shape[1])
    if span[0] == span[1]:
        return Equalization(shape_yx, span, np.zeros((*counts, CLAHE_BINS), np.float32), kernel_yx)
    missing = [(0, count * kernel - side) for count, kernel, side in zip(counts, sides, plane.shape, strict=True)]
    bins = np.pad(_bins(plane, *span), missing, mode="reflect")
    rows, columns = (np.arange(side) // kernel for side, kernel in zip(bins.shape, sides, strict=True))
    where = (rows[:, None] * counts[1] + columns) * CLAHE_BINS + bins
    histograms = np.bincount(where.ravel(), minlength=math.prod(counts) * CLAHE_BINS).reshape(*counts, CLAHE_BINS)
    limit = max(int(CLAHE_CLIP_LIMIT * math.prod(sides)), 1)
    maps = np.cumsum(_limited(histograms, limit), axis=-1) / math.prod(sides)
    fitted = Equalization(shape_yx, span, np.minimum(maps, 1).astype(np.float32), kernel_yx)
    result = fitted.apply(plane, (slice(0, shape_yx[0]), slice(0, shape_yx[1])))
    return Equalization(shape_yx, span, fitted.maps, kernel_yx, (float(result.min()), float(result.max())))


def _bins(values: Array, low: float, high: float) -> npt.NDArray[np.intp]:
    scaled = (values.astype(np.float32) - np.float32(low)) * np.float32(CLAHE_BINS / (high - low))
    return np.asarray(np.clip(scaled, 0, CLAHE_BINS - 1), np.intp)


def _limited(histograms: Array, limit: int) -> Array:
    """Cut histograms at a limit and spread the excess evenly over the bins below it.

    The amount for each bin is found by bisection, so that the sum stays the same.
    """
    totals = histograms.sum(axis=-1, keepdims=True)
    least, most = np.zeros(totals.shape), np.full(totals.shape, float(limit))
    for _ in range(40):
        middle = (least + most) / 2
        is_enough = np.minimum(histograms + middle, limit).sum(axis=-1, keepdims=True) >= totals
        least, most = np.where(is_enough, least, middle), np.where(is_enough, middle, most)
    return np.asarray(np.minimum(histograms + most, limit))


def _neighbours(
    count: int, side: slice, whole: int, kernel: float, known: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
    """Return for each pixel along an axis the two nearest neighbourhoods, and the weight of the second one."""
    centres = (side.start + (np.arange(count) + 0.5) * (side.stop - side.start) / count) / whole
    place = centres / kernel - 0.5
    first = np.floor(place).astype(np.intp)
    weight = (place - first).astype(np.float32)
    return np.clip(first, 0, known - 1), np.clip(first + 1, 0, known - 1), weight
