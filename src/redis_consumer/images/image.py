"""Defines an image (pixels with axes and pixel size), the limits of its size, and the order of its axes for a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import InvalidImage
from redis_consumer.images.calibration import Calibration
from redis_consumer.job import DIMENSION_ORDERS
from redis_consumer.options import ImageLimits

Array = npt.NDArray[Any]
Batch = npt.NDArray[np.float32]

#: Size of pixels that is always allowed, and above it the largest ratio to the stored bytes. Compression makes blank
#: images a thousand times smaller, and images of cells hardly ten times.
SMALL_BYTES = 256 << 20
MAX_RATIO = 200

_CANONICAL = {order: order.replace("XY", "YX") for order in DIMENSION_ORDERS}
_CANONICAL.update({order: order for order in _CANONICAL.values()})


@dataclass(frozen=True)
class Image:
    """Pixels as a file holds them.

    Attributes:
        array: any rank of 2 or more, any real dtype, every value finite.
        axes: one letter an axis of `array`: Y, X, C (channel), S (sample of a colour), T (frame), Z (plane),
            B (batch); other letters are axes that the file doesn't explain.
        pixel_size_um: side of a pixel in micrometres, None if the file doesn't say.
        name: the user's name for the file, for messages.
    """

    array: Array
    axes: str
    pixel_size_um: float | None = None
    name: str = "image"

    def __post_init__(self) -> None:
        if len(self.axes) != self.array.ndim:
            raise ValueError(f"axes {self.axes!r} don't fit an array of shape {self.array.shape}")


@dataclass(frozen=True)
class Source:
    """An opened file whose header is read and whose pixels are not.

    Attributes:
        shape: of the array that `decode` gives.
        axes: one letter an axis, see `Image`.
        dtype: of the array that `decode` gives.
        decode: reads the pixels; only while the file is open.
        pixel_size_um: side of a pixel in micrometres, None if the file doesn't say or pixels aren't square.
        pixel_yx_um: height and width of a pixel in micrometres, None if the file doesn't say.
        decoder_bytes: what decoding takes at most, where that is more than the array (padded tiles).
        stored_bytes: bytes of the file that become pixels; None if they are as many as the pixels take.
        spacing_um: distance of two planes in micrometres, None if the file doesn't say.
        interval_s: seconds between two frames, None if the file doesn't say.
    """

    shape: tuple[int, ...]
    axes: str
    dtype: np.dtype[Any]
    decode: Callable[[], Array]
    pixel_size_um: float | None = None
    pixel_yx_um: tuple[float, float] | None = None
    decoder_bytes: int = 0
    stored_bytes: int | None = None
    spacing_um: float | None = None
    interval_s: float | None = None


def square_um(pixel_yx_um: tuple[float, float] | None) -> float | None:
    """Return the side of a pixel; None if it is unknown or its height and width differ by more than 1 %."""
    if pixel_yx_um is None or abs(pixel_yx_um[0] - pixel_yx_um[1]) > 0.01 * pixel_yx_um[1]:
        return None
    return pixel_yx_um[1]


def check_source(source: Source, limits: ImageLimits, name: str) -> None:
    """Refuse a header that isn't of an image, or whose image is too large.

    Raises:
        InvalidImage: axes, dtype or size are not acceptable; the message starts with `name`.
    """
    if source.axes.count("Y") != 1 or source.axes.count("X") != 1:
        raise InvalidImage(f"{name}: its axes {source.axes} hold no image plane; save it with one Y and one X axis")
    if source.dtype.kind not in "buif":
        raise InvalidImage(f"{name}: pixels of type {source.dtype} aren't real numbers; save integers or floats")
    if 0 in source.shape:
        raise InvalidImage(f"{name}: holds no pixels (shape {_shape_text(source.shape)}); export the image again")
    _check_side(source, "Y", limits.max_height, "MAX_IMAGE_HEIGHT", name)
    _check_side(source, "X", limits.max_width, "MAX_IMAGE_WIDTH", name)
    check_frames(
        prod(side for side, axis in zip(source.shape, source.axes, strict=True) if axis not in "YXCS"),
        limits.max_frames,
        name,
    )
    size = max(prod(source.shape) * source.dtype.itemsize, source.decoder_bytes)
    if size > limits.max_bytes:
        raise InvalidImage(
            f"{name}: its pixels (shape {_shape_text(source.shape)}) take {size / 2**20:.0f} MiB, allowed are "
            f"{limits.max_bytes / 2**20:.0f} MiB; split the image into several files"
        )
    _check_ratio(source, size, name)


def check_frames(count: int, limit: int | None, name: str) -> None:
    """Refuse an image of more planes than allowed.

    Args:
        count: planes besides channels.
        limit: how many may be; None for any number.
        name: the user's name for the file, for the message.

    Raises:
        InvalidImage: there are more.
    """
    if limit is not None and count > limit:
        raise InvalidImage(
            f"{name}: {count} frames, allowed are {limit} (MAX_IMAGE_FRAMES); split the stack or ask for a higher limit"
        )


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
    """Return the shape that `to_batch` makes of an image, before anything is copied.

    Args:
        shape: of the image's array.
        axes: one letter an axis.
        dimension_order: as for `to_batch`.
        name: the user's name for the file, for messages.

    Raises:
        InvalidImage: as `to_batch`.
    """
    frames, height, width, channels = (
        prod(shape[axis] for axis in group) for group in _groups(shape, axes, dimension_order, name)
    )
    return frames, height, width, channels


def calibration_of(source: Source, dimension_order: str, name: str) -> Calibration:
    """Return the axes of the frames that `to_batch` makes of an image, and its sizes.

    Args:
        source: the opened file.
        dimension_order: as for `to_batch`.
        name: the user's name for the file, for messages.

    Raises:
        InvalidImage: as `to_batch`.
    """
    letters = _letters(source.shape, source.axes, dimension_order, name)
    axes = [(letter, side) for letter, side in zip(letters, source.shape, strict=True) if letter not in "YXCS"]
    return Calibration(
        tuple((letter, side) for letter, side in axes if side > 1),
        source.pixel_yx_um,
        source.spacing_um,
        source.interval_s,
    )


def select_channels(batch: Array, indices: Sequence[int], name: str) -> Array:
    """Take channels by index, in the order asked for.

    Args:
        batch: (B, Y, X, C).
        indices: of the wanted channels, from 0.
        name: the user's name for the file, for messages.

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


