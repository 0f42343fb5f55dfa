"""Outlines along the edges of pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from redis_consumer.processing.outlines import find_corners, join_corners, joined_corners, trace_outlines
from support.polygons import area, fill

Labels = npt.NDArray[Any]
SHAPES = {
    "a pixel": [[1]],
    "concave": [[1, 1, 1], [1, 0, 0], [1, 1, 1]],
    "a hole": [[1, 1, 1], [1, 0, 1], [1, 1, 1]],
    "a region in a hole": np.pad(np.pad(np.pad([[2]], 1), 1, constant_values=1), 1),
    "an island of the same label in a hole": np.pad(np.pad(np.pad([[1]], 1), 1, constant_values=1), 1),
    "parts that touch at a corner": [[1, 0], [0, 1]],
    "the other corner": [[0, 1], [1, 0]],
    "a hole that is open at a corner": [[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]],
    "a ring that closes at a corner": [[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 0]],
    "two holes that touch": [[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]],
    "nothing": [[0, 0], [0, 0]],
}


def check(labels: Labels) -> None:
    """Fill the polygons of each region, and check that they are valid simple features."""
    found = dict(trace_outlines(labels).regions())
    assert list(found) == [label for label in np.unique(labels) if label]
    for label, polygons in found.items():
        mask = labels == label
        rings = [ring for polygon in polygons for ring in polygon]
        np.testing.assert_array_equal(fill(rings, labels.shape), mask)
        assert len(polygons) == ndimage.label(mask)[1]
        for outer, *holes in polygons:
            assert area(outer) > 0
            assert all(area(hole) < 0 for hole in holes)
            # One 4-connected part, with the holes that are in it.
            part = fill([outer, *holes], labels.shape)
            assert ndimage.label(part)[1] == 1
            assert (fill(holes, labels.shape) & ~fill([outer], labels.shape)).sum() == 0
        for ring in rings:
            assert len(set(map(tuple, ring.tolist()))) == len(ring)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_comes_back_from_its_outline(name: str) -> None:
    check(np.array(SHAPES[name]))


@settings(max_examples=150, deadline=None)
@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.integers(0, 3)))
def test_random_shapes_come_back_from_their_outlines(labels: Labels) -> None:
    check(labels)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.5, 3), st.floats(0.3, 0.7))
def test_smooth_shapes_come_back_from_their_outlines(seed: int, sigma: float, share: float) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random((24, 30)), sigma)
    check(ndimage.label(noise > np.quantile(noise, share), np.ones((3, 3)))[0])


def test_objects_of_photographs_come_back_from_their_outlines() -> None:
    from skimage import data, filters, io

    nuclei = io.imread(Path(__file__).parents[3] / "data" / "nuclei.tif")[:300, :300]
    for image in (nuclei, data.coins()[:200, :200], data.text()):
        labels = ndimage.label(image > filters.threshold_otsu(image))[0]
        found = dict(trace_outlines(labels).regions())
        assert len(found) == labels.max() > 0
        for label, box in enumerate(ndimage.find_objects(labels), start=1):
            rings = [ring - (box[1].start, box[0].start) for polygon in found[label] for ring in polygon]
            mask = labels[box] == label
            np.testing.assert_array_equal(fill(rings, mask.shape), mask)


def test_corners_of_parts_are_those_of_the_whole() -> None:
    labels = np.random.default_rng(3).integers(0, 3, (11, 13))
    whole = trace_outlines(labels)
    padded = np.pad(labels, 1)
    parts = [
        find_corners(padded[top : min(top + 6, 13), left : min(left + 5, 15)], (top, left))
        for top in range(0, 12, 5)
        for left in range(0, 14, 4)
    ]
    joined = join_corners(joined_corners(parts))
    np.testing.assert_array_equal(joined.points, whole.points)
    np.testing.assert_array_equal(joined.labels, whole.labels)
    np.testing.assert_array_equal(joined.is_hole, whole.is_hole)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int64])
def test_labels_have_any_type_of_integers(dtype: Any) -> None:
    largest = min(np.iinfo(dtype).max, 2**32 - 1)
    [(label, [[ring]])] = trace_outlines(np.array([[0, largest]], dtype)).regions()
    assert (label, ring.tolist()) == (largest, [[1, 0], [2, 0], [2, 1], [1, 1]])


@pytest.mark.parametrize("labels", [np.zeros((2, 2)), np.zeros((1, 2, 2), int)])
def test_what_is_no_label_image_is_refused(labels: Labels) -> None:
    with pytest.raises(ValueError, match=r"labels: .* need \(y, x\) integers"):
        trace_outlines(labels)
