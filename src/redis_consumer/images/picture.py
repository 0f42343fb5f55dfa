"""Reads common picture files (PNG, JPEG, WebP, BMP, GIF, PGM, …)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from redis_consumer.errors import InvalidImage
from redis_consumer.images.compressed_sides import (
    MAX_FILL_BYTES,
    MAX_SCANS,
    decoded_samples,
    fill_bytes,
    jpeg_process,
    scans,
)
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
    "WebP": ("WEBP", "WebPImagePlugin"),
    "AVIF": ("AVIF", "AvifImagePlugin"),
}
#: Kinds that Pillow doesn't read. Their decoders say the shape only of decoded pixels.
_CODECS = {"JPEG XL": "jpegxl_decode", "JPEG XR": "jpegxr_decode"}
#: Pixels of one of those, as its header says.
_MAX_DECODED_PX = 1 << 24

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
}
#: Bytes of a picture besides its pixels: profiles, previews, comments.
_SMALL_BYTES = 16 << 20
#: Bytes in which the header of a PGM or PPM ends.
_MAX_TEXT_HEADER_BYTES = 1 << 16
_COMMENT = re.compile(rb"#[^\r\n]*")
#: Markers of the frames of JPEGs that are read: Huffman or arithmetic codes, sequential or progressive.
_PROCESSES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_JPEG_BITS = 8
_OTHER_PROCESSES = {0xC3: "lossless JPEG", 0xF7: "JPEG-LS picture"}
#: More than a JPEG of the largest sides has.
_MAX_JPEG_BYTES = 1 << 30
#: EXIF's tag, the first of its values that exchanges rows and columns, and quarter turns to the left for each, after
#: columns are mirrored or not.
_ORIENTATION, _ROTATED = 0x0112, 5
_TURNS = {
    1: (0, False), 2: (0, True), 3: (2, False), 4: (2, True),
    5: (1, True), 6: (-1, False), 7: (-1, True), 8: (1, False),
}  # fmt: skip
DTYPES = {"I": "int32", "I;16": "uint16", "I;16B": "uint16", "F": "float32"}


@contextmanager
def open_picture(path: Path, name: str, kind: str) -> Iterator[Source]:
    """Read the header of a picture file: YX for grey, YXS for colour. Alpha is left out. EXIF's orientation is applied.

    Args:
        path: the local file.
        name: the user's name for the file, for messages.
        kind: its format, one of `FORMATS`, or ``JPEG XL`` or ``JPEG XR``.

    Raises:
        InvalidImage: it holds several pictures, or claims over 178 million pixels.
        Exception: whatever Pillow raises for a damaged file.
    """
    if kind in _CODECS:
        yield _decoded(path, name, kind)
        return
    _check_start(path, kind, name)
    with _opened(path, name, kind) as picture:
        # An MPO is a photograph with previews behind it.
        if picture.format != "MPO" and getattr(picture, "is_animated", False):
            raise InvalidImage(f"{name}: holds several pictures; save them as one multi-page TIFF")
        greys = _grey_palette(picture)
        mode = "L" if greys is not None else MODES.get(picture.mode, "RGB")
        samples = (3,) if mode == "RGB" else ()
        orientation = _orientation(picture)
        plane = (picture.height, picture.width) if orientation < _ROTATED else (picture.width, picture.height)
        deep = _is_deep_colour(picture)
        pixels = prod((*plane, *samples)) * (2 if deep else 4)
        _check_length(path.stat().st_size, pixels, name)

        def decode() -> Array:
            if greys is not None:
                return _looked_up(picture, greys)
            return _decode_deep(path, mode) if deep else _decode(picture, mode)

        yield Source(
            shape=(*plane, *samples),
            axes="YXS" if samples else "YX",
            dtype=np.dtype("uint16" if deep else DTYPES.get(mode, "uint8")),
            decode=lambda: _oriented(decode(), orientation),
            notes=(f"orientation {orientation} of the file is applied",) if orientation > 1 else (),
        )


def _decoded(path: Path, name: str, kind: str) -> Source:
    """Decode a picture whose shape isn't known before, once its header says that it isn't large."""
    import imagecodecs

    _check_length(path.stat().st_size, 4 * _MAX_DECODED_PX, name)
    data = path.read_bytes()
    count = decoded_samples(data)
    if not 0 < count <= _MAX_DECODED_PX:
        raise InvalidImage(
            f"{name}: has {count} pixels, allowed are {_MAX_DECODED_PX} in a {kind}; crop it, or save it as TIFF"
        )
    array: Array = getattr(imagecodecs, _CODECS[kind])(data)
    if array.ndim not in (2, 3) or (array.shape[-1] not in (1, 2, 3, 4) and array.ndim == 3):
        raise InvalidImage(f"{name}: holds several pictures or channels; save them as one multi-page TIFF")
    shown = array
    if array.ndim == 3:  # without alpha
        shown = array[..., 0] if array.shape[-1] < 3 else array[..., :3]
    return Source(shown.shape, "YX" if shown.ndim == 2 else "YXS", shown.dtype, lambda: np.array(shown))


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
            _check_process(*jpeg_process(data), name)


def _check_process(marker: int, bits: int, name: str) -> None:
    """Refuse a kind of JPEG for which there is no decoder."""
    if (marker in _PROCESSES and bits == _JPEG_BITS) or not marker:
        return
    what = "JPEG" if marker in _PROCESSES else _OTHER_PROCESSES.get(marker, "hierarchical or lossless JPEG")
    raise InvalidImage(f"{name}: is a {what} of {bits} bits, which can't be read; save it as TIFF or PNG")


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


def _grey_palette(picture: ImageFile) -> Array | None:
    """Return the greys of a palette that has nothing else, (N,) uint8."""
    colours = picture.getpalette("RGB") if picture.mode == "P" else None
    if not colours:
        return None
    table = np.array(colours, np.uint8).reshape(-1, 3)
    return table[:, 0] if (table == table[:, :1]).all() else None


def _looked_up(picture: ImageFile, greys: Array) -> Array:
    result: Array = greys[np.minimum(np.asarray(picture), len(greys) - 1)]
    return result


def _orientation(picture: ImageFile) -> int:
    """Return EXIF's orientation, 1 to 8. Metadata behind the pixels are not looked for."""
    found = picture.getexif().get(_ORIENTATION) if "exif" in picture.info else None
    return found if isinstance(found, int) and found in _TURNS else 1


def _oriented(array: Array, orientation: int) -> Array:
    """Bring rows and columns into the order in which viewers show them."""
    if orientation == 1:
        return array
    turns, is_mirrored = _TURNS[orientation]
    turned = np.rot90(array[:, ::-1] if is_mirrored else array, turns)
    return np.ascontiguousarray(turned)


def _is_deep_colour(picture: ImageFile) -> bool:
    """Return whether this is a PNG with several 16-bit samples per pixel, which Pillow would reduce to 8 bits."""
    return picture.format == "PNG" and picture.mode != "I;16" and any("16B" in str(tile[3]) for tile in picture.tile)


def _decode_deep(path: Path, mode: str) -> Array:
    import imagecodecs

    array: Array = imagecodecs.png_decode(path.read_bytes())
    return np.ascontiguousarray(array[..., 0] if mode == "L" else array[..., :3])
