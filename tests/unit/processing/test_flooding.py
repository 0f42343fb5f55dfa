"""Floods give the regions of a flood that takes one pixel after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage import segmentation

from redis_consumer.processing import flooding
from redis_consumer.processing.flooding import flood

Array = npt.NDArray[Any]
EIGHTHS = st.integers(0, 8).map(lambda eighths: eighths / 8)


def by_queue(image: Array, seeds: Array, threshold: float) -> Array:
    """The same by the library's flood, pixel after pixel."""
    return np.asarray(segmentation.watershed(-image, seeds, mask=image > threshold), np.int32)


def hills(sigma: float, sides: tuple[int, int] = (90, 120), seed: int = 0) -> tuple[Array, Array]:
    """Smooth noise in 0..1, and seeds at places that are no summits, some of several pixels."""
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.random(sides), sigma).astype(np.float32)
    image = (image - image.min()) / np.ptp(image)
    where = ndimage.binary_dilation(rng.random(sides) > 0.997)
    seeds, _ = ndimage.label(where)
    return image, seeds.astype(np.int32)


@pytest.mark.parametrize("sigma", [0.5, 1, 3, 6])
def test_a_flood_of_hills_is_that_of_a_queue(sigma: float) -> None:
    image, seeds = hills(sigma)
    ours, theirs = flood(image, seeds, 0.4), by_queue(image, seeds, 0.4)
    np.testing.assert_array_equal(ours > 0, theirs > 0)
    # A pixel between two floods of equal brightness may go to either.
    assert np.mean(ours != theirs) < 0.01


def test_small_batches_give_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    image, seeds = hills(1)
    whole = flood(image, seeds, 0.3)
    monkeypatch.setattr(flooding, "BATCH", 256)
    np.testing.assert_array_equal(flood(image, seeds, 0.3), whole)


def test_a_plateau_is_shared_between_the_nearest_seeds() -> None:
    seeds = np.zeros((9, 21), np.int32)
    seeds[4, 2], seeds[4, 18] = 1, 2
    labels = flood(np.ones((9, 21)), seeds, 0.5)
    assert (labels[:, :10] == 1).all()
    assert (labels[:, 11:] == 2).all()


def test_a_summit_without_a_seed_joins_across_its_highest_pass() -> None:
    image = np.array([[9, 5, 7, 6, 9, 2, 8]])
    assert flood(image, np.array([[1, 0, 0, 0, 2, 0, 3]]), 0).tolist() == [[1, 1, 2, 2, 2, 2, 3]]


def test_summits_in_a_ring_of_equal_passes_join_one_seed() -> None:
    image = np.full((5, 5), 0.5)
    image[::2, ::2] = 1
    seeds = np.zeros((5, 5), np.int32)
    seeds[0, 0] = 7
    assert (flood(image, seeds, 0) == 7).all()


@settings(max_examples=60)
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14), elements=EIGHTHS), st.data())
def test_what_is_flooded_is_connected_with_its_seed(image: Array, data: st.DataObject) -> None:
    seeds = data.draw(hnp.arrays(np.int32, image.shape, elements=st.sampled_from([0, 0, 0, 0, 1, 2])))
    labels = flood(image, seeds, 0.2)
    np.testing.assert_array_equal(labels > 0, by_queue(image, seeds, 0.2) > 0)
    is_kept = (seeds > 0) & (image > 0.2)
    np.testing.assert_array_equal(labels[is_kept], seeds[is_kept])
    for label in (1, 2):
        parts, count = ndimage.label(labels == label)
        assert set(range(1, count + 1)) == set(parts[is_kept & (seeds == label)])


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (1, 1)])
def test_images_of_no_size_and_no_seeds_stay_empty(shape: tuple[int, int]) -> None:
    assert not flood(np.ones(shape), np.zeros(shape, np.int32), 0).any()
