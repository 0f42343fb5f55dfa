from __future__ import annotations

import numpy as np
import pytest

from redis_consumer.errors import InvalidImage
from redis_consumer.images import Image, select_channels, to_batch
from redis_consumer.job import DIMENSION_ORDERS

SIZES = {"Y": 6, "X": 5, "C": 3, "S": 4, "T": 2, "Z": 7, "Q": 2, "I": 2, "B": 2}


def image_of(axes: str) -> Image:
    shape = tuple(SIZES[letter] for letter in axes)
    return Image(np.arange(np.prod(shape), dtype=np.uint16).reshape(shape), axes, name="a.tif")


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        ("YX", (1, 6, 5, 1)),
        ("XY", (1, 6, 5, 1)),
        ("YXC", (1, 6, 5, 3)),
        ("CYX", (1, 6, 5, 3)),
        ("YXS", (1, 6, 5, 4)),
        ("SYX", (1, 6, 5, 4)),
        ("TYX", (2, 6, 5, 1)),
        ("QYX", (2, 6, 5, 1)),
        ("IYX", (2, 6, 5, 1)),
        ("ZYX", (7, 6, 5, 1)),
        ("BYXC", (2, 6, 5, 3)),
        ("TZCYX", (14, 6, 5, 3)),
        ("TCYXS", (2, 6, 5, 12)),
        ("QQYX", (4, 6, 5, 1)),
    ],
)
def test_metadata_axes_become_batch_and_channels(axes: str, shape: tuple[int, ...]) -> None:
    batch = to_batch(image_of(axes))
    assert batch.shape == shape
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous


def test_planes_stay_whole() -> None:
    image = image_of("TCZYX")
    batch = to_batch(image)
    assert np.array_equal(batch[1 * 7 + 3, ..., 2], image.array[1, 2, 3])


@pytest.mark.parametrize(
    ("order", "axes", "shape"),
    [
        ("BXY", "CYX", (3, 6, 5, 1)),
        ("CXY", "QYX", (1, 6, 5, 2)),
        ("XYB", "YXC", (3, 6, 5, 1)),
        ("XYC", "YXS", (1, 6, 5, 4)),
        ("BXYC", "TYXC", (2, 6, 5, 3)),
        ("CXYB", "TYXC", (3, 6, 5, 2)),
        ("yxb", "YXC", (3, 6, 5, 1)),
        (" BYX ", "CYX", (3, 6, 5, 1)),
    ],
)
def test_dimension_order_overrules_the_file(order: str, axes: str, shape: tuple[int, ...]) -> None:
    assert to_batch(image_of(axes), order).shape == shape


@pytest.mark.parametrize("order", DIMENSION_ORDERS)
def test_a_single_plane_fits_every_order(order: str) -> None:
    assert to_batch(image_of("YX"), order).shape == (1, 6, 5, 1)


@pytest.mark.parametrize(("order", "axes"), [("XY", "YXC"), ("BXYC", "CYX"), ("BXY", "TZYX")])
def test_wrong_rank_names_field_and_both_ranks(order: str, axes: str) -> None:
    with pytest.raises(InvalidImage, match=rf"^a\.tif: field dimension_order: {order} names \d axes, but .* has \d"):
        to_batch(image_of(axes), order)


def test_unknown_order_lists_the_known_ones() -> None:
    with pytest.raises(InvalidImage, match="'TXQ' is unknown; give one of XY BXY"):
        to_batch(image_of("TYX"), "TXQ")


def test_selects_channels_in_the_order_asked_for() -> None:
    batch = to_batch(image_of("CYX"))
    assert np.array_equal(select_channels(batch, (2, 0), "a.tif"), batch[..., [2, 0]])


def test_all_channels_are_the_batch_itself() -> None:
    batch = to_batch(image_of("CYX"))
    assert select_channels(batch, (0, 1, 2), "a.tif") is batch


@pytest.mark.parametrize("index", [3, -1])
def test_missing_channel_names_file_and_field(index: int) -> None:
    with pytest.raises(InvalidImage, match=rf"^a\.tif: field channels asks for channel {index}, but the image has 3"):
        select_channels(to_batch(image_of("CYX")), (0, index), "a.tif")
