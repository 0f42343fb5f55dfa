"""Reads an image file of any supported format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from redis_consumer import wanted
from redis_consumer.errors import InvalidImage
from redis_consumer.images.image import Array, Image, Source, check_source, needs_offsets, offsets_of, to_batch
from redis_consumer.images.kinds import kind_of, readable
from redis_consumer.images.npz import array_header, open_npz
from redis_consumer.images.picture import open_picture
from redis_consumer.images.planes import Planes
from redis_consumer.images.tiff import open_tiff
from redis_consumer.images.vendors.czi import open_czi
from redis_consumer.images.vendors.lif import open_lif
from redis_consumer.images.vendors.nd2 import open_nd2
from redis_consumer.images.vendors.ome_files import open_ome_files, read_ome_files
from redis_consumer.options import ImageLimits

if TYPE_CHECKING:
    import os

#: NPY has no axes of its own. So many can be read.
_NPY_RANKS = range(2, 7)

#: What opens files of microscopes' own programs, of which a field of view can be chosen.
VENDORS: Mapping[str, Callable[[Path, str, str], AbstractContextManager[Planes]]] = {
    "CZI": open_czi,
    "LIF": open_lif,
    "ND2": open_nd2,
}

#: The functions of old consumers had no limits of height and width. Memory is still limited.
NO_SIDE_LIMITS = ImageLimits(max_height=None, max_width=None)


def read_planes(path: Path) -> npt.NDArray[np.float32]:
    """Read the first channel of all images in a file (times, depths, pages) as (B, Y, X) float32."""
    planes: npt.NDArray[np.float32] = to_batch(read_image(path, limits=NO_SIDE_LIMITS))[..., 0]
    return planes


def read_image(path: str | os.PathLike[str], *, limits: ImageLimits | None = None, name: str | None = None) -> Image:
    """Read an image file of any supported format.

    The format is detected from the content. TIFF gives axes and pixel size from its metadata (plain, ImageJ, OME);
    pictures are YX (grey) or YXS (colour). Axes that a file doesn't name, as those of an NPY, follow from its shape,
    see `redis_consumer.images.axes.resolve`.

    Args:
        path: the local file.
        limits: how large it may be; None for the defaults of `ImageLimits`.
        name: the user's name for the file, for messages; None for the file's own.

    Returns:
        The image in the dtype of the file; every pixel is finite: one that was NaN has the lowest value of its channel.

    Raises:
        InvalidImage: damaged, cut off, empty, too large, not an image, or with values that aren't real numbers, or
            infinite. The message is ``NAME: what is wrong; what to do``.
        OSError: the local file can't be opened.
    """
    path = Path(path)
    name = name or path.name
    return _read(path, kind_of(path, name), limits or ImageLimits(), name)


def get_image(filepath: str | os.PathLike[str]) -> Array:
    """Read an image file as the consumers of 2020 saw it (contract, section 5.1).

    Returns:
        float32. TIFF: the file's array with a trailing channel axis of 1; other formats: (Y, X, C), where C
        is 1 for grey.

    Raises:
        InvalidImage: as `read_image`; height and width have no limit.
        OSError: the local file can't be opened.
    """
    path = Path(filepath)
    kind = kind_of(path, path.name)
    array = _read(path, kind, NO_SIDE_LIMITS, path.name).array
    if kind == "TIFF" or array.ndim == 2:
        array = array[..., np.newaxis]
    return array.astype(np.float32)


def read_as_stored(filepath: str | os.PathLike[str]) -> Array:
    """Read an image file as the consumers of 2023 saw it (contract, section 5.1).

    Returns:
        float32. TIFF, NPY: the file's array; other formats: (Y, X, C), where C is 1 for grey.

    Raises:
        InvalidImage, OSError: as `get_image`.
    """
    path = Path(filepath)
    kind = kind_of(path, path.name)
    array = _read(path, kind, NO_SIDE_LIMITS, path.name).array
    is_picture = kind not in {"TIFF", "NPY"}
    return (array[..., np.newaxis] if is_picture and array.ndim == 2 else array).astype(np.float32)


def decode_image(path: str | os.PathLike[str]) -> Array:
    """Read an image file that this package wrote, of any size and with any pixel values.

    Raises:
        InvalidImage: damaged, cut off, empty or not an image.
        OSError: the local file can't be opened.
    """
    path = Path(path)
    return _read(path, kind_of(path, path.name), None, path.name).array


@dataclass(frozen=True)
class OpenedImage:
    """A file whose header is read and found acceptable; its pixels are read only while it is open.

    Attributes:
        source: what the header says.
        kind: format of the file, as in `redis_consumer.images.kinds.MAGIC`.
        name: the user's name for the file, for messages.
        has_limits: whether its pixels are also checked.
        notes: what the user should know about the pixels, for the job's field ``warning``; complete when they are read.
    """

    source: Source
    kind: str
    name: str
    has_limits: bool = True
    notes: list[str] = field(default_factory=list)

    def read(self) -> Image:
        """Read all pixels.

        Raises:
            InvalidImage: as `read_image`.
        """
        with readable(self.kind, self.name):
            array = wanted.wait_for(self.source.decode)
            if array.shape != self.source.shape:  # tifffile gives what it finds
                raise ValueError(f"decoded shape {array.shape} differs from {self.source.shape}")
        if self.has_limits:
            _check_values(array, self.name)
            array = self._filled(array)
            if needs_offsets(array.dtype):
                axes = tuple(axis for axis, letter in enumerate(self.source.axes) if letter not in "CS")
                note_offsets(self.notes, offsets_of(array.min(axis=axes), array.max(axis=axes)))
        return Image(array, self.source.axes, self.source.pixel_size_um, self.name)

    def _filled(self, array: Array) -> Array:
        """Put the lowest value of its channel in place of NaN."""
        if array.dtype.kind != "f" or np.isfinite(array.min()):
            return array
        axes = tuple(axis for axis, letter in enumerate(self.source.axes) if letter not in "CS")
        lowest = np.fmin.reduce(array, axis=axes, keepdims=True)
        is_empty = np.isnan(array)
        note_filled(self.notes, lowest, self.name)
        result: Array = np.where(is_empty, lowest, array)
        return result


def note_offsets(notes: list[str], offsets: Array) -> None:
    """Note that an offset of a channel is subtracted, see `redis_consumer.images.image.offsets_of`; once."""
    note = "a channel has values beyond 2^24; its lowest value is subtracted, so that float32 keeps the differences"
    if offsets.any() and note not in notes:
        notes.append(note)


def note_filled(notes: list[str], lowest: Array, name: str) -> None:
    """Note that pixels were NaN.

    Args:
        notes: what the user should know; the note is added once.
        lowest: the value of each channel that takes their place.
        name: the user's name for the file, for messages.

    Raises:
        InvalidImage: a channel has no other pixels.
    """
    if np.isnan(lowest).any():
        raise InvalidImage(f"{name}: has a channel whose pixels are all NaN; upload an image with pixels")
    note = "pixels that are NaN have the lowest value of their channel"
    if note not in notes:
        notes.append(note)


@contextmanager
def open_image(
    path: Path,
    *,
    limits: ImageLimits,
    name: str,
    dimension_order: str = "",
    field: str = "",
    way_out: str = "",
) -> Iterator[OpenedImage]:
    """Open an image file of any supported format, see `read_image`; no pixels are read yet.

    Args:
        path: the local file.
        limits: how large it may be.
        name: the user's name for the file, for messages.
        dimension_order: the job's field, see `redis_consumer.images.axes.resolve`.
        field: which of several images in the file; empty for the only one.
        way_out: what to do with an image that is too high or wide; empty to crop it.

    Raises:
        SeveralImages: it has several images and none is named.
        InvalidImage: as `read_image`, as far as the header shows it.
        OSError: the local file can't be opened.
    """
    with _opened(path, kind_of(path, name), limits, name, field, (dimension_order, way_out)) as opened:
        yield opened


@contextmanager
def open_npy(path: Path, name: str) -> Iterator[Source]:
    """Read the header of an NPY file; pixels are copied from a memory map, pickles are never loaded.

    Raises:
        InvalidImage: the rank isn't 2, 3 or 4.
        Exception: whatever numpy raises for a damaged file.
    """
    with path.open("rb") as file:
        _, dtype = array_header(file, name)
    if dtype.hasobject:
        raise InvalidImage(f"{name}: is an NPY of Python objects, which are never loaded; save an array of numbers")
    # A map refuses a file that is shorter than its header says, before memory is taken.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim not in _NPY_RANKS:
        raise InvalidImage(
            f"{name}: array of rank {array.ndim}; save it as (y, x), (y, x, channel) or (batch, y, x, channel)"
        )
    yield Source(
        shape=array.shape,
        axes="YX" if array.ndim == 2 else "Q" * array.ndim,
        dtype=array.dtype,
        decode=lambda: np.array(array, dtype=array.dtype.newbyteorder("=")),
    )


def _read(path: Path, kind: str, limits: ImageLimits | None, name: str) -> Image:
    """Read a file; without limits, whatever its pixels are."""
    with _opened(path, kind, limits, name) as opened:
        return opened.read()


@contextmanager
def _opened(
    path: Path,
    kind: str,
    limits: ImageLimits | None,
    name: str,
    field: str = "",
    asked: tuple[str, str] = ("", ""),
) -> Iterator[OpenedImage]:
    with ExitStack() as stack:
        with readable(kind, name):
            source = wanted.wait_for(lambda: stack.enter_context(open_source(kind, path, name, field)))
            if limits is not None:
                source = source.placed(asked[0], name)
                check_source(source, limits, name, asked[1])
        yield OpenedImage(source, kind, name, limits is not None, [*source.notes])


@contextmanager
def open_source(kind: str, path: Path, name: str, field: str) -> Iterator[Source]:
    """Read the header of an image file.

    Args:
        kind: its format, see `redis_consumer.images.kinds.kind_of`.
        path: the local file.
        name: the user's name for the file, for messages.
        field: which of several images in the file; empty for the only one.

    Raises:
        InvalidImage: as `open_image`.
        Exception: whatever its reader raises for a damaged file.
    """
    if kind in VENDORS:
        with VENDORS[kind](path, name, field) as planes:
            yield planes.source
    elif kind == "TIFF":
        files = read_ome_files(path, name)
        if files is None:
            with open_tiff(path, name, field) as source:
                yield source
        else:
            with open_ome_files(files, path, name, field) as planes:
                yield planes.source
    else:
        if field:
            raise InvalidImage(f"{name}: field field_of_view: a {kind} has one image; leave the field empty")
        readers = {"NPY": open_npy, "NPZ": open_npz}
        with readers[kind](path, name) if kind in readers else open_picture(path, name, kind) as source:
            yield source


def _check_values(array: Array, name: str) -> None:
    if array.dtype.kind != "f":
        return
    low, high = np.fmin.reduce(array, axis=None), np.fmax.reduce(array, axis=None)  # without NaN
    if np.isinf(low) or np.isinf(high):
        raise InvalidImage(f"{name}: holds pixels that are infinite; replace them by numbers and upload again")
    if max(-low, high) > np.finfo(np.float32).max:
        raise InvalidImage(f"{name}: holds values beyond the range of float32; divide them and upload again")
