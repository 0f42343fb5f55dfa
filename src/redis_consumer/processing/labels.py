"""Turns the outputs of a model into label images.

Each function is named after a kind of model. `pixelwise` applies a threshold to the class map of a pixel classifier.
`watershed` floods binned distances. `deep_watershed` floods a foreground map from the peaks of a distance map. All
return int32 label images with a last axis of 1. 0 is background. The labels of each batch item are 1..n without gaps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from redis_consumer.options import per_job
from redis_consumer.processing.flooding import flood
from redis_consumer.processing.maxima import h_maxima, local_maxima
from redis_consumer.processing.measure import object_areas, usual_area

# scikit-image has no annotations.

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

#: Smallest region that `watershed` keeps, in pixels.
MIN_REGION_PX = 50
#: Radius and the two sigmas, in pixels, of the run that measures objects if these are shares of their size.
FIRST_PX = (2, 1, 0.5)
_SMOOTHED_ROWS = 32
MAXIMA_ALGORITHMS = ("h_maxima", "peak_local_max")


def pixelwise(
    prediction: Array, threshold: Annotated[float, per_job] = 0.8, min_size: Annotated[int, per_job] = 50
) -> Labels:
    """Label the interior of a pixel classifier's class map.

    Args:
        prediction: (B, Y, X, C) or (Y, X, C) float. The second-last channel is the probability of a cell's interior.
            Edges come before it and background after it. A single channel is the interior.
        threshold: a pixel with a larger probability is interior; 0..1.
        min_size: regions with fewer pixels are removed.

    Returns:
        (B, Y, X, 1) or (Y, X, 1) int32. Each label is one 4-connected region.

    Raises:
        ValueError: rank or channel count is wrong, or a value isn't finite.

    >>> prediction = np.zeros((4, 4, 3), np.float32)
    >>> prediction[1:3, 1:3, 1] = 1
    >>> pixelwise(prediction, min_size=4)[..., 0].tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    _check_classes("prediction", prediction, at_least=1)
    interior = max(prediction.shape[-1] - 2, 0)

    def label_item(item: Array) -> Labels:
        return drop_small(connected(item[..., interior] > threshold, connectivity=1), min_size)

    return _each_item(prediction, label_item)


def watershed(image: Array, min_distance: int = 10, threshold_abs: Annotated[float, per_job] = 0.05) -> Labels:
    """Flood the bins of a distance classifier from the peaks of its innermost bin.

    Args:
        image: (B, Y, X, C) or (Y, X, C) float, C >= 2. Channel c is the probability of distance bin c. Bin 0 is
            background, and the last bin is the innermost part of a cell.
        min_distance: smallest distance between two seeds, in pixels.
        threshold_abs: the probability of a seed is larger than this; 0..1.

    Returns:
        (B, Y, X, 1) or (Y, X, 1) int32. Regions of fewer than 50 pixels are removed.

    Raises:
        ValueError: rank or channel count is wrong, or a value isn't finite.
    """
    _check_classes("image", image)

    def label_item(item: Array) -> Labels:
        distance = np.argmax(item, axis=-1)
        mask = distance > 0
        seeds = local_maxima(np.where(mask, item[..., -1], 0), min_distance, threshold_abs)
        return drop_small(flood(distance, connected(seeds & mask, connectivity=2), 0), MIN_REGION_PX)

    return _each_item(image, label_item)


