"""Makes one image of planes that a file holds one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from redis_consumer.errors import InvalidImage
from redis_consumer.images.channels import Channel
from redis_consumer.images.image import Array, Source
from redis_consumer.images.planes import Planes, Window

#: Reads a part of a plane: its index along all axes before Y, and rows and columns. Gives (y, x) or (y, x, sample).
ReadPlane = Callable[[tuple[int, ...], Window], Array]


def stacked(
    axes: dict[str, int],
    dtype: np.dtype[Any],
    read_plane: ReadPlane,
    *,
    pixel_size_um: float | None = None,
    stored_bytes: int | None = None,
    channels: Sequence[Channel] = (),
) -> Planes:
    """Return an image whose planes are read by themselves.

    Args:
        axes: sides by the letters of `redis_consumer.images.image.Image`, in the order of the array. Y and X come last,
            or before S.
        dtype: of its pixels.
        read_plane: see `ReadPlane`.
        pixel_size_um: side of a pixel, None if the file doesn't say.
        stored_bytes: bytes of the file that hold pixels at most, see `Source`.
        channels: what the file says of each channel.
    """
    shape, letters = tuple(axes.values()), "".join(axes)
    samples = axes.get("S", 1)
    others = shape[: letters.index("Y")]
    full = (slice(0, axes["Y"]), slice(0, axes["X"]))

    def decode() -> Array:
        array = np.empty(shape, dtype)
        for index in np.ndindex(others):
            array[index] = read_plane(index, full)
        return array

    def read(planes: Sequence[int], window: Window) -> Array:
        parts = []
        for plane in planes:
            index = tuple(int(number) for number in np.unravel_index(plane // samples, others)) if others else ()
            part = read_plane(index, window)
            parts.append(part[..., plane % samples] if samples > 1 else part)
        return np.stack(parts, axis=-1)

    source = Source(shape, letters, dtype, decode, pixel_size_um, stored_bytes=stored_bytes, channels=tuple(channels))
    return Planes(source, read)


def check_planes(axes: dict[str, int], found: int, name: str) -> None:
    """Refuse a file that lacks planes.

    Raises:
        InvalidImage: it has other than as many as its axes make.
    """
    wanted = prod(side for axis, side in axes.items() if axis not in "YXS")
    if found != wanted:
        listed = ", ".join(f"{axis}={side}" for axis, side in axes.items() if axis not in "YXS")
        raise InvalidImage(
            f"{name}: has {found} of the {wanted} planes of its axes ({listed}); export the complete ones as OME-TIFF"
        )
