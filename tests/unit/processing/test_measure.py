# scikit-image has no annotations.

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_consumer.processing.measure import measure_labels


@given(seed=st.integers(0, 1000), height=st.integers(1, 20), width=st.integers(1, 20))
@settings(max_examples=40)
def test_agrees_with_scikit_image(seed: int, height: int, width: int) -> None:
    from skimage.measure import regionprops_table

    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 4, 70_000], (height, width))
    intensity = rng.random((height, width))
    names = ("label", "area", "centroid", "bbox", "intensity_mean")
    expected = regionprops_table(labels, intensity, properties=names)
    for ours, theirs in zip(measure_labels(labels, intensity).values(), expected.values(), strict=True):
        assert np.allclose(ours, theirs)


def test_an_empty_label_image_has_no_rows() -> None:
    table = measure_labels(np.zeros((4, 5), np.int32), np.ones((4, 5)))
    assert {len(column) for column in table.values()} == {0}
    assert list(table) == [
        "label", "area_px", "centroid_y_px", "centroid_x_px", "top_px", "left_px", "bottom_px", "right_px",
        "mean_intensity",
    ]  # fmt: skip


def test_mean_intensity_only_where_an_image_is_given() -> None:
    assert "mean_intensity" not in measure_labels(np.ones((2, 2), np.uint16))


@pytest.mark.parametrize(
    "labels", [np.zeros((2, 2, 1), int), np.zeros((2, 2)), np.full((2, 2), -1)], ids=["rank", "floats", "negative"]
)
def test_refuses_what_is_no_label_image(labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="labels: "):
        measure_labels(labels)


def test_refuses_an_image_of_another_size() -> None:
    with pytest.raises(ValueError, match="intensity: "):
        measure_labels(np.ones((2, 2), int), np.ones((2, 3)))
