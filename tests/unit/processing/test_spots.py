"""Spots: positions between the pixels, from the maps of a model or from the image itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_consumer.processing.render import RED, mark_points
from redis_consumer.processing.spots import points_of_blobs, points_of_maps


def maps(*spots: tuple[int, int], shape: tuple[int, int] = (12, 14)) -> tuple[Any, Any]:
    classes, offsets = np.zeros((2, *shape, 2), np.float32)
    for y, x in spots:
        classes[y, x, 1] = 0.99
        offsets[y, x] = 0.125, -0.375
    return classes, offsets


def blobs(points: list[tuple[float, float]], sigma: float = 1.5, side: int = 40) -> Any:
    y, x = np.mgrid[:side, :side]
    return sum(np.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * sigma**2)) for a, b in points)


def test_a_maximum_is_moved_by_its_offset() -> None:
    assert points_of_maps(*maps((3, 4), (8, 2))).tolist() == [[3.125, 3.625], [8.125, 1.625]]


def test_neighbours_are_one_spot() -> None:
    classes, offsets = maps((3, 4), (3, 5))
    classes[3, 4, 1] = 0.999
    assert points_of_maps(classes, offsets).tolist() == [[3.125, 3.625]]


def test_a_plateau_is_one_spot() -> None:
    assert points_of_maps(*maps((3, 4), (3, 5), (8, 8))).tolist() == [[3.125, 4.125], [8.125, 7.625]]


@pytest.mark.parametrize("spot", [(0, 5), (11, 5), (5, 0), (5, 13)])
def test_the_border_has_no_spots(spot: tuple[int, int]) -> None:
    assert len(points_of_maps(*maps(spot))) == 0


def test_a_threshold_is_exclusive() -> None:
    classes, offsets = maps((3, 4))
    assert len(points_of_maps(classes, offsets, threshold=float(classes[3, 4, 1]))) == 0


def test_other_maps_are_refused() -> None:
    classes, offsets = maps()
    with pytest.raises(ValueError, match=r"wanted two of \(Y, X, 2\)"):
        points_of_maps(classes, offsets[..., :1])
    classes[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        points_of_maps(classes, offsets)


@given(st.tuples(st.floats(8, 31), st.floats(8, 31)), st.floats(1.0, 2.5))
def test_a_blob_is_found_between_the_pixels(point: tuple[float, float], sigma: float) -> None:
    (found,) = points_of_blobs(blobs([point], sigma), sigma)
    np.testing.assert_allclose(found, point, atol=0.1)


def test_a_blob_between_two_pixels_is_one_spot() -> None:
    np.testing.assert_allclose(points_of_blobs(blobs([(8.0, 8.5), (20.5, 20.5)], 1.0), 1.0), [(8, 8.5), (20.5, 20.5)])


def test_noise_has_no_blobs() -> None:
    assert len(points_of_blobs(np.random.default_rng(1).normal(size=(128, 128)))) == 0


def test_dim_blobs_are_found_in_noise() -> None:
    truth = [(10.0, 10.5), (25.2, 30.0), (33.0, 12.8)]
    image = blobs(truth) + np.random.default_rng(1).normal(0, 0.05, (40, 40))
    np.testing.assert_allclose(points_of_blobs(image), truth, atol=0.3)


@pytest.mark.parametrize("image", [np.zeros((9, 9)), np.full((9, 9), 7), np.ones((2, 9)), np.zeros((1, 1))])
def test_a_blank_image_has_no_blobs(image: Any) -> None:
    assert points_of_blobs(image).shape == (0, 2)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="wanted"):
        points_of_blobs(np.zeros((3, 3, 3)))
    with pytest.raises(ValueError, match="above 0"):
        points_of_blobs(np.zeros((3, 3)), 0)


def test_a_picture_shows_crosses_and_the_pixels_of_spots() -> None:
    picture = mark_points(np.zeros((9, 9)), np.array([[4.2, 3.9], [0, 0], [-5, 40]]))
    assert picture[4, 4].tolist() == [0, 0, 0]
    assert [picture[place].tolist() for place in [(2, 4), (4, 7), (8, 4), (0, 3)]] == [list(RED)] * 4
