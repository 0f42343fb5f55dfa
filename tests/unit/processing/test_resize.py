# scikit-image has no annotations.

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_consumer.errors import InvalidJob
from redis_consumer.processing.resize import (
    pad_image,
    rescale,
    reshape_matrix,
    resize,
    resize_image,
    resize_labels,
)

SIDES = st.integers(1, 60)


def test_scale_1_gives_the_same_object() -> None:
    image = np.zeros((4, 5, 1))
    assert rescale(image, 1) is image


@pytest.mark.parametrize(
    ("side", "scale", "expected"), [(5, 0.5, 2), (7, 0.5, 4), (3, 0.1, 1), (10, 0.25, 2), (10, 1.25, 12), (1, 3, 3)]
)
def test_rescale_rounds_half_to_even_and_keeps_a_pixel(side: int, scale: float, expected: int) -> None:
    assert rescale(np.zeros((side, 4, 1)), scale).shape[0] == expected


@pytest.mark.parametrize(
    ("shape", "channel_axis", "expected"),
    [
        ((6, 8), -1, (3, 4)),
        ((6, 8, 3), -1, (3, 4, 3)),
        ((3, 6, 8), 0, (3, 3, 4)),
        ((3, 6, 8), None, (3, 3, 4)),
        ((5, 6, 8, 1), -1, (5, 3, 4, 1)),
        ((5, 1, 6, 8), 1, (5, 1, 3, 4)),
    ],
)
def test_rescale_leaves_time_and_channels_alone(
    shape: tuple[int, ...], channel_axis: int | None, expected: tuple[int, ...]
) -> None:
    assert rescale(np.zeros(shape), 0.5, channel_axis).shape == expected


@given(height=SIDES, width=SIDES, scale=st.sampled_from([0.125, 0.25, 0.5, 2, 3, 4]))
@settings(max_examples=60)
def test_rescale_takes_the_pixels_that_scikit_image_takes(height: int, width: int, scale: float) -> None:
    from skimage.transform import resize as reference

    image = np.random.default_rng(height).integers(0, 2**20, (height, width))
    rescaled = rescale(image, scale)
    options = {"order": 0, "mode": "edge", "anti_aliasing": False, "preserve_range": True}
    assert np.array_equal(rescaled, reference(image.astype(float), rescaled.shape, **options))
    assert rescaled.dtype == image.dtype


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_rescale_refuses_impossible_scales(scale: float) -> None:
    with pytest.raises(InvalidJob, match="field scale"):
        rescale(np.zeros((4, 5, 1)), scale)


def test_rescale_refuses_a_line() -> None:
    with pytest.raises(ValueError, match="rank 1"):
        rescale(np.zeros(4), 2)


@given(shape=st.tuples(SIDES, SIDES), other=st.tuples(SIDES, SIDES))
@settings(max_examples=100)
def test_labels_come_back_to_the_size_of_their_image(shape: tuple[int, int], other: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).integers(0, 9, (2, *shape, 1)).astype(np.int32)
    there = resize_labels(labels, other)
    back = resize_labels(there, shape)
    assert there.shape == (2, *other, 1)
    assert back.shape == labels.shape
    assert back.dtype == labels.dtype
    assert set(np.unique(back)) <= set(np.unique(labels))


@given(shape=st.tuples(SIDES, SIDES), factor=st.integers(1, 4))
@settings(max_examples=60)
def test_enlarged_labels_come_back_unchanged(shape: tuple[int, int], factor: int) -> None:
    labels = np.arange(shape[0] * shape[1]).reshape(1, *shape, 1)
    enlarged = resize_labels(labels, (shape[0] * factor, shape[1] * factor))
    assert np.array_equal(resize_labels(enlarged, shape), labels)


@given(shape=st.tuples(SIDES, SIDES), other=st.tuples(SIDES, SIDES), channels=st.integers(1, 3))
@settings(max_examples=60)
def test_resized_images_stay_in_range(shape: tuple[int, int], other: tuple[int, int], channels: int) -> None:
    batch = np.random.default_rng(0).normal(0, 1e4, (2, *shape, channels))
    resized = resize_image(batch, other)
    assert resized.shape == (2, *other, channels)
    assert resized.dtype == np.float32
    assert resized.min() >= batch.min() - 1
    assert resized.max() <= batch.max() + 1


def test_shrinking_averages_instead_of_picking() -> None:
    stripes = np.tile(np.array([0.0, 100.0], np.float32), 32).reshape(1, 1, 64, 1).repeat(64, axis=1)
    shrunk = resize_image(stripes, (16, 16))
    assert np.abs(shrunk[0, 1:-1, 1:-1] - 50).max() < 2


