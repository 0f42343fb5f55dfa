"""Measures how well two label images agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Counts:
    """Objects of one image or of several.

    Attributes:
        true: number of true objects.
        found: number of found ones.
        hits: how many of them match, for each threshold.
    """

    true: int
    found: int
    hits: tuple[int, ...]


def overlaps(truth: Labels, found: Labels) -> npt.NDArray[np.float64]:
    """Return the intersection over union of each true label with each found one.

    Args:
        truth: (Y, X), 0 is background.
        found: (Y, X), 0 is background.

    Returns:
        (n, m) float64 in 0..1, n and m the largest labels; a label that doesn't occur has zeros.
    """
    rows, columns = int(truth.max()) + 1, int(found.max()) + 1
    both = np.bincount((truth.astype(np.int64) * columns + found).ravel(), minlength=rows * columns)
    both = both.reshape(rows, columns)
    union = both.sum(axis=1, keepdims=True) + both.sum(axis=0, keepdims=True) - both
    return np.asarray((both / np.maximum(union, 1))[1:, 1:])


def count_matches(truth: Labels, found: Labels, thresholds: Sequence[float]) -> Counts:
    """Count the objects of an image, and those that match at each threshold, see `average_precision`."""
    iou = overlaps(truth, found)
    hits = tuple(int((iou > threshold).sum()) for threshold in thresholds)
    return Counts(_count(truth), _count(found), hits)


def average_precision(pairs: list[tuple[Labels, Labels]], threshold: float) -> float:
    """Return TP / (TP + FP + FN) over all (truth, found) pairs, a match being an IoU above `threshold`.

    Thresholds are 0.5 or more: there no label can match two others, so counting pairs is enough.
    """
    matched = missed_or_extra = 0
    for truth, found in pairs:
        hits = int((overlaps(truth, found) > threshold).sum())
        matched += hits
        missed_or_extra += _count(truth) + _count(found) - 2 * hits
    return matched / max(matched + missed_or_extra, 1)


def _count(labels: Labels) -> int:
    return len(np.unique(labels[labels > 0]))
