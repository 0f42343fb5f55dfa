"""Defines an image (pixels with axes and pixel size), the limits of its size, and the order of its axes for a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import InvalidImage
from redis_consumer.images.axes import FROM_FILE, as_read, reading_of, resolve
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.channels import Channel, Channels
from redis_consumer.options import ImageLimits

Array = npt.NDArray[Any]
Batch = npt.NDArray[np.float32]

#: float32 holds all integers up to this one.
EXACT = 1 << 24
#: Size of pixels that is always allowed, and above it the largest ratio to the stored bytes. Compression makes blank
#: images a thousand times smaller, and images of cells hardly ten times.
SMALL_BYTES = 256 << 20
MAX_RATIO = 200


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
        axes_from: who says what the axes are, see `redis_consumer.images.axes.resolve`.
        channels: what the file says of each channel; empty if it says nothing.
        notes: what the user should know about the pixels, for the job's field ``warning``.
        orientation: the tag of a TIFF that says how viewers turn its rows and columns; 1 as they are.
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
    axes_from: str = FROM_FILE
    channels: tuple[Channel, ...] = ()
    notes: tuple[str, ...] = ()
    orientation: int = 1

    @property
    def reading(self) -> str:
        """The job's field ``axes_read``: axes, shape, and who says so."""
        return reading_of(self.shape, self.axes, self.axes_from)

    def placed(self, order: str, name: str) -> Source:
        """The same file with a letter for each axis.

        Args:
            order: the job's field ``dimension_order``; empty for none.
            name: the user's name for the file, for messages.

        Raises:
            InvalidImage: as `redis_consumer.images.axes.resolve`.
        """
        axes, axes_from = resolve(self.shape, self.axes, order, name)
        # Names belong to the axis for which the file gives them.
        is_same = "C" in axes and axes.find("C") == self.axes.find("C")
        return replace(self, axes=axes, axes_from=axes_from, channels=self.channels if is_same else ())

    @property
    def all_channels(self) -> Channels:
        """What is known of the channels that `to_batch` makes."""
        counts = {
            letter: prod(side for side, axis in zip(self.shape, self.axes, strict=True) if axis == letter)
            for letter in "CS"
        }
        is_last = self.axes.rfind("S") > self.axes.find("C")
        return Channels.of(counts["C"], (counts["S"], 1 if is_last else counts["C"]), self.channels, self.reading)


def square_um(pixel_yx_um: tuple[float, float] | None) -> float | None:
    """Return the side of a pixel; None if it is unknown or its height and width differ by more than 1 %."""
    if pixel_yx_um is None or abs(pixel_yx_um[0] - pixel_yx_um[1]) > 0.01 * pixel_yx_um[1]:
        return None
    return pixel_yx_um[1]


def check_source(source: Source, limits: ImageLimits, name: str, way_out: str = "") -> None:
    """Refuse a header that isn't of an image, or whose image is too large.

    Args:
        source: its axes are known.
        limits: how large it may be.
        name: the user's name for the file, for messages.
        way_out: what to do with an image that is too high or wide; empty to crop it.

    Raises:
        InvalidImage: axes, dtype or size are not acceptable; the message starts with `name`.
    """
    if source.axes.count("Y") != 1 or source.axes.count("X") != 1:
        raise InvalidImage(f"{name}: its axes {source.axes} hold no image plane; save it with one Y and one X axis")
    if source.dtype.kind not in "buif":
        raise InvalidImage(f"{name}: pixels of type {source.dtype} aren't real numbers; save integers or floats")
    if 0 in source.shape:
        raise InvalidImage(f"{name}: holds no pixels (shape {_shape_text(source.shape)}); export the image again")
    _check_side(source, "Y", (limits.max_height, "MAX_IMAGE_HEIGHT"), name, way_out)
    _check_side(source, "X", (limits.max_width, "MAX_IMAGE_WIDTH"), name, way_out)
    check_frames(
        prod(side for side, axis in zip(source.shape, source.axes, strict=True) if axis not in "YXCS"),
        limits.max_frames,
        name,
        source.reading,
    )
    size = max(prod(source.shape) * source.dtype.itemsize, source.decoder_bytes)
    if size > limits.max_bytes:
        raise InvalidImage(
            f"{name}: its pixels (shape {_shape_text(source.shape)}) take {size / 2**20:.0f} MiB, allowed are "
            f"{limits.max_bytes / 2**20:.0f} MiB; split the image into several files"
        )
    _check_ratio(source, size, name)


