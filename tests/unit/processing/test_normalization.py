"""The intensity functions keep their properties on any image."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from redis_consumer.processing.normalization import (
    histogram_normalization,
    normalize,
    percentile_normalize,
    percentile_threshold,
)

Array = npt.NDArray[Any]
ALL = [normalize, histogram_normalization, percentile_normalize, percentile_threshold]


def images(dtype: str = "uint16") -> st.SearchStrategy[Array]:
    shapes = hnp.array_shapes(min_dims=4, max_dims=4, min_side=1, max_side=12)
    return hnp.arrays(dtype, shapes)


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random(shape).astype(np.float32)


@pytest.mark.parametrize("function", ALL)
@settings(max_examples=25)
@given(image=images())
def test_shape_stays_and_values_are_finite_float32(function: Callable[[Array], Array], image: Array) -> None:
    result = function(image)
    assert result.shape == image.shape
    assert result.dtype == np.float32
    assert np.isfinite(result).all()


@pytest.mark.parametrize("function", ALL)
def test_the_input_is_left_alone(function: Callable[[Array], Array]) -> None:
    image = noise(1, 16, 16, 1)
    before = image.copy()
    function(image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("function", ALL)
def test_planes_do_not_know_each_other(function: Callable[[Array], Array]) -> None:
    image = noise(2, 16, 16, 3) * np.array([1, 10, 100], np.float32)
    alone = function(image[1:, :, :, 2:])
    np.testing.assert_array_equal(function(image)[1:, :, :, 2:], alone)


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 2), (1, 2, 8, 9, 1), (0, 3)])
def test_another_rank_is_normalized_as_a_whole(shape: tuple[int, ...]) -> None:
    """Consumers of 2020 have no batch axis."""
    image = 7 * noise(*shape) + 3
    result = normalize(image)
    assert result.shape == shape
    assert result.dtype == np.float32
    if image.size:
        np.testing.assert_allclose(result, (image - image.mean()) / image.std(), rtol=1e-4, atol=1e-5)
    assert not normalize(np.full((4, 4), 5, np.uint16)).any()


@pytest.mark.parametrize("function", [each for each in ALL if each is not normalize])
@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (1, 1, 4, 4, 1)])
def test_wrong_rank_is_refused_with_both_shapes(function: Callable[[Array], Array], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image has the shape \(.*\); wanted \(B, Y, X, C\)"):
        function(np.zeros(shape))


@pytest.mark.parametrize("function", [normalize, histogram_normalization, percentile_normalize])
@pytest.mark.parametrize("value", [0, 7, 65535, -3.5])
def test_a_constant_plane_becomes_zeros(function: Callable[[Array], Array], value: float) -> None:
    assert not function(np.full((1, 8, 8, 1), value)).any()


@pytest.mark.parametrize("function", ALL)
def test_an_empty_batch_stays_empty(function: Callable[[Array], Array]) -> None:
    assert function(np.zeros((0, 8, 8, 1))).shape == (0, 8, 8, 1)


def test_normalize_centres_and_scales() -> None:
    result = normalize(noise(2, 32, 32, 2) * 1000 + 50000)
    np.testing.assert_allclose(result.mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(result.std(axis=(1, 2)), 1, atol=1e-5)


def test_histogram_normalization_lifts_a_dark_half() -> None:
    image = noise(1, 64, 64, 1)
    image[:, :, :32] *= 0.1
    result = histogram_normalization(image)
    assert result.min() >= 0
    assert result.max() <= 1
    before, after = (plane[0, :, :32].std() / plane[0, :, 32:].std() for plane in (image, result))
    assert after > 1.2 * before


def test_histogram_normalization_looks_at_an_eighth_of_each_side() -> None:
    image = noise(1, 64, 64, 1)
    image[:, :32] *= 0.3
    np.testing.assert_array_equal(histogram_normalization(image), histogram_normalization(image, kernel_size=8))
    assert (histogram_normalization(image) != histogram_normalization(image, kernel_size=32)).any()


def test_percentile_normalize_maps_the_percentiles_to_0_and_1() -> None:
    ramp = np.arange(101).reshape(1, 1, 101, 1)
    result = percentile_normalize(ramp, low=10, high=90).ravel()
    np.testing.assert_allclose(result, np.clip((np.arange(101) - 10) / 80, 0, 1), atol=1e-6)


def test_percentile_normalize_ignores_a_few_hot_pixels() -> None:
    image = noise(1, 100, 100, 1)
    hot = image.copy()
    hot[0, 0, :5] = 1e6
    np.testing.assert_allclose(percentile_normalize(hot)[0, 1:], percentile_normalize(image)[0, 1:], atol=0.01)


@settings(max_examples=25)
@given(image=images("uint8"), gain=st.integers(1, 100), offset=st.integers(0, 1000))
def test_percentile_normalize_does_not_see_gain_and_offset(image: Array, gain: int, offset: int) -> None:
    changed = image.astype(np.float64) * gain + offset
    np.testing.assert_allclose(percentile_normalize(changed), percentile_normalize(image), atol=1e-5)


def test_percentile_normalize_sees_one_bright_spot_in_an_empty_plane() -> None:
    image = np.zeros((1, 100, 100, 1), np.uint8)
    image[0, 50, 50] = 9
    assert percentile_normalize(image).sum() == 1


@pytest.mark.parametrize(("low", "high"), [(50, 50), (60, 40), (-1, 50), (0, 101)])
def test_percentiles_out_of_order_are_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="wanted 0 <= low < high <= 100"):
        percentile_normalize(np.zeros((1, 2, 2, 1)), low=low, high=high)


def test_percentile_threshold_counts_only_pixels_that_are_not_zero() -> None:
    image = np.zeros((1, 1, 1000, 1))
    image[0, 0, :11, 0] = np.arange(1, 12)
    result = percentile_threshold(image, percentile=50).ravel()
    np.testing.assert_array_equal(result[:11], [1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6])
    assert not result[11:].any()


def test_importing_the_functions_loads_no_image_library() -> None:
    code = (
        "import sys, redis_consumer.processing.normalization, redis_consumer.processing.labels;"
        "print([name for name in ('scipy', 'skimage') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "[]"


def test_equalising_a_plane_takes_less_than_the_share_of_a_job() -> None:
    plane = np.random.default_rng(4).random((1, 1024, 1024, 1), np.float32)
    histogram_normalization(plane[:, :64, :64])  # imports
    tracemalloc.start()
    try:
        histogram_normalization(plane)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The plane itself is the twelfth share. The result is counted here, but its pages are first touched at the end.
    assert peak - plane.nbytes < 11 * plane.nbytes
