"""Writes the tiles of a layer into one file, a BigTIFF of Deflate tiles, and their places into another one."""

from __future__ import annotations

import struct
import sys
from array import array
from pathlib import Path
from types import TracebackType
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from redis_consumer.web.view.layout import ENTRY, TILE_PX, ViewLayer

Array = npt.NDArray[Any]

#: Level of Deflate. Higher ones take several times as long and save little.
_LEVEL = 1
_HEADER = struct.Struct("<2sHHHQ")
_TAG = struct.Struct("<HHQQ")
#: Types of TIFF: unsigned integers of 2, 4 and 8 bytes.
_SHORT, _LONG, _LONG8 = 3, 4, 16
_REDUCED = 1
_ADOBE_DEFLATE = 8
_SAMPLE_FORMATS = {"u": 1, "f": 3}


def index_path(path: Path) -> Path:
    """Return the path of the index of a file of tiles: an entry `ENTRY` for each tile, see `ViewLayer.place_of`."""
    return path.with_suffix(".index")


def decoded(data: bytes, dtype: npt.DTypeLike) -> Array:
    """Return the values of a stored tile, (TILE_PX, TILE_PX)."""
    kind = np.dtype(dtype).newbyteorder("<")
    size = TILE_PX * TILE_PX * kind.itemsize
    values: Array = np.frombuffer(imagecodecs.deflate_decode(data, out=size), kind)
    return values.reshape(TILE_PX, TILE_PX)


def read_tile(path: Path, layer: ViewLayer, plane: int, level: int, row: int = 0, col: int = 0) -> Array:
    """Read a tile of a complete file, (TILE_PX, TILE_PX)."""
    with index_path(path).open("rb") as index:
        index.seek(ENTRY.size * layer.place_of(plane, level, row, col))
        offset, count = ENTRY.unpack(index.read(ENTRY.size))
    with path.open("rb") as file:
        file.seek(offset)
        return decoded(file.read(count), layer.dtype)


class TileWriter:
    """Writes the tiles of a layer in any order. All but the tiles are written at its end.

    Tiles beyond the edge of the image are filled up with 0. The file has a directory for each plane and level, so that
    any reader of TIFF reads it.

    Args:
        path: of the file; its index is written beside it.
        layer: the sizes. Name and counts aren't used.
    """

    def __init__(self, path: Path, layer: ViewLayer) -> None:
        self._layer = layer
        self._path = path
        self.dtype = np.dtype(layer.dtype).newbyteorder("<")
        count = layer.planes * layer.tiles_a_plane
        self._offsets = array("Q", bytes(8 * count))
        self._counts = array("I", bytes(4 * count))
        self._file = path.open("w+b")
        self._end = self._file.write(bytes(_HEADER.size))

    def __enter__(self) -> TileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._write_directories()
                self._write_index()
        finally:
            self._file.close()

    def write(self, plane: int, level: int, row: int, col: int, pixels: Array) -> None:
        """Write one tile, (y, x) of at most `TILE_PX` a side."""
        if pixels.shape != (TILE_PX, TILE_PX):
            padded = np.zeros((TILE_PX, TILE_PX), self.dtype)
            padded[: pixels.shape[0], : pixels.shape[1]] = pixels
            pixels = padded
        data = imagecodecs.deflate_encode(pixels.astype(self.dtype, copy=False).tobytes(), _LEVEL)
        place = self._layer.place_of(plane, level, row, col)
        self._file.seek(self._end)
        self._file.write(data)
        self._offsets[place], self._counts[place] = self._end, len(data)
        self._end += len(data)

    def read(self, plane: int, level: int, row: int, col: int) -> Array:
        """Read a tile that was written, (TILE_PX, TILE_PX)."""
        place = self._layer.place_of(plane, level, row, col)
        self._file.seek(self._offsets[place])
        return decoded(self._file.read(self._counts[place]), self.dtype)

    def _write_index(self) -> None:
        with index_path(self._path).open("wb") as file:
            for entry in zip(self._offsets, self._counts, strict=True):
                file.write(ENTRY.pack(*entry))

    def _write_directories(self) -> None:
        first, link = 0, 0
        for plane in range(self._layer.planes):
            for number, level in enumerate(self._layer.levels):
                start = self._layer.place_of(plane, number, 0, 0)
                place = self._write_directory(level.width, level.height, slice(start, start + level.tiles), number)
                first = first or place[0]
                if link:
                    self._file.seek(link)
                    self._file.write(struct.pack("<Q", place[0]))
                link = place[1]
        self._file.seek(0)
        self._file.write(_HEADER.pack(b"II", 43, 8, 0, first))

    def _write_directory(self, width: int, height: int, tiles: slice, level: int) -> tuple[int, int]:
        """Write one directory; return its place, and that of its link to the next one."""
        offsets, counts = self._offsets[tiles], self._counts[tiles]
        at = self._at_end(_little_endian(offsets)) if len(offsets) > 1 else offsets[0]
        counted = self._at_end(_little_endian(counts)) if len(counts) > 1 else counts[0]
        tags = (
            (254, _LONG, 1, _REDUCED if level else 0),
            (256, _LONG, 1, width),
            (257, _LONG, 1, height),
            (258, _SHORT, 1, 8 * self.dtype.itemsize),
            (259, _SHORT, 1, _ADOBE_DEFLATE),
            (262, _SHORT, 1, 1),
            (277, _SHORT, 1, 1),
            (322, _LONG, 1, TILE_PX),
            (323, _LONG, 1, TILE_PX),
            (324, _LONG8, len(offsets), at),
            (325, _LONG, len(counts), counted),
            (339, _SHORT, 1, _SAMPLE_FORMATS[self.dtype.kind]),
        )
        data = struct.pack("<Q", len(tags)) + b"".join(_TAG.pack(*tag) for tag in tags)
        place = self._at_end(data + bytes(8))
        return place, place + len(data)

    def _at_end(self, data: bytes) -> int:
        place = self._end + self._end % 2
        self._file.seek(place)
        self._file.write(data)
        self._end = place + len(data)
        return place


def _little_endian(values: array[int]) -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()
