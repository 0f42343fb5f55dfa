"""Peaks are found where the definition says."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage import morphology

from redis_consumer.processing import maxima
from redis_consumer.processing.maxima import h_maxima, local_maxima

Array = npt.NDArray[Any]
EIGHTHS = st.integers(0, 8).map(lambda eighths: eighths / 8)
MAPS = hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=EIGHTHS)


def plain_h_maxima(image: Array, height: float, radius: int) -> Array:
    """The same by the library's own, slow way."""
    plain: Any = morphology
    return np.asarray(plain.h_maxima(image, height, footprint=plain.disk(radius)), np.bool_)


@settings(max_examples=100)
@given(MAPS, st.sampled_from([0.1, 0.125, 0.25, 0.5, 1.0]), st.integers(1, 7))
def test_h_maxima_is_the_definition(image: Array, height: float, radius: int) -> None:
    np.testing.assert_array_equal(h_maxima(image, height, radius), plain_h_maxima(image, height, radius))


@pytest.mark.parametrize("sigma", [0.5, 1, 2, 4])
@pytest.mark.parametrize("radius", [2, 10])
def test_h_maxima_is_the_definition_on_smooth_maps(sigma: float, radius: int) -> None:
    image = ndimage.gaussian_filter(np.random.default_rng(0).random((60, 80)), sigma).astype(np.float32)
    image = (image - image.min()) / np.ptp(image)
    np.testing.assert_array_equal(h_maxima(image, 0.1, radius), plain_h_maxima(image, 0.1, radius))


def test_h_maxima_of_a_flat_image_are_none() -> None:
    assert not h_maxima(np.ones((5, 5)), 0.1, 2).any()


def test_h_maxima_needs_a_height() -> None:
    with pytest.raises(ValueError, match="height is 0; wanted a number above 0"):
        h_maxima(np.ones((5, 5)), 0, 2)


def test_local_maxima_at_the_border_count() -> None:
    image = np.zeros((9, 9))
    image[0, 0] = image[8, 4] = 1
    assert np.argwhere(local_maxima(image, min_distance=2, threshold=0.5)).tolist() == [[0, 0], [8, 4]]


def test_local_maxima_keep_their_distance() -> None:
    image = np.zeros((1, 20))
    image[0, [5, 7, 15]] = [3, 2, 1]
    assert np.argwhere(local_maxima(image, min_distance=3, threshold=0.5))[:, 1].tolist() == [5, 15]


def test_local_maxima_lie_above_the_threshold() -> None:
    image = np.zeros((1, 9))
    image[0, 4] = 0.5
    assert not local_maxima(image, min_distance=1, threshold=0.5).any()


@pytest.mark.parametrize(("sigma", "radius"), [(3, 3), (8, 10), (1.5, 2)])
def test_areas_that_grow_in_small_batches_give_the_same_result(
    sigma: float, radius: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(1).random((150, 210)), sigma)
    image = ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)
    whole = maxima.h_maxima(image, 0.1, radius)
    monkeypatch.setattr(maxima, "BATCH", 1024)
    np.testing.assert_array_equal(maxima.h_maxima(image, 0.1, radius), whole)
    assert whole.any()


def test_peaks_of_equal_height_stay_or_go_together() -> None:
    image = np.array([[0, 5, 4.5, 5, 4.5, 5, 0, 0, 9, 0, 5, 4.5, 5, 4.5, 9]], np.float32)
    assert np.flatnonzero(h_maxima(image, 1, 1)).tolist() == [1, 3, 5, 8, 14]


def test_a_wide_plateau_is_one_peak() -> None:
    image = np.zeros((40, 60), np.float32)
    image[5:30, 5:50] = 1
    np.testing.assert_array_equal(h_maxima(image, 0.5, 6), image > 0)


def test_a_step_may_be_longer_than_the_image() -> None:
    assert np.flatnonzero(h_maxima(np.array([[3, 0, 2, 0]]), 1, 9)).tolist() == [0]
