"""Fills the holes of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.processing.outlines import euler_numbers

Array = npt.NDArray[Any]


def fill_holes(labels: Array) -> Array:
    """Give the pixels of each hole to the label around it, also if another label is in the hole.

    A hole is what a label and the edge of the image don't leave open between two pixels with a common side.

    Args:
        labels: (B, Y, X, C) integers of 0 or more, 0 is background.

    Returns:
        The same shape and dtype. The labels of each image are 1..n in the order of their old numbers.

    Raises:
        ValueError: rank or dtype is another, or a label is negative.

    >>> labels = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 5]]).reshape(1, 3, 4, 1)
    >>> fill_holes(labels)[0, ..., 0].tolist()
    [[1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 2]]
    """
    if labels.ndim != 4 or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise ValueError(f"labels has the shape {labels.shape} and type {labels.dtype}; wanted (B, Y, X, C) labels")
    result = np.empty_like(labels)
    for item in range(labels.shape[0]):
        for channel in range(labels.shape[3]):
            result[item, ..., channel] = _filled(labels[item, ..., channel])
    return result


def _filled(image: Array) -> Array:
    from scipy import ndimage
    from skimage import measure

    values, numbers = np.unique(image, return_inverse=True)
    filled = numbers.reshape(image.shape) + (0 if values[:1] == 0 else 1)
    count = int(filled.max(initial=0))
    parts = measure.label(filled, background=0, connectivity=2)
    part_labels = np.zeros(int(parts.max(initial=0)) + 1, np.int64)
    part_labels[parts] = filled
    # A region of one part has a hole unless its Euler number is 1.
    has_parts = np.bincount(part_labels[1:], minlength=count + 1) > 1
    boxes = ndimage.find_objects(filled)
    for label in np.flatnonzero(has_parts | (euler_numbers(filled, count) != 1)).tolist():
        box = boxes[label - 1]
        filled[box][ndimage.binary_fill_holes(filled[box] == label)] = label
    is_left = np.bincount(filled.ravel(), minlength=count + 1) > 0
    is_left[0] = False
    return (np.cumsum(is_left) * is_left)[filled].astype(image.dtype)
