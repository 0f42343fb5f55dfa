"""Reads an image that is larger than memory, part by part."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from pathlib import Path

import numpy as np

from redis_consumer import wanted
from redis_consumer.errors import InvalidImage
from redis_consumer.images.axes import as_read
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.channels import Channels, Picks, SeenChannels, combine, look
from redis_consumer.images.image import (
    Array,
    Batch,
    Image,
    Source,
    calibration_of,
    check_frames,
    check_source,
    needs_offsets,
    offsets_of,
    to_batch,
    without_offsets,
)
from redis_consumer.images.kinds import kind_of_head, readable
from redis_consumer.images.ome_zarr import is_ome_zarr, open_ome_zarr
from redis_consumer.images.planes import NotWindowedError, Planes, Window, array_planes, with_axes
from redis_consumer.images.reading import VENDORS, note_filled, note_offsets, open_npy, open_source
from redis_consumer.images.tiff_planes import open_tiff_planes
from redis_consumer.images.vendors.ome_files import open_ome_files, read_ome_files
from redis_consumer.options import ImageLimits

#: Planes, over all frames and channels: a table of them is held, and their numbers must be exact as float32.
_MAX_PLANES = 1 << 20
#: Formats of single files that can be read in parts.
_WINDOWED = frozenset({"TIFF", "NPY", *VENDORS})
#: Side of the parts in which a whole image is looked at.
_PART_PX = 2048
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
        channels: all channels of the file.
        picks: what makes each channel of `shape`.
        reading: how the axes were read, for the job's field ``axes_read``.
        notes: what the user should know about the pixels, for the job's field ``warning``.
        kind: its format, for messages.
        channels_read: which channels were chosen, for the job's field ``channels_read``.
    """

    shape: tuple[int, int, int, int]
    name: str
    pixel_size_um: float | None
    pixel_yx_um: tuple[float, float] | None
    calibration: Calibration
    channels: Channels
    picks: Picks
    reading: str
    notes: list[str]
    _planes: Planes
    _numbers: Array
    kind: str = "image"
    channels_read: str = ""
    _levels: dict[int, tuple[Array, Array]] = field(default_factory=dict)

    def picked(self, picks: Picks, channels_read: str = "") -> WindowedImage:
        """The same image with other channels."""
        calibration = replace(self.calibration, channel=self.channels.names_of(picks))
        shape = (*self.shape[:3], len(picks))
        return replace(self, shape=shape, picks=picks, channels_read=channels_read, calibration=calibration)

    def unpicked(self) -> WindowedImage:
        """The same image with all channels."""
        return self.picked(tuple((index,) for index in range(len(self.channels))))

    @property
    def source(self) -> Source:
        """What the header says, with a letter for each axis."""
        return self._planes.source

    def read_stored(self, frame: int, window: Window) -> Array:
        """Read a part of one frame as the file holds it.

        Args:
            frame: from 0, below ``shape[0]``.
            window: rows and columns, within the image, with a start and a stop.

        Returns:
            (y, x, C) of all channels of the file, in the dtype of `source`. NaN and infinity are kept.

        Raises:
            InvalidImage: the file is damaged there.
        """
        return self._stored(frame, window, range(len(self.channels)))

    def seen(self, indices: Sequence[int]) -> SeenChannels:
        """Look at the pixels of channels, see `redis_consumer.images.channels.look`."""
        image = self.picked(tuple((index,) for index in indices))
        return look((image.read(frame, window) for frame, window in self._all()), len(indices))

    def read(self, frame: int, window: Window) -> Batch:
        """Read a part of one frame.

        Args:
            frame: from 0, below ``shape[0]``.
            window: rows and columns, within the image, with a start and a stop.

        Returns:
            (1, y, x, C) float32, every pixel finite: one that was NaN has the lowest value of its channel.

        Raises:
            InvalidImage: the file is damaged there, or holds infinite values, or some beyond float32.
        """
        used = sorted({index for pick in self.picks for index in pick})
        pixels = self._filled(self._stored(frame, window, used), used)
        with np.errstate(over="ignore"):
            if needs_offsets(pixels.dtype):
                offsets = offsets_of(*self._range_of(used))
                note_offsets(self.notes, offsets)
                pixels = without_offsets(pixels, offsets)
            picks = tuple(tuple(used.index(index) for index in pick) for pick in self.picks)
            batch = combine(pixels[np.newaxis], picks)
        if not np.isfinite(batch).all():
            raise InvalidImage(
                f"{self.name}: holds pixels that are infinite or beyond float32; replace them and upload it again"
            )
        return batch

    def _stored(self, frame: int, window: Window, used: Sequence[int]) -> Array:
        with readable(self.kind, self.name):
            numbers = [int(self._numbers[frame, index]) for index in used]
            return wanted.wait_for(lambda: self._planes.read(numbers, window))

    def _filled(self, pixels: Array, used: Sequence[int]) -> Array:
        """Put the lowest value of its channel, in all frames, in place of NaN."""
        is_empty = np.isnan(pixels) if pixels.dtype.kind == "f" else None
        if is_empty is None or not is_empty.any():
            return pixels
        lowest, _ = self._range_of(used)
        note_filled(self.notes, lowest, self.name)
        result: Array = np.where(is_empty, lowest, pixels)
        return result

    def _range_of(self, used: Sequence[int]) -> tuple[Array, Array]:
        """The lowest and the highest value of channels in all frames. The file is read once for them."""
        missing = [index for index in used if index not in self._levels]
        low = high = None
        for frame, window in self._all() if missing else ():
            pixels = self._stored(frame, window, missing).reshape(-1, len(missing))
            lowest, highest = np.fmin.reduce(pixels), np.fmax.reduce(pixels)
            low = lowest if low is None else np.fmin(low, lowest)
            high = highest if high is None else np.fmax(high, highest)
        if low is not None and high is not None:
            self._levels.update({index: (low[place], high[place]) for place, index in enumerate(missing)})
        found = [self._levels[index] for index in used]
        return np.array([low for low, _ in found]), np.array([high for _, high in found])

    def _all(self) -> Iterator[tuple[int, Window]]:
        """All parts of all frames."""
        frames, height, width, _ = self.shape
        for frame, top, left in product(range(frames), range(0, height, _PART_PX), range(0, width, _PART_PX)):
            yield frame, (slice(top, min(top + _PART_PX, height)), slice(left, min(left + _PART_PX, width)))


