"""What is measured of a label image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import regionprops

from redis_consumer.tracking.regions import measure, overlaps

images = arrays(np.uint16, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 6))


@given(images)
def test_measures_are_those_of_scikit_image(labels: Any) -> None:
    regions = measure(labels).regions
    wanted = regionprops(labels.astype(int))
    assert regions.labels.tolist() == [region.label for region in wanted]
    assert regions.areas_px.tolist() == [region.area for region in wanted]
    np.testing.assert_allclose(regions.centroids_px.reshape(-1), np.ravel([r.centroid for r in wanted]), atol=1e-9)
    edges = [min(r.bbox[:2]) == 0 or r.bbox[2] == labels.shape[0] or r.bbox[3] == labels.shape[1] for r in wanted]
    assert regions.at_border.tolist() == edges


def test_roundness_of_a_rectangle_is_its_width_by_its_length() -> None:
    labels = np.zeros((40, 40), int)
    labels[10:20, 5:35] = 3
    assert measure(labels).regions.roundness[0] == pytest.approx(1 / 3)


@given(images, st.integers(-3, 3), st.integers(-3, 3))
def test_overlaps_are_counted_after_the_scene_has_moved(labels: Any, down: int, right: int) -> None:
    before = measure(labels)
    after = measure(np.roll(labels, (down, right), (0, 1)))
    counted = {(int(b), int(a)): int(n) for b, a, n in zip(*overlaps(before, after, (down, right)), strict=True)}
    wanted: dict[tuple[int, int], int] = {}
    rolled = np.roll(labels, (down, right), (0, 1))
    for y, x in np.argwhere(rolled > 0):
        if 0 <= y - down < labels.shape[0] and 0 <= x - right < labels.shape[1] and labels[y - down, x - right]:
            pair = (
                int(np.searchsorted(before.regions.labels, labels[y - down, x - right])),
                int(np.searchsorted(after.regions.labels, rolled[y, x])),
            )
            wanted[pair] = wanted.get(pair, 0) + 1
    assert counted == wanted


def test_labels_may_be_as_large_as_32_bits_allow() -> None:
    labels = np.array([[2**32 - 1, 0, 7]], np.uint32)
    assert measure(labels).regions.labels.tolist() == [7, 2**32 - 1]


@pytest.mark.parametrize("labels", [np.zeros(3, int), np.zeros((2, 2)), np.array([[-1]])])
def test_what_is_no_label_image_is_refused(labels: Any) -> None:
    with pytest.raises(ValueError, match=r"need \(y, x\) integers, 0 or more"):
        measure(labels)
