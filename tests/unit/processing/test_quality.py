"""Objects are judged by their confidence, shape and size."""

from __future__ import annotations

import numpy as np
import pytest

from redis_consumer.processing.quality import object_confidence, odd_objects


def test_confidence_is_the_highest_value_of_the_first_output_at_any_scale() -> None:
    labels = np.zeros((20, 40), np.int32)
    labels[2:8, 2:8], labels[10:18, 20:36] = 9, 3
    output = np.where(labels == 9, 0.5, 0.0)
    output[14, 30] = 1.2
    assert object_confidence(labels, output[..., np.newaxis]).tolist() == [1.0, 0.5]
    assert object_confidence(labels, output[::2, ::2]).tolist() == [1.0, 0.5]
    assert object_confidence(np.zeros((3, 3), int), np.zeros((3, 3))).size == 0


def test_odd_objects_are_unsure_ragged_small_or_large() -> None:
    y, x = np.mgrid[:200, :300]
    labels = np.zeros(y.shape, np.int32)
    for number, (down, right, radius) in enumerate([(20, 30, 12), (20, 90, 12), (20, 150, 3), (130, 90, 55)], start=1):
        labels[np.hypot(y - down, x - right) < radius] = number
    labels[20:180:4, 200:260], labels[20:180, 230] = 5, 5
    labels[0:3, 280:285] = 6
    output = np.where(labels == 2, 0.4, 0.9)
    assert odd_objects(labels, object_confidence(labels, output), 30).tolist() == [False, True, True, True, True, False]


def test_images_of_another_rank_are_refused() -> None:
    with pytest.raises(ValueError, match=r"wanted \(Y, X\) images"):
        object_confidence(np.zeros((1, 3, 3), int), np.zeros((3, 3)))