@contextmanager
def open_windowed(
    path: Path,
    *,
    name: str,
    dimension_order: str = "",
    channels: Sequence[int | str] | None = None,
    max_frames: int | None = None,
    max_plane_px: int | None = None,
    field: str = "",
) -> Iterator[WindowedImage]:
    """Open a TIFF, NPY, CZI, LIF, ND2 or OME-Zarr (a folder, or zipped) to read it part by part.

    Args:
        path: local file or folder.
        name: the user's name for the file, for messages.
        dimension_order: as for `to_batch`.
        channels: indices or names of the wanted channels, None for all.
        max_frames: as in `ImageLimits`.
        max_plane_px: pixels that a plane may have, None for any number.
        field: which of several images in the file; empty for the only one.

    Raises:
        InvalidImage: damaged, not an image, no format that can be read in windows, more than allowed, or several images
            of which none is named.
        OSError: the local file can't be opened.
    """
    with ExitStack() as stack:
        kind = _kind(path) or ""
        with readable(kind, name):
            planes = wanted.wait_for(lambda: stack.enter_context(_open(path, name, field)))
        image = _windowed_image(planes, name, dimension_order, channels, (max_frames, max_plane_px))
        yield replace(image, kind=kind)


def is_large(path: Path, limits: ImageLimits, order: str = "", field: str = "") -> bool:
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
                return _exceeds(source.placed(order, path.name), limits)
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
    if kind == "TIFF" and (files := read_ome_files(path, name)) is not None:
        return open_ome_files(files, path, name, field)
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
    planes: Planes, name: str, order: str, channels: Sequence[int | str] | None, limits: tuple[int | None, int | None]
) -> WindowedImage:
    source = planes.source.placed(order, name)
    planes = with_axes(planes, source)
    check_source(source, _NO_SIDE_LIMITS, name)
    height, width = (source.shape[source.axes.index(axis)] for axis in "YX")
    if limits[1] is not None and height * width > limits[1]:
        raise InvalidImage(
            f"{name}: {height} x {width} px, allowed are {limits[1]} pixels a plane; crop it or ask for a higher limit "
            f"{as_read(source.reading)}"
        )
    # The number of each plane takes the place of its pixels: so frames and channels come out as for a whole image.
    sides = [1 if axis in "YX" else side for side, axis in zip(source.shape, source.axes, strict=True)]
    if prod(sides) > _MAX_PLANES:
        raise InvalidImage(f"{name}: {prod(sides)} planes are too many; split the stack {as_read(source.reading)}")
    numbers = to_batch(Image(np.arange(prod(sides)).reshape(sides), source.axes, name=name))
    check_frames(len(numbers), limits[0], name, source.reading)
    table = numbers[:, 0, 0, :].astype(np.int64)
    known = source.all_channels
    indices = range(len(known)) if channels is None else channels
    picks = tuple((known.index_of(index, name),) for index in indices)
    return WindowedImage(
        (len(table), height, width, len(picks)), name, source.pixel_size_um, source.pixel_yx_um,
        calibration_of(source), known, picks, source.reading, [*source.notes], planes, table,
    )  # fmt: skip