def deep_watershed(
    outputs: Sequence[Array],
    radius: int | str = 10,
    maxima_threshold: Annotated[float, per_job] = 0.1,
    interior_threshold: Annotated[float, per_job] = 0.01,
    maxima_smooth: float | str = 0,
    interior_smooth: float | str = 1,
    maxima_index: int = 0,
    interior_index: int = -1,
    label_erosion: int = 0,
    small_objects_threshold: Annotated[int | str, per_job] = 0,
    fill_holes_threshold: Annotated[int, per_job] = 0,
    pixel_expansion: int | None = None,
    maxima_algorithm: str = "h_maxima",
    *,
    min_distance: int | None = None,
    detection_threshold: float | None = None,
    distance_threshold: float | None = None,
) -> Labels:
    """Flood one map of a model from the peaks of another map.

    Sizes can be shares of the median object of the image, as texts: ``0.15x``. Then one card works at every scale. The
    median leaves pieces and debris out, see `redis_consumer.processing.measure.usual_area`. For an image that is
    processed in parts, it is that of each part.

    Args:
        outputs: two or more (B, Y, X, C) float arrays with the same B, Y and X. Only channel 0 is used.
        radius: a peak within this distance of a higher peak doesn't count, in pixels or as a share of the diameter of
            the median object, the disc of equal area.
        maxima_threshold: least height of a peak above its surroundings (`h_maxima`), or its least value
            (`peak_local_max`).
        interior_threshold: pixels with a larger value in the interior map belong to a cell.
        maxima_smooth: sigma of the Gaussian filter for the peak map, as for `radius`; 0 for no filter.
        interior_smooth: sigma of the Gaussian filter for the interior map, as for `radius`; 0 for no filter.
        maxima_index: index of the output with the peaks (distance to the edge of the cell).
        interior_index: index of the output that is flooded (probability of foreground).
        label_erosion: number of layers of edge pixels to remove from each label.
        small_objects_threshold: labels with fewer pixels are removed; or a share of the area of the median object.
        fill_holes_threshold: holes in a label with at most this number of pixels are filled.
        pixel_expansion: number of pixels by which the interior map grows first; None or 0 for none.
        maxima_algorithm: `h_maxima` or `peak_local_max`.
        min_distance: older name of `radius`. If an older name is given, it is used.
        detection_threshold: older name of `maxima_threshold`.
        distance_threshold: older name of `interior_threshold`.

    Returns:
        (B, Y, X, 1) int32.

    Raises:
        ValueError: number, rank, shape or an index of the outputs is wrong, a value isn't finite,
            the algorithm's name is unknown, or a text is no share.

    >>> peaks, interior = np.zeros((2, 1, 5, 11, 1), np.float32)
    >>> peaks[0, 2, [2, 8], 0] = 1
    >>> interior[0, 1:4, 1:10] = 1
    >>> deep_watershed([peaks, interior], radius=2, interior_smooth=0)[0, 2, :, 0].tolist()
    [0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0]
    """
    _check_outputs(outputs, maxima_index, interior_index)
    if maxima_algorithm not in MAXIMA_ALGORITHMS:
        raise ValueError(f"maxima_algorithm is {maxima_algorithm!r}; wanted one of {', '.join(MAXIMA_ALGORITHMS)}")
    if min_distance is not None:
        radius = min_distance
    if detection_threshold is not None:
        maxima_threshold = detection_threshold
    if distance_threshold is not None:
        interior_threshold = distance_threshold
    lengths = tuple(
        _or_share(name, value)
        for name, value in (("radius", radius), ("maxima_smooth", maxima_smooth), ("interior_smooth", interior_smooth))
    )
    smallest = _or_share("small_objects_threshold", small_objects_threshold)
    how = _How(maxima_threshold, maxima_algorithm, interior_threshold, pixel_expansion)
    items = []
    for peaks, interior in zip(outputs[maxima_index], outputs[interior_index], strict=True):
        maps = (peaks[..., 0], interior[..., 0])
        labels = _label_peaks(maps, _lengths_px(maps, lengths, how), how)
        smallest_px = smallest.of(usual_area(object_areas(labels))) if isinstance(smallest, _Share) else smallest
        labels = drop_small(_erode(labels, label_erosion), smallest_px)
        items.append(_fill_holes(labels, fill_holes_threshold))
    return _stack(items, outputs[maxima_index].shape[:3])


class _Share(float):
    """A share of the median object."""

    def of(self, size: float) -> float:
        return float(self) * size


Number = float | _Share
Maps = tuple[Array, Array]


@dataclass(frozen=True)
class _How:
    """The options of `deep_watershed` that are no lengths."""

    maxima_threshold: float
    maxima_algorithm: str
    interior_threshold: float
    pixel_expansion: int | None


def _or_share(name: str, value: float | str) -> float | _Share:
    if not isinstance(value, str):
        return value
    number = value.strip().removesuffix("x")
    try:
        share = float(number) if value.strip().endswith("x") else math.nan
    except ValueError:
        share = math.nan
    if not 0 <= share < math.inf:
        raise ValueError(f"{name} is {value!r}; wanted a number, or a share of the median object, e.g. 0.15x")
    return _Share(share)


def _lengths_px(maps: Maps, lengths: Sequence[Number], how: _How) -> tuple[float, float, float]:
    """Turn the shares among radius, maxima_smooth and interior_smooth into pixels, by a first run in small lengths."""
    radius, maxima_smooth, interior_smooth = lengths
    if any(isinstance(length, _Share) for length in lengths):
        first = [small if isinstance(given, _Share) else given for given, small in zip(lengths, FIRST_PX, strict=True)]
        labels = _label_peaks(maps, (first[0], first[1], first[2]), how)
        diameter_px = 2 * math.sqrt(usual_area(object_areas(labels)) / math.pi)
        radius, maxima_smooth, interior_smooth = (
            length.of(diameter_px) if isinstance(length, _Share) else length for length in lengths
        )
    return radius, maxima_smooth, interior_smooth


def _label_peaks(maps: Maps, lengths_px: tuple[float, float, float], how: _How) -> Labels:
    """Flood a (Y, X) map from the peaks of another one."""
    peaks, interior = maps
    radius, maxima_smooth, interior_smooth = lengths_px
    seeds = _find_seeds(
        _smooth(peaks, maxima_smooth), max(round(radius), 0), how.maxima_threshold, how.maxima_algorithm
    )
    return flood(_expand(_smooth(interior, interior_smooth), how.pixel_expansion), seeds, how.interior_threshold)


