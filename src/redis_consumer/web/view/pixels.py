"""Opens an image of any readable format to show it: its planes by time, plane and channel, with its own values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.images import open_image, to_batch
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.channels import Channels
from redis_consumer.images.image import Image, Source, batch_shape, calibration_of, needs_offsets
from redis_consumer.images.kinds import kind_of
from redis_consumer.images.ome_zarr import is_ome_zarr
from redis_consumer.images.planes import NotWindowedError, Window
from redis_consumer.images.reading import VENDORS
from redis_consumer.images.windows import WindowedImage, open_windowed
from redis_consumer.options import ImageLimits

Array = npt.NDArray[Any]

#: Types whose values are shown as they are. Others become float32.
_EXACT = {"bool": "uint8", "uint8": "uint8", "uint16": "uint16"}
#: Formats that are read in windows; a file of another format is read whole.
_WINDOWED = frozenset({"TIFF", "NPY", *VENDORS})


@dataclass(frozen=True)
class ShownImage:
    """An open image.

    Attributes:
        shape: (B, Y, X, C).
        dtype: ``uint8``, ``uint16`` or ``float32``.
        read: takes the number of a frame and a window, gives (y, x, C) in this type; every value is finite.
        source: what the header says.
        name: the user's name for the file, for messages.
        kind: format of the file.
        channels: of the image.
        frames: number of the frame at each [t][z].
        notes: what the user should know about the pixels.
    """

    shape: tuple[int, int, int, int]
    dtype: str
    read: Callable[[int, Window], Array]
    source: Source
    name: str
    kind: str
    channels: Channels
    frames: list[list[int]]
    notes: list[str]


@contextmanager
def open_shown(path: Path, name: str, *, order: str = "", field: str = "", max_bytes: int) -> Iterator[ShownImage]:
    """Open an image.

    Args:
        path: the local file or folder.
        name: the user's name for it, for messages.
        order: the job's field ``dimension_order``; empty for none.
        field: which of several images in the file; empty for the only one.
        max_bytes: of the pixels of an image that can only be read whole.

    Raises:
        SeveralImages: it has several images and none is named.
        InvalidImage: it can't be read, or only whole and is too large for that.
    """
    kind = "OME-Zarr" if is_ome_zarr(path) else kind_of(path, name)
    if kind in _WINDOWED or kind == "OME-Zarr":
        try:
            with open_windowed(path, name=name, dimension_order=order, field=field) as image:
                yield _windowed(image)
            return
        except NotWindowedError:
            pass
    limits = ImageLimits(max_height=None, max_width=None, max_bytes=max_bytes)
    with open_image(path, limits=limits, name=name, dimension_order=order, field=field) as opened:
        yield _whole(opened.read(), opened.source, kind, opened.notes)


def _windowed(image: WindowedImage) -> ShownImage:
    exact = _EXACT.get(image.source.dtype.name)

    def read(frame: int, window: Window) -> Array:
        if exact is None:
            shown: Array = image.read(frame, window)[0]
            return shown
        return image.read_stored(frame, window).astype(exact, copy=False)

    return ShownImage(
        image.shape, exact or "float32", read, image.source, image.name, image.kind, image.channels,
        frames_by_place(image.calibration, image.shape[0]), image.notes,
    )  # fmt: skip


def _whole(image: Image, source: Source, kind: str, notes: list[str]) -> ShownImage:
    exact = _EXACT.get(image.array.dtype.name)
    shape = batch_shape(image.array.shape, image.axes, "", image.name)
    if exact is None or needs_offsets(image.array.dtype):
        batch = to_batch(image)
    else:
        letters = [axis for kind in ("other", "Y", "X", "CS") for axis in _axes(image.axes, kind)]
        batch = image.array.transpose(letters).reshape(shape).astype(exact, copy=False)
    frames = frames_by_place(calibration_of(source), shape[0])
    return ShownImage(
        shape, exact or "float32", lambda frame, window: batch[frame][window], source, image.name, kind,
        source.all_channels, frames, notes,
    )  # fmt: skip


def _axes(axes: str, kind: str) -> list[int]:
    if kind == "other":
        return [place for place, letter in enumerate(axes) if letter not in "YXCS"]
    return [place for place, letter in enumerate(axes) if letter in kind]


def frames_by_place(calibration: Calibration, count: int) -> list[list[int]]:
    """Return the number of the frame at each time and plane. Axes other than Z count as time.

    Args:
        calibration: axes of the frames of the image.
        count: number of frames, of the image or of its result.

    >>> frames_by_place(Calibration((("Z", 2), ("T", 3))), 6)
    [[0, 3], [1, 4], [2, 5]]
    """
    axes = calibration.fitting(count).axes
    shape = [length for _, length in axes]
    numbers = np.arange(prod(shape)).reshape(shape)
    z = [place for place, (letter, _) in enumerate(axes) if letter == "Z"]
    moved = np.moveaxis(numbers, z, range(len(shape) - len(z), len(shape)))
    depth = prod(shape[place] for place in z)
    result: list[list[int]] = moved.reshape(-1, depth).tolist()
    return result
