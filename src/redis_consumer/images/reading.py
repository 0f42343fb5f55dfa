"""Reads an image file of any supported format."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from redis_consumer import wanted
from redis_consumer.errors import ConsumerError, InvalidImage
from redis_consumer.images.image import Array, Image, Source, check_source, to_batch
from redis_consumer.images.picture import open_picture
from redis_consumer.images.tiff import open_tiff
from redis_consumer.job import PACKED_HEAD_BYTES, READABLE_ARCHIVES, packed_as
from redis_consumer.options import ImageLimits

if TYPE_CHECKING:
    import os

#: First bytes of each format. The format is detected from them; suffixes aren't used.
MAGIC = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\x93NUMPY", "NPY"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    *((b"P" + digit, "PGM or PPM") for digit in (b"1", b"2", b"3", b"4", b"5", b"6")),
)
FORMATS = "TIFF, PNG, JPEG, JPEG 2000, BMP, GIF, PGM, PPM or NPY"

#: NPY has no axes of its own: channels are last, images of a batch first.
_NPY_AXES = {2: "YX", 3: "YXC", 4: "BYXC"}
#: Bytes of a header of NPY; numpy's own limit is lower still.
_MAX_NPY_HEADER_BYTES = 1 << 16
_NPY_LENGTH_END = 12

#: The functions of old consumers had no limits of height and width. Memory is still limited.
NO_SIDE_LIMITS = ImageLimits(max_height=None, max_width=None)


def read_planes(path: Path) -> npt.NDArray[np.float32]:
    """Read the first channel of all images in a file (times, depths, pages) as (B, Y, X) float32."""
    planes: npt.NDArray[np.float32] = to_batch(read_image(path, limits=NO_SIDE_LIMITS))[..., 0]
    return planes


def read_image(path: str | os.PathLike[str], *, limits: ImageLimits | None = None, name: str | None = None) -> Image:
    """Read an image file of any supported format.

    The format is detected from the content. TIFF gives axes and pixel size from its metadata (plain, ImageJ, OME);
    pictures are YX (grey) or YXS (colour); NPY of rank 2, 3, 4 is YX, YXC, BYXC.

    Args:
        path: the local file.
        limits: how large it may be; None for the defaults of `ImageLimits`.
        name: the user's name for the file, for messages; None for the file's own.

    Returns:
        The image in the dtype of the file; every pixel is finite.

    Raises:
        InvalidImage: damaged, cut off, empty, too large, not an image, or with values that aren't finite real
            numbers. The message is ``NAME: what is wrong; what to do``.
        OSError: the local file can't be opened.
    """
    path = Path(path)
    name = name or path.name
    return _read(path, _sniff(path, name), limits or ImageLimits(), name)


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
    kind = _sniff(path, path.name)
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
    kind = _sniff(path, path.name)
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
    return _read(path, _sniff(path, path.name), None, path.name).array


def _sniff(path: Path, name: str) -> str:
    with path.open("rb") as file:
        head = file.read(PACKED_HEAD_BYTES)
    if not head:
        raise InvalidImage(f"{name}: the file is empty; upload it again")
    for magic, kind in MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"PK\x03\x04"):
        raise InvalidImage(f"{name}: is a zip archive, not an image; give it a name that ends in .zip")
    packed = packed_as(head)
    if packed:
        raise InvalidImage(
            f"{name}: is a {packed} file, not an image; upload the image, or several packed as {READABLE_ARCHIVES}"
        )
    raise InvalidImage(f"{name}: isn't an image of a known format; save it as {FORMATS}")


@dataclass(frozen=True)
class OpenedImage:
    """A file whose header is read and found acceptable; its pixels are read only while it is open.

    Attributes:
        source: what the header says.
        kind: format of the file, as in `MAGIC`.
        name: the user's name for the file, for messages.
        has_limits: whether its pixels are also checked.
    """

    source: Source
    kind: str
    name: str
    has_limits: bool = True

    def read(self) -> Image:
        """Read all pixels.

        Raises:
            InvalidImage: as `read_image`.
        """
        with _readable(self.kind, self.name):
            array = wanted.wait_for(self.source.decode)
            if array.shape != self.source.shape:  # tifffile gives what it finds
                raise ValueError(f"decoded shape {array.shape} differs from {self.source.shape}")
        if self.has_limits:
            _check_values(array, self.name)
        return Image(array, self.source.axes, self.source.pixel_size_um, self.name)


@contextmanager
def open_image(path: Path, *, limits: ImageLimits, name: str) -> Iterator[OpenedImage]:
    """Open an image file of any supported format, see `read_image`; no pixels are read yet.

    Raises:
        InvalidImage: as `read_image`, as far as the header shows it.
        OSError: the local file can't be opened.
    """
    with _opened(path, _sniff(path, name), limits, name) as opened:
        yield opened


@contextmanager
def open_npy(path: Path, name: str) -> Iterator[Source]:
    """Read the header of an NPY file; pixels are copied from a memory map, pickles are never loaded.

    Raises:
        InvalidImage: the rank isn't 2, 3 or 4.
        Exception: whatever numpy raises for a damaged file.
    """
    with path.open("rb") as file:
        head = file.read(_NPY_LENGTH_END)
    # The first version has two bytes for the length, the others four; numpy reads as much before it looks at it.
    length = int.from_bytes(head[8:_NPY_LENGTH_END] if head[6:7] > b"\1" else head[8:10], "little")
    if length > _MAX_NPY_HEADER_BYTES:
        raise InvalidImage(
            f"{name}: its header has {length} bytes, allowed are {_MAX_NPY_HEADER_BYTES}; "
            "save the array again by numpy.save"
        )
    # A map refuses a file that is shorter than its header says, before memory is taken.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim not in _NPY_AXES:
        raise InvalidImage(
            f"{name}: array of rank {array.ndim}; save it as (y, x), (y, x, channel) or (batch, y, x, channel)"
        )
    yield Source(
        shape=array.shape,
        axes=_NPY_AXES[array.ndim],
        dtype=array.dtype,
        decode=lambda: np.array(array, dtype=array.dtype.newbyteorder("=")),
    )


def _read(path: Path, kind: str, limits: ImageLimits | None, name: str) -> Image:
    """Read a file; without limits, whatever its pixels are."""
    with _opened(path, kind, limits, name) as opened:
        return opened.read()


@contextmanager
def _opened(path: Path, kind: str, limits: ImageLimits | None, name: str) -> Iterator[OpenedImage]:
    with ExitStack() as stack:
        with _readable(kind, name):
            source = wanted.wait_for(lambda: stack.enter_context(_open(kind, path, name)))
            if limits is not None:
                check_source(source, limits, name)
        yield OpenedImage(source, kind, name, limits is not None)


@contextmanager
def _readable(kind: str, name: str) -> Iterator[None]:
    """Convert every error of readers for damaged files to one sentence."""
    # For damaged files, readers raise many kinds of errors (KeyError, struct.error, RecursionError, errors of
    # codecs), and their texts hold machine paths; so every error becomes one sentence, cause chained.
    # Their warnings say less than our checks do, and must not become errors where a user wants that.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (ConsumerError, MemoryError):
            raise
        except Exception as error:
            raise InvalidImage(
                f"{name}: looks like {kind} but is damaged or cut off; export it again and upload the whole file"
            ) from error


def _open(kind: str, path: Path, name: str) -> AbstractContextManager[Source]:
    if kind == "TIFF":
        return open_tiff(path, name)
    return open_npy(path, name) if kind == "NPY" else open_picture(path, name, kind)


def _check_values(array: Array, name: str) -> None:
    if array.dtype.kind != "f":
        return
    low, high = array.min(), array.max()  # both are NaN where any pixel is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InvalidImage(f"{name}: holds pixels that are NaN or infinite; replace them by numbers and upload again")
    if max(-low, high) > np.finfo(np.float32).max:
        raise InvalidImage(f"{name}: holds values beyond the range of float32; divide them and upload again")
