"""Judges the objects of a result by themselves: their confidence, shape and size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.job import COMPARTMENTS
from redis_consumer.processing.multiplex import peaks_of

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: An object is odd if its confidence or roundness is lower, or if it is wider or narrower by this factor than the
#: objects that the model is made for. Chosen on held-out images, so that the share of odd objects shows poor results.
LEAST_CONFIDENCE, LEAST_ROUNDNESS, MOST_FACTOR = 0.6, 0.5, 3.0


def object_confidence(labels: Array, output: Array) -> Floats:
    """Return the confidence of each object: the largest value of the model's first output in it.

    That output is the distance to the edge as a share of its largest value. So it is near 1 in the middle of an object
    that the model has seen as one.

    Args:
        labels: (Y, X) integers of 0 or more, 0 is background; labels can have gaps.
        output: (y, x) or (y, x, C) first output of the model, also at another scale. Only channel 0 is used.

    Returns:
        (n,) float64 in 0..1, in rising order of the labels.

    Raises:
        ValueError: the arrays are no images.

    >>> object_confidence(np.array([[0, 7, 7, 0, 2]]), np.array([[0, 0.5, 0.9, 0, 0.3]])).tolist()
    [0.3, 0.9]
    """
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or output.ndim not in (2, 3) or 0 in output.shape:
        raise ValueError(f"labels and output have the shapes {labels.shape} and {output.shape}; wanted (Y, X) images")
    plane = output if output.ndim == 2 else output[..., 0]
    rows, columns = np.nonzero(labels)
    _, numbers = np.unique(labels[rows, columns], return_inverse=True)
    if plane.shape != labels.shape:
        rows, columns = (
            np.minimum((at + 0.5) * small / side, small - 1).astype(np.int64)
            for at, small, side in zip((rows, columns), plane.shape, labels.shape, strict=True)
        )
    highest = np.zeros(int(numbers.max(initial=-1)) + 1, np.float64)
    np.maximum.at(highest, numbers, np.asarray(plane[rows, columns], np.float64))
    return np.asarray(np.clip(highest, 0, 1))


def confidence_by_label(labels: Array, output: Array) -> Array:
    """Return the same as `object_confidence`, as a table whose index is the label.

    >>> confidence_by_label(np.array([[0, 3, 1]]), np.array([[0, 0.5, 0.75]])).tolist()
    [nan, 0.75, nan, 0.5]

    Returns:
        (largest label + 1,) float32, NaN for numbers that aren't labels.
    """
    is_label = np.bincount(labels.ravel()) > 0
    is_label[:1] = False
    table = np.full(len(is_label), np.nan, np.float32)
    table[is_label] = object_confidence(labels, output)
    return table


def peak_maps(names: Sequence[str], options: Mapping[str, Mapping[str, Any]], outputs: Sequence[Array]) -> list[Array]:
    """Return the outputs of a model in which the objects of each label image have their peaks.

    Args:
        names: of the functions that make the label images.
        options: keyword arguments by function name.
        outputs: of the model, (B, Y, X, C) each.

    Returns:
        An output for each label image. None at all if the functions don't look for peaks.
    """
    name = next((each.strip().lower() for each in names if each.strip()), "")
    given = options.get(name, {})
    if name == "mesmer":
        places = peaks_of(given.get("compartment", COMPARTMENTS[0]))
    elif name in ("deep_watershed", "deep_watershed_mibi"):
        places = [given.get("maxima_index", 0)]
    else:
        places = []
    return [outputs[place] for place in places]


def odd_objects(labels: Array, confidence: Floats, wanted_px: float) -> Mask:
    """Return which objects are odd: of low confidence, ragged, or far from the size that the model is made for.

    Objects at the edge of the image are cut, so they are not judged by their shape and not called too small.

    Args:
        labels: (Y, X) integers of 0 or more, 0 is background.
        confidence: of each object, see `object_confidence`.
        wanted_px: diameter of the objects that the model is made for, in pixels of `labels`.

    Returns:
        (n,) bool, in rising order of the labels.
    """
    values, numbers = np.unique(labels, return_inverse=True)
    numbers = numbers.reshape(labels.shape) + (0 if values[:1] == 0 else 1)
    areas = np.bincount(numbers.ravel(), minlength=len(confidence) + 1)[1:]
    edges = np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]])
    is_cut = np.bincount(edges, minlength=len(areas) + 1)[1:] > 0
    diameters = 2 * np.sqrt(areas / math.pi)
    is_ragged = 4 * math.pi * areas < LEAST_ROUNDNESS * _perimeters(numbers, len(areas)) ** 2
    is_small = diameters < wanted_px / MOST_FACTOR
    return np.asarray(
        (confidence < LEAST_CONFIDENCE) | (~is_cut & (is_ragged | is_small)) | (diameters > wanted_px * MOST_FACTOR)
    )


def _perimeters(numbers: Array, count: int) -> Floats:
    """Estimate the perimeters of objects 1..n: the sides of their pixels that are at other objects, times pi / 4."""
    padded = np.pad(numbers, 1)
    sides = np.zeros(count + 1)
    for axis in (0, 1):
        before, after = (np.moveaxis(padded, axis, 0)[part] for part in (slice(None, -1), slice(1, None)))
        differs = before != after
        sides += np.bincount(before[differs], minlength=count + 1) + np.bincount(after[differs], minlength=count + 1)
    return np.asarray(sides[1:] * math.pi / 4)
