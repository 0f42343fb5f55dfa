"""Reads the image in an NPZ file, a zip archive of arrays."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from redis_consumer.errors import InvalidImage
from redis_consumer.images.image import Array, Source

#: Bytes of the directory of the archive: many thousand arrays.
MAX_DIRECTORY_BYTES = 1 << 20
_MAX_END_BYTES = (1 << 16) + 22
#: Bytes of the header of an array; numpy's own limit is lower still.
MAX_HEADER_BYTES = 1 << 16
_LENGTH_END = 12
#: Ranks that an image can have.
_RANKS = range(2, 7)
#: Name of the images in a file that also holds their labels.
_IMAGES = "X"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@contextmanager
def open_npz(path: Path, name: str) -> Iterator[Source]:
    """Read the header of the only image in an NPZ file, or of the one that is named ``X``. Pickles are never loaded.

    Arrays of rank 2 to 6 that hold numbers count as images.

    Raises:
        InvalidImage: it holds none, or several.
        Exception: whatever numpy and zipfile raise for a damaged file.
    """
    _check_directory(path, name)
    with zipfile.ZipFile(path) as archive:
        headers = {}
        for member in archive.infolist():
            if member.filename.endswith(".npy") and member.compress_type in _METHODS:
                with archive.open(member) as file:
                    headers[member.filename.removesuffix(".npy")] = array_header(file, name)
        images = [key for key, (shape, dtype) in headers.items() if len(shape) in _RANKS and dtype.kind in "buif"]
        chosen = _IMAGES if _IMAGES in images else images[0] if len(images) == 1 else ""
        if not chosen:
            held = f"{len(images)} arrays that can be images ({', '.join(images)[:100]})" if images else "no image"
            raise InvalidImage(
                f"{name}: holds {held}; save one array of 2 to 6 axes, or give the image's the name {_IMAGES}"
            )
        member, (shape, dtype) = archive.getinfo(f"{chosen}.npy"), headers[chosen]
        if prod(shape) * dtype.itemsize > member.file_size:
            raise EOFError(f"array {chosen} is cut off")
        yield Source(
            shape=shape,
            axes="YX" if len(shape) == 2 else "Q" * len(shape),
            dtype=dtype,
            decode=lambda: _decode(archive, member),
            stored_bytes=member.compress_size,
        )


def _check_directory(path: Path, name: str) -> None:
    """Refuse an archive whose directory would take much memory. The library reads it whole."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _MAX_END_BYTES))
        tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end >= 0 and int.from_bytes(tail[end + 12 : end + 16], "little") > MAX_DIRECTORY_BYTES:
        raise InvalidImage(
            f"{name}: the directory of this NPZ has more than the {MAX_DIRECTORY_BYTES} bytes allowed; "
            "save one array in it"
        )


def array_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read shape and dtype of an array at the begin of a file, with no more of it than its header.

    Raises:
        InvalidImage: the header is too long.
        Exception: whatever numpy raises for a damaged one.
    """
    start = file.read(_LENGTH_END)
    # The first version has two bytes for the length, the others four; numpy reads as much before it looks at it.
    length = int.from_bytes(start[8:_LENGTH_END] if start[6:7] > b"\1" else start[8:10], "little")
    if length > MAX_HEADER_BYTES:
        raise InvalidImage(
            f"{name}: its header has {length} bytes, allowed are {MAX_HEADER_BYTES}; save the array again by numpy.save"
        )
    file.seek(0)
    is_first = np.lib.format.read_magic(file) == (1, 0)
    read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return tuple(shape), dtype


def _decode(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as file:
        array: Array = np.lib.format.read_array(file, allow_pickle=False)
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