def _check_ratio(source: Source, size: int, name: str) -> None:
    """Refuse a file of few bytes with very many pixels. Processing them would take hours."""
    if source.stored_bytes is not None and size > max(SMALL_BYTES, MAX_RATIO * source.stored_bytes):
        raise InvalidImage(
            f"{name}: its pixels (shape {_shape_text(source.shape)}) take {size / 2**20:.0f} MiB, but only "
            f"{source.stored_bytes} bytes of the file hold them; above {SMALL_BYTES >> 20} MiB, allowed are "
            f"{MAX_RATIO} times as many as stored; crop the image to what isn't empty"
        )


def _check_side(source: Source, axis: str, limit: int | None, setting: str, name: str) -> None:
    side = source.shape[source.axes.index(axis)]
    if limit is not None and side > limit:
        word = "high" if axis == "Y" else "wide"
        raise InvalidImage(
            f"{name}: {side} px {word}, allowed are {limit} px ({setting}); crop the image or ask for a higher limit"
        )


def _shape_text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _groups(shape: tuple[int, ...], axes: str, dimension_order: str, name: str) -> tuple[list[int], ...]:
    """Return the indices of the axes that become batch, rows, columns and channels."""
    letters = _letters(shape, axes, dimension_order, name)
    batch = [axis for axis, letter in enumerate(letters) if letter not in "YXCS"]
    channel = [axis for axis, letter in enumerate(letters) if letter in "CS"]
    return batch, [letters.index("Y")], [letters.index("X")], channel


def _letters(shape: tuple[int, ...], axes: str, dimension_order: str, name: str) -> str:
    """Return the letter of each axis of a file, by the job's order or by the file."""
    order = dimension_order.strip().upper()
    return _overruled(len(shape), axes, order, name) if order else axes


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
