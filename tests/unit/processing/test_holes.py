"""No label has a hole after its holes were filled."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from redis_consumer.processing.outlines import euler_numbers, fill_holes
from redis_consumer.processing.registry import apply

Labels = npt.NDArray[Any]


def filled(labels: Any) -> list[list[int]]:
    image = np.array(labels, np.int32)
    return fill_holes(image[np.newaxis, ..., np.newaxis])[0, ..., 0].tolist()  # type: ignore[no-any-return]


@settings(max_examples=200, deadline=None)
@given(arrays(np.uint16, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 2, 2, 5])))
def test_no_label_has_a_hole(labels: Labels) -> None:
    result = fill_holes(labels[np.newaxis, ..., np.newaxis])[0, ..., 0]
    assert result.dtype == labels.dtype
    found = [label for label in np.unique(result) if label]
    assert found == list(range(1, len(found) + 1))
    for label in found:
        mask = result == label
        assert np.array_equal(ndimage.binary_fill_holes(mask), mask)
    # What was a label and isn't in a hole of another one stays what it was.
    outer = np.any([ndimage.binary_fill_holes(labels == label) & (labels != label) for label in (2, 5)], axis=0)
    assert ((result > 0) == ((labels > 0) | outer)).all()


@settings(max_examples=100, deadline=None)
@given(arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 2)))
def test_euler_numbers_are_those_of_scikit_image(labels: Labels) -> None:
    from skimage.measure import euler_number

    expected = [euler_number(labels == label, connectivity=2) for label in (1, 2)]
    assert euler_numbers(labels, 2).tolist() == [1, *expected]


def test_a_label_in_a_hole_belongs_to_the_label_around_it() -> None:
    image = np.ones((7, 7), int)
    image[1:6, 1:6], image[2:5, 2:5], image[3, 3] = 0, 3, 0
    assert filled(image) == np.ones((7, 7), int).tolist()


def test_a_hole_of_a_region_of_several_parts_is_filled() -> None:
    image = np.zeros((5, 12), int)
    image[:, :5], image[2, 2], image[2, 8] = 4, 0, 4
    assert filled(image)[2] == [1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0]


def test_jobs_can_name_it() -> None:
    ring = np.ones((2, 3, 3, 1), np.int32)
    ring[:, 1, 1] = 0
    assert apply("post", ["fill_holes"], [ring]).all()


@pytest.mark.parametrize("labels", [np.zeros((2, 2), int), np.zeros((1, 2, 2, 1)), np.full((1, 2, 2, 1), -1)])
def test_what_are_no_labels_is_refused(labels: Labels) -> None:
    with pytest.raises(ValueError, match="labels has the shape"):
        fill_holes(labels)
