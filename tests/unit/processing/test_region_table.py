"""The measurements of regions are those of scikit-image, for whole images and by windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import regionprops_table

from redis_consumer.processing.region_table import HALO_PX, RegionTable, measure_regions

Array = npt.NDArray[Any]
#: Our columns, and what scikit-image calls them.
COLUMNS = {
    "label": "label",
    "area_px": "area",
    "centroid_y_px": "centroid-0",
    "centroid_x_px": "centroid-1",
    "top_px": "bbox-0",
    "left_px": "bbox-1",
    "bottom_px": "bbox-2",
    "right_px": "bbox-3",
    "major_axis_px": "axis_major_length",
    "minor_axis_px": "axis_minor_length",
    "eccentricity": "eccentricity",
    "perimeter_px": "perimeter",
    "solidity": "solidity",
    **{f"c{channel}_{ours}": f"intensity_{theirs}-{channel}" for channel in (0, 1) for ours, theirs in (
        ("mean", "mean"), ("sd", "std"), ("min", "min"), ("max", "max"),
    )},
}  # fmt: skip


def scene(seed: int, shape: tuple[int, int], share: float = 0.5) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(generator.random(shape), generator.uniform(0.1, 2))
    labels = ndimage.label(noise > np.quantile(noise, share))[0] * 3
    return labels, generator.normal(1000, 30, (*shape, 2)).astype(np.float32)


def check(table: dict[str, Array], labels: Array, grey: Array) -> None:
    properties = {theirs.split("-")[0] for theirs in COLUMNS.values()}
    # In float32, scikit-image sums with less precision.
    wanted = regionprops_table(labels, grey.astype(np.float64), properties=sorted(properties))
    for ours, theirs in COLUMNS.items():
        np.testing.assert_allclose(table[ours], wanted[theirs], rtol=1e-6, atol=1e-6, err_msg=ours)
    sums = ndimage.sum_labels(grey[..., 1].astype(np.float64), labels, table["label"])
    np.testing.assert_allclose(table["c1_sum"], sums)
    height, width = labels.shape
    border = {*labels[0], *labels[height - 1], *labels[:, 0], *labels[:, width - 1]}
    assert table["touches_border"].tolist() == [label in border for label in table["label"]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 40), st.integers(2, 40), st.floats(0.1, 0.8))
def test_columns_are_those_of_scikit_image(seed: int, height: int, width: int, share: float) -> None:
    labels, grey = scene(seed, (height, width), share)
    check(measure_regions(labels, [grey[..., 0], grey[..., 1]]), labels, grey)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31), st.integers(4, 20))
def test_windows_give_the_same_as_the_whole(seed: int, side: int) -> None:
    labels, grey = scene(seed, (31, 37))
    table, padded = RegionTable((31, 37)), np.pad(labels, HALO_PX)
    for top in range(0, 31, side):
        for left in range(0, 37, side):
            part = grey[top : top + side, left : left + side]
            height, width = part.shape[:2]
            window = padded[top : top + height + 2 * HALO_PX, left : left + width + 2 * HALO_PX]
            table.add(window, [part[..., 0], part[..., 1]], (top, left))
    check(table.finish(), labels, grey)


def test_complete_regions_are_returned_and_the_others_kept() -> None:
    labels = np.array([[1, 1, 0], [2, 0, 3]])
    table = RegionTable((2, 3))
    table.add(np.pad(labels, HALO_PX), [])
    assert table.finish(np.array([3, 1]))["label"].tolist() == [1, 3]
    assert table.finish(np.array([], int))["label"].tolist() == []
    assert table.finish()["area_px"].tolist() == [1]
    assert table.finish() == {}


def test_a_region_of_far_apart_parts_has_one_row() -> None:
    labels = np.zeros((20, 20), np.uint16)
    labels[[2, 17], [3, 3]] = 9
    table = measure_regions(labels)
    assert table["area_px"].tolist() == [2]
    assert (table["top_px"][0], table["bottom_px"][0], table["centroid_y_px"][0]) == (2, 18, 9.5)
    assert table["solidity"][0] == regionprops_table(labels, properties=["solidity"])["solidity"][0]


def test_an_image_without_regions_has_no_rows() -> None:
    table = measure_regions(np.zeros((4, 5), int), [np.ones((4, 5))])
    assert {len(column) for column in table.values()} == {0}
    assert "c0_sum" in table


@pytest.mark.parametrize(
    ("labels", "channels", "problem"),
    [
        (np.zeros((2, 2)), [], "labels: float64"),
        (np.full((2, 2), -1), [], "labels: int64"),
        (np.zeros((2, 2), int), [np.zeros((3, 2))], r"channel: shape \(3, 2\) differs"),
    ],
)
def test_what_fits_not_is_refused(labels: Array, channels: list[Array], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        measure_regions(labels, channels)
