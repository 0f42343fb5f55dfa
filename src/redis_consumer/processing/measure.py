"""Measures size, position and brightness of the regions of a label image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Objects that are narrower than this share of the usual diameter are pieces or debris.
LEAST_SHARE = 0.5


def measure_labels(labels: Array, intensity: Array | None = None) -> dict[str, Array]:
    """Measure every region of a label image.

    Args:
        labels: (Y, X) integers, 0 is background; labels can have gaps.
        intensity: (Y, X) real image of the same field of view.

    Returns:
        Columns with one row for each label, in rising order: ``label``, ``area_px``, ``centroid_y_px``,
        ``centroid_x_px``, ``top_px``, ``left_px``, ``bottom_px``, ``right_px``, and with `intensity` also
        ``mean_intensity``. ``bottom_px`` and ``right_px`` are one past the region, like the end of a slice.

    Raises:
        ValueError: the arrays aren't two images of the same shape, or `labels` has values that aren't integers of 0 or
            more.

    >>> table = measure_labels(np.array([[0, 5, 5], [0, 5, 0]]))
    >>> table["label"].tolist(), table["area_px"].tolist(), table["right_px"].tolist()
    ([5], [3], [3])
    """
    _check(labels, intensity)
    rows, columns = np.nonzero(labels)
    values, index = np.unique(labels[rows, columns], return_inverse=True)
    area = np.bincount(index, minlength=len(values))
    top, bottom = _extent(rows, index, len(values))
    left, right = _extent(columns, index, len(values))
    table: dict[str, Array] = {
        "label": values,
        "area_px": area,
        "centroid_y_px": np.bincount(index, rows, len(values)) / area,
        "centroid_x_px": np.bincount(index, columns, len(values)) / area,
        "top_px": top,
        "left_px": left,
        "bottom_px": bottom,
        "right_px": right,
    }
    if intensity is not None:
        table["mean_intensity"] = np.bincount(index, intensity[rows, columns], len(values)) / area
    return table


def label_channels(results: Sequence[Array]) -> list[Array]:
    """Return the label images among some results (B, Y, X, C), as (B, Y, X) each."""
    return [
        array[..., channel]
        for array in results
        if array.dtype.kind in "iu" and array.ndim == 4 and array.min(initial=0) >= 0
        for channel in range(array.shape[-1])
    ]


def object_areas(labels: Array) -> Array:
    """Count the pixels of each object in a label image.

    Args:
        labels: (Y, X) integers; 0 and less is background. Labels can have gaps.

    Returns:
        The areas in rising order of the labels, int64.

    >>> object_areas(np.array([[0, 5, 5], [0, 2, 5]])).tolist()
    [1, 3]
    """
    # Counting in a table is faster than sorting, but the table must not be larger than the image.
    if labels.min(initial=0) < 0 or labels.max(initial=0) > labels.size:
        return np.unique(labels[labels > 0], return_counts=True)[1]
    areas = np.bincount(labels.ravel().astype(np.int64))[1:]
    return areas[areas > 0]


def usual_area(areas: Array) -> float:
    """Return the area of the median object, without pieces and debris.

    Half of the area of all objects is in objects up to this size or in smaller ones. Objects narrower than half of
    their diameter are left out of the median.

    Args:
        areas: (n,) pixels of each object.

    Returns:
        The area in pixels; 0 without objects.

    >>> usual_area(np.array([100, 90, 110, 2, 3, 1, 1, 2]))
    100.0
    """
    areas = np.sort(np.asarray(areas, np.float64))
    if not areas.size:
        return 0.0
    usual = areas[np.searchsorted(np.cumsum(areas) / areas.sum(), 0.5)]
    return float(np.median(areas[areas > LEAST_SHARE**2 * usual]))


def _extent(positions: Array, index: Array, count: int) -> tuple[Array, Array]:
    """Return the first position of each region, and one past its last position."""
    first = np.full(count, np.iinfo(np.int64).max)
    last = np.full(count, -1)
    np.minimum.at(first, index, positions)
    np.maximum.at(last, index, positions)
    return first, last + 1


def _check(labels: Array, intensity: Array | None) -> None:
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or (labels.size and labels.min() < 0):
        raise ValueError(f"labels: {labels.dtype} of shape {labels.shape}; need (y, x) integers, 0 or more")
    if intensity is not None and intensity.shape != labels.shape:
        raise ValueError(f"intensity: shape {intensity.shape} differs from that of labels, {labels.shape}")
