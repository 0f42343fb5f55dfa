"""What linking models are told of cells."""

from __future__ import annotations

import numpy as np
import pytest

from redis_consumer.tracking.features import adjacency, cut_square, describe, neighborhood

LABELS = np.zeros((30, 40), np.uint16)
LABELS[0:6, 4:10] = 7
LABELS[12:20, 20:28] = 3
IMAGE = np.arange(1200.0).reshape(30, 40)


def test_cells_come_in_the_order_of_their_labels() -> None:
    cells = describe(LABELS, IMAGE, side_px=32)
    assert (len(cells), cells.labels.tolist()) == (2, [3, 7])
    assert cells.areas_px.tolist() == [64, 36]
    assert cells.centroids_px.tolist() == [[15.5, 23.5], [2.5, 6.5]]
    assert cells.at_border.tolist() == [False, True]
    assert cells.morphologies[0].tolist() == [64, 28, 0]


def test_a_box_is_resized_and_keeps_its_brightness() -> None:
    cells = describe(LABELS, IMAGE, side_px=16)
    assert cells.appearances.shape == (2, 16, 16, 1)
    assert cells.appearances[0].mean() == pytest.approx(IMAGE[12:20, 20:28].mean(), rel=1e-3)


def test_a_fixed_square_is_cut_around_the_centre_and_normalized() -> None:
    plain = describe(LABELS, IMAGE, side_px=8, is_fixed=True)
    np.testing.assert_array_equal(plain.appearances[0, ..., 0], IMAGE[11:19, 19:27])
    normal = describe(LABELS, IMAGE, side_px=8, is_fixed=True, normalize=True)
    assert normal.appearances[0].mean() == pytest.approx(0, abs=1e-5)
    assert normal.appearances[0].std() == pytest.approx(1, abs=1e-5)


def test_a_frame_without_cells_has_none() -> None:
    cells = describe(np.zeros((4, 5), int), np.zeros((4, 5)), side_px=32)
    assert (len(cells), cells.appearances.shape, cells.morphologies.shape) == (0, (0, 32, 32, 1), (0, 3))


@pytest.mark.parametrize("center", [(0, 0), (29, 39), (-50, 3), (15, 90)])
def test_beyond_the_image_is_nothing(center: tuple[int, int]) -> None:
    padded = np.pad(IMAGE, 200)
    top, left = center[0] + 200 - 5, center[1] + 200 - 5
    np.testing.assert_array_equal(cut_square(IMAGE, center, 11), padded[top : top + 11, left : left + 11])


def test_a_neighbourhood_is_resized_from_201_pixels() -> None:
    image = np.ones((500, 500))
    patch = neighborhood(image, np.array([250.0, 250.0]), 61)
    assert patch.shape == (61, 61)
    np.testing.assert_allclose(patch, 1, rtol=1e-5)


def test_neighbours_are_those_within_the_distance() -> None:
    links = adjacency(np.array([[0.0, 0.0], [0.0, 5.0], [0.0, 50.0]]), 10)
    wanted = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    np.testing.assert_allclose(links, wanted, atol=1e-4)