def check_frames(count: int, limit: int | None, name: str, reading: str = "") -> None:
    """Refuse an image of more planes than allowed.

    Args:
        count: planes besides channels.
        limit: how many may be; None for any number.
        name: the user's name for the file, for the message.
        reading: how its axes were read; empty if that doesn't matter.

    Raises:
        InvalidImage: there are more.
    """
    if limit is not None and count > limit:
        raise InvalidImage(
            f"{name}: {count} frames, allowed are {limit} (MAX_IMAGE_FRAMES); split the stack or ask for a higher "
            f"limit {as_read(reading)}".rstrip()
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
        (B, Y, X, C) float32; without the offset of a channel that float32 could not hold, see `offsets_of`.

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
    if needs_offsets(ordered.dtype) and ordered.size:
        return without_offsets(ordered, offsets_of(ordered.min(axis=(0, 1, 2)), ordered.max(axis=(0, 1, 2))))
    return np.ascontiguousarray(ordered, dtype=np.float32)


def needs_offsets(dtype: np.dtype[Any]) -> bool:
    """Return whether a type holds differences that float32 can't, next to a large offset."""
    return (dtype.kind in "iu" and dtype.itemsize > 2) or (dtype.kind == "f" and dtype.itemsize > 4)


def offsets_of(low: Array, high: Array) -> Array:
    """Return what `without_offsets` subtracts from each channel, so that float32 keeps the differences of its values.

    It is the lowest value of a channel that has a value beyond 2^24, up to which float32 holds all integers, if all of
    its values have the same sign. Otherwise it is 0.

    Args:
        low: (C,) lowest value of each channel, in the dtype of the file.
        high: (C,) highest value of each channel.

    >>> offsets_of(np.array([2**31, 0], np.uint32), np.array([2**31 + 9, 2**31], np.uint32)).tolist()
    [2147483648, 0]
    """
    is_far = np.maximum(np.abs(low.astype(np.float64)), np.abs(high.astype(np.float64))) > EXACT
    return np.where(is_far & ((low > 0) | (high < 0)), low, np.zeros_like(low))


def without_offsets(array: Array, offsets: Array) -> Batch:
    """Return (..., C) as float32 without the offset of each channel, see `offsets_of`."""
    if not offsets.any():
        return np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array - offsets, dtype=np.float32)
    # Unsigned, the difference is right even where it is beyond a signed type.
    unsigned = np.dtype(f"u{array.dtype.itemsize}")
    difference = array.astype(unsigned, copy=False) - offsets.astype(unsigned)
    is_kept = offsets == 0
    result = np.ascontiguousarray(difference, dtype=np.float32)
    result[..., is_kept] = array[..., is_kept]
    return result


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


def calibration_of(source: Source) -> Calibration:
    """Return the axes of the frames that `to_batch` makes of an image, and its sizes."""
    axes = [(letter, side) for letter, side in zip(source.axes, source.shape, strict=True) if letter not in "YXCS"]
    return Calibration(
        tuple((letter, side) for letter, side in axes if side > 1),
        source.pixel_yx_um,
        source.spacing_um,
        source.interval_s,
        orientation=source.orientation,
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


def _check_side(source: Source, axis: str, limit: tuple[int | None, str], name: str, way_out: str) -> None:
    side, (most, setting) = source.shape[source.axes.index(axis)], limit
    if most is not None and side > most:
        word = "high" if axis == "Y" else "wide"
        advice = way_out or "crop the image or ask for a higher limit"
        raise InvalidImage(
            f"{name}: {side} px {word}, allowed are {most} px ({setting}); {advice} {as_read(source.reading)}"
        )


def _shape_text(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _groups(shape: tuple[int, ...], axes: str, dimension_order: str, name: str) -> tuple[list[int], ...]:
    """Return the indices of the axes that become batch, rows, columns and channels."""
    letters = resolve(shape, axes, dimension_order, name)[0] if dimension_order.strip() else axes
    batch = [axis for axis, letter in enumerate(letters) if letter not in "YXCS"]
    channel = [axis for axis, letter in enumerate(letters) if letter in "CS"]
    return batch, [letters.index("Y")], [letters.index("X")], channel
