"""Reads common picture files (PNG, JPEG, BMP, GIF, PGM, …)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from redis_consumer.errors import InvalidImage
from redis_consumer.images.compressed_sides import MAX_FILL_BYTES, MAX_SCANS, fill_bytes, scans
from redis_consumer.images.image import Array, Source

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

#: Kind of a file to Pillow's name and plug-in. Only these: some of its other formats start programs (EPS), or
#: have no mark to know them by.
FORMATS = {
    "PNG": ("PNG", "PngImagePlugin"),
    "JPEG": ("JPEG", "JpegImagePlugin"),
    "JPEG 2000": ("JPEG2000", "Jpeg2KImagePlugin"),
    "BMP": ("BMP", "BmpImagePlugin"),
    "GIF": ("GIF", "GifImagePlugin"),
    "PGM or PPM": ("PPM", "PpmImagePlugin"),
}

#: Pillow's mode to the one that is read; a mode that isn't named becomes RGB.
MODES = {
    "1": "L",
    "L": "L",
    "LA": "L",
    "I": "I",
    "I;16": "I;16",
    "I;16B": "I;16B",
    "F": "F",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "PA": "RGBA",
}
#: Bytes of a picture besides its pixels: profiles, previews, comments.
_SMALL_BYTES = 16 << 20
#: Bytes in which the header of a PGM or PPM ends.
_MAX_TEXT_HEADER_BYTES = 1 << 16
_COMMENT = re.compile(rb"#[^\r\n]*")
#: More than a JPEG of the largest sides has.
_MAX_JPEG_BYTES = 1 << 30
DTYPES = {"I": "int32", "I;16": "uint16", "I;16B": "uint16", "F": "float32"}


@contextmanager
def open_picture(path: Path, name: str, kind: str) -> Iterator[Source]:
    """Read the header of a picture file: YX for grey, YXS for colour (with alpha where the file has it).

    Args:
        path: the local file.
        name: the user's name for the file, for messages.
        kind: its format, one of `FORMATS`.

    Raises:
        InvalidImage: it holds several pictures, or claims over 178 million pixels.
        Exception: whatever Pillow raises for a damaged file.
    """
    _check_start(path, kind, name)
    with _opened(path, name, kind) as picture:
        # An MPO is a photograph with previews behind it.
        if picture.format != "MPO" and getattr(picture, "is_animated", False):
            raise InvalidImage(f"{name}: holds several pictures; save them as one multi-page TIFF")
        mode = MODES.get(picture.mode, "RGB")
        samples = {"RGB": 3, "RGBA": 4}.get(mode)
        plane = (picture.height, picture.width)
        deep = _is_deep_colour(picture)
        pixels = picture.height * picture.width * (samples or 1) * (2 if deep else 4)
        _check_length(path.stat().st_size, pixels, name)
        yield Source(
            shape=plane if samples is None else (*plane, samples),
            axes="YX" if samples is None else "YXS",
            dtype=np.dtype("uint16" if deep else DTYPES.get(mode, "uint8")),
            decode=lambda: _decode_deep(path, mode) if deep else _decode(picture, mode),
        )


def _check_start(path: Path, kind: str, name: str) -> None:
    """Refuse a header that a reader would parse byte by byte, or repeatedly, before it knows the image's size."""
    with path.open("rb") as file:
        if kind == "PGM or PPM":
            words = _COMMENT.sub(b" ", file.read(_MAX_TEXT_HEADER_BYTES)).split()
            if len(words) < (3 if words[:1] in ([b"P1"], [b"P4"]) else 4):
                raise InvalidImage(
                    f"{name}: its header has more than the {_MAX_TEXT_HEADER_BYTES} bytes allowed; "
                    "save it without comments"
                )
        elif kind == "JPEG":
            data = file.read(_MAX_JPEG_BYTES)
            for what, count, most in (
                ("scans", scans(data), MAX_SCANS),
                ("fill bytes", fill_bytes(data), MAX_FILL_BYTES),
            ):
                if count > most:
                    raise InvalidImage(
                        f"{name}: has {count} {what}, allowed are {most}; save it as a plain JPEG or as PNG"
                    )


def _check_length(size: int, pixel_bytes: int, name: str) -> None:
    """Refuse a file that is much larger than its pixels, because readers also parse its other content."""
    most = _SMALL_BYTES + 2 * pixel_bytes
    if size > most:
        raise InvalidImage(
            f"{name}: has {size} bytes, allowed are {most} for so few pixels; save it without metadata and previews"
        )


def _opened(path: Path, name: str, kind: str) -> ImageFile:
    from PIL import Image as Pillow

    pillow_name, plugin = FORMATS[kind]
    import_module(f"PIL.{plugin}")
    try:
        return Pillow.open(path, formats=(pillow_name,))
    except Pillow.DecompressionBombError as error:
        raise InvalidImage(
            f"{name}: claims more pixels than a {kind} picture may have here; crop it, or save it as TIFF"
        ) from error


def _decode(picture: ImageFile, mode: str) -> Array:
    converted = picture if picture.mode == mode else picture.convert(mode)
    array = np.asarray(converted)
    return np.array(array, dtype=array.dtype.newbyteorder("="))


def _is_deep_colour(picture: ImageFile) -> bool:
    """Return whether this is a PNG with several 16-bit samples per pixel, which Pillow would reduce to 8 bits."""
    return picture.format == "PNG" and picture.mode != "I;16" and any("16B" in str(tile[3]) for tile in picture.tile)


def _decode_deep(path: Path, mode: str) -> Array:
    import imagecodecs

    array: Array = imagecodecs.png_decode(path.read_bytes())
    return array[..., 0] if mode == "L" else array
