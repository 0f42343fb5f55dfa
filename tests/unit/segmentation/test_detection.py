from __future__ import annotations

import numpy as np
import pytest

from redis_consumer.segmentation import detection


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((40, 50), (1, 40, 50, 1)),
        ((40, 50, 1), (1, 40, 50, 1)),
        ((40, 50, 3), (1, 40, 50, 1)),
        ((5, 40, 50), (5, 40, 50, 1)),
        ((2, 40, 50, 3), (2, 40, 50, 1)),
    ],
)
def test_small_images_stay_whole(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert detection.crops(np.zeros(shape), 64, every=1).shape == expected


def test_large_images_are_cut_into_squares_that_cover_them() -> None:
    image = np.arange(100 * 130).reshape(100, 130)
    squares = detection.crops(image, 64, every=1)
    assert squares.shape == (2 * 3, 64, 64, 1)
    assert set(squares.astype(int).ravel()) == set(image.ravel())


def test_every_so_many_squares_are_kept() -> None:
    assert len(detection.crops(np.zeros((256, 256)), 64, every=3)) == 6


def test_channels_are_averaged() -> None:
    image = np.stack([np.full((8, 8), 1.0), np.full((8, 8), 3.0)], axis=-1)
    assert detection.crops(image, 64, every=1).max() == 2.0


@pytest.mark.parametrize(("answers", "scale"), [([0.5, 0.7], 0.6), ([1.008, 1.0], 1.0), ([1.02, 1.02], 1.02)])
def test_the_scale_is_the_mean(answers: list[float], scale: float) -> None:
    assert detection.scale_of(np.array(answers)[:, np.newaxis]) == pytest.approx(scale)


def test_the_label_has_the_largest_sum() -> None:
    assert detection.label_of(np.array([[0.5, 0.4, 0.1], [0.0, 0.6, 0.4]])) == 1
