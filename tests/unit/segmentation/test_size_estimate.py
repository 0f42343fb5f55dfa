"""The estimated size of objects: which pass decides, how much is read, and which objects count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from redis_consumer.segmentation.frames import Frames
from redis_consumer.segmentation.size_estimate import estimate_diameter


def squares(side_px: int, size: int, count: int = 4) -> Any:
    """White squares on black, (size, size)."""
    image = np.zeros((size, size), np.float32)
    step = size // count
    for row in range(count):
        for column in range(count):
            top, left = row * step + step // 4, column * step + step // 4
            image[top : top + side_px, left : left + side_px] = 1
    return image


def label(batch: Any) -> Any:
    """Labels of what is bright, as a model would see it that knows objects of 8 to 60 px only."""
    labels, count = ndimage.label(batch[0, ..., 0] > 0.5)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    labels[~np.isin(labels, np.flatnonzero((areas > 8**2) & (areas < 60**2)))] = 0
    return labels[None, ..., None]


@pytest.mark.parametrize("side_px", [12, 20, 40, 90, 150])
def test_objects_of_any_size_are_measured(side_px: int) -> None:
    image = squares(side_px, 8 * side_px)
    found = estimate_diameter(Frames.of(image[None, ..., None]), 30, lambda pixels: pixels, label)
    assert found == pytest.approx(2 * side_px / np.sqrt(np.pi), rel=0.1)


def test_an_image_without_objects_has_no_estimate() -> None:
    frames = Frames.of(np.zeros((1, 64, 64, 1), np.float32))
    assert estimate_diameter(frames, 30, lambda pixels: pixels, label) is None


def test_the_work_is_bounded_and_one_frame_is_read() -> None:
    read: list[tuple[int, int]] = []
    seen: list[int] = []

    def read_frames(start: int, stop: int) -> Any:
        read.append((start, stop))
        return np.zeros((stop - start, 3000, 2000, 1), np.float32)

    def count(batch: Any) -> Any:
        seen.append(batch.size)
        return np.zeros(batch.shape, np.int32)

    estimate_diameter(Frames((5, 3000, 2000, 1), read_frames), 30, lambda pixels: pixels, count)
    assert read == [(2, 3)]
    assert max(seen) <= 256**2


def test_objects_that_the_border_cuts_do_not_count() -> None:
    image = squares(20, 160)
    image[:, :12] = 1
    found = estimate_diameter(Frames.of(image[None, ..., None]), 30, lambda pixels: pixels, label)
    assert found == pytest.approx(2 * 20 / np.sqrt(np.pi), rel=0.1)
