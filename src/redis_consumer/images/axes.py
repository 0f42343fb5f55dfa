"""Orders the axes of an image as (batch, y, x, channel)."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import InvalidImage
from redis_consumer.images.image import Array, Image
from redis_consumer.job import DIMENSION_ORDERS

Batch = npt.NDArray[np.float32]

_CANONICAL = {order: order.replace("XY", "YX") for order in DIMENSION_ORDERS}
_CANONICAL.update({order: order for order in _CANONICAL.values()})


def to_batch(image: Image, dimension_order: str = "") -> Batch:
    """Order the axes of an image as models want them.

    C and S become channels; every axis other than Y and X becomes batch, several ones multiplied in the
    order of the file.

    Args:
        image: any axes with one Y and one X.
        dimension_order: the job's field, which overrides the axes of the file; empty for the file's own.
            An image of one plane fits every order.

    Returns:
        (B, Y, X, C) float32.

    Raises:
        InvalidImage: `dimension_order` is unknown, or doesn't fit the image's rank.

    >>> to_batch(Image(np.zeros((3, 8, 6), np.uint8), "CYX")).shape
    (1, 8, 6, 3)
    >>> to_batch(Image(np.zeros((3, 8, 6), np.uint8), "CYX"), "BXY").shape
    (3, 8, 6, 1)
    """
    groups = _groups(image.array.shape, image.axes, dimension_order, image.name)
    shape = [prod(image.array.shape[axis] for axis in group) for group in groups]
    ordered = image.array.transpose(*[axis for group in groups for axis in group]).reshape(shape)
    return np.ascontiguousarray(ordered, dtype=np.float32)


def batch_shape(shape: tuple[int, ...], axes: str, dimension_order: str, name: str) -> tuple[int, int, int, int]:
    """Give the shape that `to_batch` makes of an image, before anything is copied.

    Args:
        shape: of the image's array.
        axes: one letter an axis.
        dimension_order: as for `to_batch`.
        name: the scientist's name of the file, for messages.

    Raises:
        InvalidImage: as `to_batch`.
    """
    frames, height, width, channels = (
        prod(shape[axis] for axis in group) for group in _groups(shape, axes, dimension_order, name)
    )
    return frames, height, width, channels


def select_channels(batch: Array, indices: Sequence[int], name: str) -> Array:
    """Take channels by index, in the order asked for.

    Args:
        batch: (B, Y, X, C).
        indices: of the wanted channels, from 0.
        name: the scientist's name of the file, for messages.

    Returns:
        (B, Y, X, len(indices)) in the dtype of `batch`.

    Raises:
        InvalidImage: the image has no such channel.
    """
    count = batch.shape[-1]
    check_indices(indices, count, name)
    return batch if list(indices) == list(range(count)) else batch[..., list(indices)]


def check_indices(indices: Sequence[int], count: int, name: str) -> None:
    """Raise `InvalidImage` if one of `indices` is no channel of an image that has `count` of them."""
    for index in indices:
        if not 0 <= index < count:
            raise InvalidImage(
                f"{name}: field channels asks for channel {index}, but the image has {count} (0 to {count - 1}); "
                "correct the field, or upload an image with all channels"
            )


def _groups(shape: tuple[int, ...], axes: str, dimension_order: str, name: str) -> tuple[list[int], ...]:
    """Give the indices of the axes that become batch, rows, columns and channels."""
    order = dimension_order.strip().upper()
    letters = _overruled(len(shape), axes, order, name) if order else axes
    batch = [axis for axis, letter in enumerate(letters) if letter not in "YXCS"]
    channel = [axis for axis, letter in enumerate(letters) if letter in "CS"]
    return batch, [letters.index("Y")], [letters.index("X")], channel


def _overruled(rank: int, axes: str, order: str, name: str) -> str:
    if order not in _CANONICAL:
        raise InvalidImage(
            f"{name}: field dimension_order: {order!r} is unknown; give one of {' '.join(DIMENSION_ORDERS)}"
        )
    if rank == 2:
        return "YX"
    if len(order) != rank:
        raise InvalidImage(
            f"{name}: field dimension_order: {order} names {len(order)} axes, but the image has "
            f"{rank} ({axes}); correct the field, or leave it empty to use the file's own axes"
        )
    return _CANONICAL[order]