def test_a_ramp_stays_a_ramp() -> None:
    ramp = np.arange(40, dtype=np.uint16).reshape(1, 1, 40, 1).repeat(3, axis=1)
    steps = np.diff(resize_image(ramp, (3, 80))[0, 1, 4:-4, 0])
    assert np.allclose(steps, 0.5)


def test_channels_and_items_do_not_mix() -> None:
    batch = np.zeros((2, 8, 8, 2), np.float32)
    batch[1, ..., 1] = 7
    resized = resize_image(batch, (5, 13))
    assert np.all(resized[1, ..., 1] == 7)
    assert not resized[0].any()
    assert not resized[1, ..., 0].any()


def test_same_size_is_not_touched() -> None:
    batch = np.zeros((1, 8, 8, 1), np.float32)
    assert resize_image(batch, (8, 8)) is batch
    assert resize_labels(batch, (8, 8)) is batch


@pytest.mark.parametrize("labeled", [True, False])
@pytest.mark.parametrize(
    ("shape", "data_format", "expected"),
    [
        ((6, 8, 1), "channels_last", (3, 5, 1)),
        ((6, 8, 2), "channels_last", (3, 5, 2)),
        ((2, 6, 8, 3), "channels_last", (2, 3, 5, 3)),
        ((3, 6, 8), "channels_first", (3, 3, 5)),
        ((2, 1, 6, 8), "channels_first", (2, 1, 3, 5)),
    ],
)
def test_resize_keeps_layout_and_dtype(
    shape: tuple[int, ...], data_format: str, expected: tuple[int, ...], labeled: bool
) -> None:
    data = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    resized = resize(data, (3, 5), data_format, labeled_image=labeled)
    assert resized.shape == expected
    assert resized.dtype == data.dtype


def test_resize_of_labels_mixes_none() -> None:
    data = np.random.default_rng(0).choice([0, 7, 1000], (9, 9, 1))
    assert set(np.unique(resize(data, (20, 5), labeled_image=True))) <= {0, 7, 1000}


def test_resize_of_one_channel_keeps_the_border() -> None:
    assert np.allclose(resize(np.full((6, 6, 1), 5.0), (12, 3)), 5)


@pytest.mark.parametrize(
    ("data", "shape", "data_format"),
    [(np.zeros((4, 4)), (2, 2), "channels_last"), (np.zeros((4, 4, 1)), (2, 2, 2), "channels_last"),
     (np.zeros((4, 4, 1)), (2, 2), "channels_middle")],
)  # fmt: skip
def test_resize_refuses_other_layouts(data: np.ndarray, shape: tuple[int, int], data_format: str) -> None:
    with pytest.raises(ValueError, match=r"rank|data_format"):
        resize(data, shape, data_format)


def test_reshape_matrix_aligns_the_last_squares_to_the_far_edge() -> None:
    images = np.arange(2 * 10 * 7 * 1).reshape(2, 10, 7, 1)
    squares, labels = reshape_matrix(images, images * 2, 4)
    assert squares.shape == (2 * 3 * 2, 4, 4, 1)
    assert (squares.dtype, labels.dtype) == (np.dtype("float32"), np.dtype("int32"))
    assert np.array_equal(squares[0], images[0, :4, :4])
    assert np.array_equal(squares[5], images[0, 6:, 3:])
    assert np.array_equal(labels[6], images[1, :4, :4] * 2)


def test_reshape_matrix_with_channels_first() -> None:
    images = np.arange(1 * 3 * 8 * 8).reshape(1, 3, 8, 8)
    squares, _ = reshape_matrix(images, images[:, :1], 4, is_channels_first=True)
    assert squares.shape == (4, 3, 4, 4)
    assert np.array_equal(squares[1], images[0, :, :4, 4:])


@pytest.mark.parametrize(("shape", "size"), [((8, 8, 1), 4), ((1, 8, 8, 1), 9), ((1, 8, 8, 1), 0)])
def test_reshape_matrix_refuses(shape: tuple[int, ...], size: int) -> None:
    with pytest.raises(ValueError, match=r"rank|fit"):
        reshape_matrix(np.zeros(shape), np.zeros(shape), size)


def test_pad_image_adds_the_field_around_the_plane() -> None:
    assert pad_image(np.zeros((3, 30, 20, 2)), 61).shape == (3, 90, 80, 2)
    assert pad_image(np.zeros((30, 20)), 61).shape == (90, 80)


@pytest.mark.parametrize("field", [1, 2])
def test_pad_image_of_no_field_adds_nothing(field: int) -> None:
    assert pad_image(np.zeros((1, 3, 2, 1)), field).shape == (1, 3, 2, 1)


def test_pad_image_reflects() -> None:
    assert pad_image(np.arange(3).reshape(1, 3, 1), 5)[0, :, 0].tolist() == [2, 1, 0, 1, 2, 1, 0]
