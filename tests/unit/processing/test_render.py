from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from redis_consumer.images import read_image
from redis_consumer.processing.render import overlay_outlines, show_difference, stretch, thumbnail, to_png_bytes

NUCLEI = Path(__file__).parents[3] / "data" / "nuclei.tif"
RED = (255, 0, 0)


def drawn(labels: np.ndarray, thickness: int = 1) -> np.ndarray:
    picture = overlay_outlines(np.zeros(labels.shape), labels, color=RED, thickness=thickness)
    return np.asarray(np.all(picture == RED, axis=-1))


def test_outlines_lie_inside_their_region() -> None:
    labels = np.zeros((12, 12), np.int32)
    labels[2:9, 3:10] = 5
    expected = labels > 0
    expected[3:8, 4:9] = False
    assert np.array_equal(drawn(labels), expected)


def test_thickness_grows_inwards() -> None:
    labels = np.zeros((12, 12), np.int32)
    labels[2:9, 3:10] = 5
    expected = labels > 0
    expected[4:7, 5:8] = False
    assert np.array_equal(drawn(labels, thickness=2), expected)


def test_touching_cells_are_parted_by_a_line() -> None:
    labels = np.ones((6, 8), np.int32)
    labels[:, 4:] = 2
    assert drawn(labels)[:, 3:5].all()
    assert not drawn(labels)[:, :3].any()


def test_background_alone_is_left_as_it_is() -> None:
    image = np.arange(12.0).reshape(3, 4)
    picture = overlay_outlines(image, np.zeros((3, 4), int))
    assert np.array_equal(picture, np.repeat(stretch(image)[..., np.newaxis], 3, axis=-1))


def test_refuses_images_of_two_sizes() -> None:
    with pytest.raises(ValueError, match="one size"):
        overlay_outlines(np.zeros((3, 4)), np.zeros((4, 4), int))


def test_stretch_shows_dim_cells_next_to_a_hot_pixel() -> None:
    image = np.zeros((100, 100), np.uint16)
    image[:50] = 200
    image[0, 0] = 65535
    levels = stretch(image)
    assert levels[20, 20] == 255
    assert levels[80, 80] == 0


@pytest.mark.parametrize("image", [np.zeros((5, 5)), np.full((5, 5), 7, np.uint8), np.zeros((0, 5))])
def test_stretch_of_a_constant_is_black(image: np.ndarray) -> None:
    assert not stretch(image).any()


def test_stretch_shows_a_lone_spot() -> None:
    image = np.zeros((100, 100))
    image[3, 3] = 5
    assert stretch(image)[3, 3] == 255


def test_png_and_thumbnail_of_the_real_image() -> None:
    picture = stretch(read_image(NUCLEI).array)
    small = thumbnail(picture, 200)
    assert small.shape == (152, 200)
    with Pillow.open(BytesIO(to_png_bytes(small))) as decoded:
        assert np.array_equal(np.asarray(decoded), small)


def test_thumbnail_never_enlarges() -> None:
    assert thumbnail(np.zeros((5, 8, 3), np.uint8), 100).shape == (5, 8, 3)


def test_pixels_that_differ_are_red_and_the_outlines_of_both_are_seen() -> None:
    before, after = np.zeros((2, 12, 12), np.int32)
    before[1:6, 1:6] = 1
    after[1:6, 1:8] = 1
    picture = show_difference(np.zeros((12, 12)), before, after)
    assert np.array_equal(np.all(picture == (255, 40, 40), axis=-1), before != after)
    assert tuple(picture[1, 1]) == (64, 156, 255)
    assert tuple(picture[3, 5]) == (255, 214, 10)
