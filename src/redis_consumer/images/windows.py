"""Reads an image that is larger than memory, part by part."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from redis_consumer import wanted
from redis_consumer.errors import InvalidImage
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.image import (
    Array,
    Batch,
    Image,
    Source,
    calibration_of,
    check_frames,
    check_source,
    select_channels,
    to_batch,
)
from redis_consumer.images.kinds import kind_of_head, readable
from redis_consumer.images.ome_zarr import is_ome_zarr, open_ome_zarr
from redis_consumer.images.planes import NotWindowedError, Planes, Window, array_planes
from redis_consumer.images.reading import VENDORS, open_npy, open_source
from redis_consumer.images.tiff_planes import open_tiff_planes
from redis_consumer.options import ImageLimits

#: Planes, over all frames and channels: a table of them is held, and their numbers must be exact as float32.
_MAX_PLANES = 1 << 20
#: Formats of single files that can be read in parts.
_WINDOWED = frozenset({"TIFF", "NPY", *VENDORS})
_NO_SIDE_LIMITS = ImageLimits(max_height=None, max_width=None, max_bytes=sys.maxsize)


@dataclass(frozen=True)
class WindowedImage:
    """An open image whose parts are read.

    Attributes:
        shape: (B, Y, X, C) of the whole image, with the channels that were chosen.
        name: the user's name for the file, for messages.
        pixel_size_um: side of a pixel in micrometres, None if the file doesn't say or pixels aren't square.
        pixel_yx_um: height and width of a pixel in micrometres, None if the file doesn't say.
        calibration: axes of the frames and sizes in the file.
        kind: its format, for messages.
    """

    shape: tuple[int, int, int, int]
    name: str
    pixel_size_um: float | None
    pixel_yx_um: tuple[float, float] | None
    calibration: Calibration
    _planes: Planes
    _numbers: Array
    kind: str = "image"

    def read(self, frame: int, window: Window) -> Batch:
        """Read a part of one frame.

        Args:
            frame: from 0, below ``shape[0]``.
            window: rows and columns, within the image, with a start and a stop.

        Returns:
            (1, y, x, C) float32, every pixel finite.

        Raises:
            InvalidImage: the file is damaged there, or holds values that aren't finite float32.
        """
        with readable(self.kind, self.name):
            numbers = [int(number) for number in self._numbers[frame]]
            pixels = wanted.wait_for(lambda: self._planes.read(numbers, window))
            with np.errstate(over="ignore"):
                batch = np.ascontiguousarray(pixels[np.newaxis], np.float32)
        if not np.isfinite(batch).all():
            raise InvalidImage(
                f"{self.name}: holds pixels that are NaN, infinite or beyond float32; replace them and upload it again"
            )
        return batch


@contextmanager
def open_windowed(
    path: Path,
    *,
    name: str,
    dimension_order: str = "",
    channels: Sequence[int] | None = None,
    max_frames: int | None = None,
    max_plane_px: int | None = None,
    max_channels: int | None = None,
    field: str = "",
) -> Iterator[WindowedImage]:
    """Open a TIFF, NPY, CZI, LIF, ND2 or OME-Zarr (a folder, or zipped) to read it part by part.

    Args:
        path: local file or folder.
        name: the user's name for the file, for messages.
        dimension_order: as for `to_batch`; it can't make other axes than the file's own Y and X.
        channels: indices of the wanted channels, None for all.
        max_frames: as in `ImageLimits`.
        max_plane_px: pixels that a plane may have, None for any number.
        max_channels: channels that may be wanted, None for any number.
        field: which of several images in the file; empty for the only one.

    Raises:
        SeveralImages: it has several images and none is named.
        InvalidImage: damaged, not an image, no format that can be read in windows, or more than allowed.
        OSError: the local file can't be opened.
    """
    with ExitStack() as stack:
        kind = _kind(path) or ""
        with readable(kind, name):
            planes = wanted.wait_for(lambda: stack.enter_context(_open(path, name, field)))
        image = _windowed_image(planes, name, dimension_order, channels, (max_frames, max_plane_px))
        if max_channels is not None and image.shape[-1] > max_channels:
            raise InvalidImage(
                f"{name}: {image.shape[-1]} channels are too many to be read in parts, allowed are {max_channels}; "
                "name those to use in field channels, e.g. 0"
            )
        yield replace(image, kind=kind)


def is_large(path: Path, limits: ImageLimits, field: str = "") -> bool:
    """Return whether an image has a format that can be read in parts, and is too large by `limits` to be read at once.

    An OME-Zarr always counts as large. A damaged file never does, so that `read_image` reports what is wrong with it.
    """
    kind = _kind(path)
    if kind is None or kind == "OME-Zarr":
        return kind is not None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_source(kind, path, path.name, field) as source:
                return _exceeds(source, limits)
    except Exception:  # noqa: BLE001 - readers of damaged files raise nearly anything
        return False


def _exceeds(source: Source, limits: ImageLimits) -> bool:
    height, width = (source.shape[source.axes.index(axis)] for axis in "YX")
    return (
        (limits.max_height is not None and height > limits.max_height)
        or (limits.max_width is not None and width > limits.max_width)
        or max(prod(source.shape) * source.dtype.itemsize, source.decoder_bytes) > limits.max_bytes
    )


def _kind(path: Path) -> str | None:
    if is_ome_zarr(path):
        return "OME-Zarr"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(16)
    kind = kind_of_head(head)
    return kind if kind in _WINDOWED else None


def _open(path: Path, name: str, field: str) -> AbstractContextManager[Planes]:
    kind = _kind(path)
    openers = {"TIFF": open_tiff_planes, "OME-Zarr": open_ome_zarr, **VENDORS}
    if kind in openers:
        return openers[kind](path, name, field)
    if kind == "NPY":
        return _open_npy_planes(path, name)
    raise NotWindowedError(f"{name}: can't be read in parts; save it as TIFF with tiles, as OME-Zarr or as NPY")


@contextmanager
def _open_npy_planes(path: Path, name: str) -> Iterator[Planes]:
    with open_npy(path, name) as source:
        yield array_planes(source, lambda: np.load(path, mmap_mode="r", allow_pickle=False))


def _windowed_image(
    planes: Planes, name: str, order: str, channels: Sequence[int] | None, limits: tuple[int | None, int | None]
) -> WindowedImage:
    source = planes.source
    check_source(source, _NO_SIDE_LIMITS, name)
    height, width = (source.shape[source.axes.index(axis)] for axis in "YX")
    if limits[1] is not None and height * width > limits[1]:
        raise InvalidImage(
            f"{name}: {height} x {width} px, allowed are {limits[1]} pixels a plane; crop it or ask for a higher limit"
        )
    # The number of each plane takes the place of its pixels: so frames and channels come out as for a whole image.
    sides = [1 if axis in "YX" else side for side, axis in zip(source.shape, source.axes, strict=True)]
    if prod(sides) > _MAX_PLANES:
        raise InvalidImage(f"{name}: {prod(sides)} planes are too many; split the stack")
    numbers = to_batch(Image(np.arange(prod(sides)).reshape(sides), source.axes, name=name), order)
    if numbers.shape[1:3] != (1, 1):
        raise NotWindowedError(
            f"{name}: field dimension_order: {order} takes other axes for Y and X than the file, whose axes are "
            f"{source.axes}; leave the field empty"
        )
    check_frames(len(numbers), limits[0], name)
    if channels is not None:
        numbers = select_channels(numbers, channels, name)
    table = numbers[:, 0, 0, :].astype(np.int64)
    shape, calibration = (len(table), height, width, table.shape[1]), calibration_of(source, order, name)
    return WindowedImage(shape, name, source.pixel_size_um, source.pixel_yx_um, calibration, planes, table)