def _find_seeds(peaks: Floats, radius: int, threshold: float, algorithm: str) -> Labels:
    """Number the peaks of a (Y, X) map. Seeds that touch, even at a corner, get the same number."""
    is_seed = h_maxima(peaks, threshold, radius) if algorithm == "h_maxima" else local_maxima(peaks, radius, threshold)
    return connected(is_seed, connectivity=2)


def _expand(interior: Floats, pixels: int | None) -> Floats:
    """Extend the bright values of a (Y, X) map by this number of pixels to each side, as a square."""
    from scipy import ndimage

    return np.asarray(ndimage.grey_dilation(interior, size=2 * pixels + 1), np.float32) if pixels else interior


def connected(mask: Mask, connectivity: int) -> Labels:
    """Label the regions of a mask (Y, X). Pixels touch at edges (1), or also at corners (2)."""
    from skimage import measure

    return np.asarray(measure.label(mask, connectivity=connectivity), np.int32)


def _smooth(image: Array, sigma: float) -> Floats:
    """Apply a Gaussian filter, cut at four sigma, to a (Y, X) map. Pixels at the border are repeated."""
    image = np.asarray(image, np.float32)
    if sigma == 0 or image.size == 0:
        return image
    reach = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(reach + 1) / sigma) ** 2)
    weights = (weights / (2 * weights.sum() - 1)).astype(np.float32)
    padded = np.pad(image, reach, mode="edge")
    result = np.empty_like(image)
    # A few rows at a time stay in the caches of the processor.
    for start in range(0, len(image), _SMOOTHED_ROWS):
        rows = padded[start : start + _SMOOTHED_ROWS + 2 * reach]
        result[start : start + _SMOOTHED_ROWS] = _weighted(_weighted(rows, weights).T, weights).T
    return result


def _weighted(array: Floats, weights: Floats) -> Floats:
    """Sum the rows of an array around each row, with symmetric weights from the middle; the outer rows are left out."""
    reach = len(weights) - 1
    size = len(array) - 2 * reach
    total = array[reach : reach + size] * weights[0]
    for distance, weight in enumerate(weights[1:], start=1):
        pair = array[reach - distance :][:size] + array[reach + distance :][:size]
        pair *= weight
        total += pair
    return np.asarray(total, np.float32)


def _erode(labels: Labels, rings: int) -> Labels:
    """Remove the outermost pixels of each label of a (Y, X) label image, `rings` times."""
    from skimage import segmentation

    for _ in range(rings):
        labels = np.where(segmentation.find_boundaries(labels, mode="inner"), 0, labels).astype(np.int32)
    return labels


def drop_small(labels: Labels, min_size: float) -> Labels:
    """Remove labels of fewer than `min_size` pixels, then number the others 1..n in the order of their old numbers."""
    is_kept = np.bincount(labels.ravel()) >= max(min_size, 1)
    is_kept[:1] = False
    return np.asarray(np.where(is_kept, np.cumsum(is_kept), 0).astype(np.int32)[labels])


def _fill_holes(labels: Labels, max_size: int) -> Labels:
    """Fill holes of at most `max_size` pixels with the label around them. Labels inside a hole are overwritten."""
    from scipy import ndimage

    if max_size <= 0:
        return labels
    labels = labels.copy()
    for label, box in enumerate(ndimage.find_objects(labels), start=1):
        # A label without pixels has no box.
        region = labels[box] == label if box is not None else np.zeros((0, 0), np.bool_)
        holes, _ = ndimage.label(ndimage.binary_fill_holes(region) & ~region)
        is_small = np.bincount(holes.ravel(), minlength=1) <= max_size
        is_small[0] = False
        if box is not None:
            labels[box][is_small[holes]] = label
    return drop_small(labels, 1)


def _each_item(image: Array, label_item: Callable[[Array], Labels]) -> Labels:
    if image.ndim == 3:
        return label_item(image)[..., np.newaxis]
    return _stack([label_item(item) for item in image], image.shape[:3])


def _stack(items: Sequence[Labels], shape: tuple[int, ...]) -> Labels:
    return np.stack(items)[..., np.newaxis] if items else np.zeros((*shape, 1), np.int32)


def _check_classes(name: str, array: Array, at_least: int = 2) -> None:
    if array.ndim not in (3, 4) or array.shape[-1] < at_least:
        raise ValueError(f"{name} has the shape {array.shape}; wanted (B, Y, X, C) or (Y, X, C) with C >= {at_least}")
    _check_finite(name, array)


def _check_outputs(outputs: Sequence[Array], *indices: int) -> None:
    shapes = [np.shape(output) for output in outputs]
    wanted = "wanted two or more of (B, Y, X, C) with the same B, Y, X"
    if len(shapes) < 2 or any(len(shape) != 4 or shape[3] < 1 or shape[:3] != shapes[0][:3] for shape in shapes):
        raise ValueError(f"outputs has the shapes {shapes}; {wanted}")
    for index in indices:
        if not -len(shapes) <= index < len(shapes):
            raise ValueError(f"outputs has the shapes {shapes}, which hold no output {index}")
        _check_finite(f"outputs[{index}]", outputs[index])


def _check_finite(name: str, array: Array) -> None:
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity; wanted finite numbers")
