"""Keeps tiles and frames of a result in temporary files until the result is complete."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from redis_consumer.images.image import Array

#: Side of a tile in pixels: multiples of 16 are what TIFF allows, and most viewers like this one.
TILE_PX = 512
_LEVEL = 1

#: Plane of the result, frame, row and column of the tile.
Key = tuple[int, int, int, int]


class TileScratch:
    """Compressed tiles in one local file. Each tile is written once and can be read several times.

    The file is at most as large as all tiles together. For label images it is about a fiftieth of that.

    Args:
        path: of the file; it is removed at the end.
        tile_px: side of a tile.
    """

    def __init__(self, path: Path, tile_px: int = TILE_PX) -> None:
        self.tile_px = tile_px
        self._path = path
        self._file = path.open("w+b")
        self._places: dict[Key, tuple[int, int]] = {}

    def __enter__(self) -> TileScratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink()

    def write(self, plane: int, frame: int, corner_yx: tuple[int, int], pixels: Array) -> None:
        """Write a part of a plane as tiles.

        Args:
            plane: of the result, from 0.
            frame: from 0.
            corner_yx: where the part begins, multiples of `tile_px`.
            pixels: (y, x).
        """
        import imagecodecs

        for row in range(0, pixels.shape[0], self.tile_px):
            for column in range(0, pixels.shape[1], self.tile_px):
                tile = pixels[row : row + self.tile_px, column : column + self.tile_px]
                data = imagecodecs.zstd_encode(tile.tobytes(), _LEVEL)
                key = (plane, frame, (corner_yx[0] + row) // self.tile_px, (corner_yx[1] + column) // self.tile_px)
                self._places[key] = (self._file.seek(0, 2), len(data))
                self._file.write(data)

    def read(self, key: Key, shape_yx: tuple[int, int], dtype: np.dtype[Any]) -> Array:
        """Read a tile, with the shape and dtype with which it was written."""
        import imagecodecs

        offset, count = self._places[key]
        self._file.seek(offset)
        pixels: Array = np.frombuffer(imagecodecs.zstd_decode(self._file.read(count)), dtype)
        return pixels.reshape(shape_yx)


class FrameScratch:
    """Label images of a movie in one local file, of which one is in memory at a time.

    The pages of a memory map would count as memory of the process until the disk has taken them.

    Args:
        path: of the file; nothing is there yet.
        shape: (T, Y, X) of all.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self._path = path

    def append(self, frames: Array) -> None:
        """Write the next frames, (Y, X) or (t, Y, X), as uint32.

        Raises:
            OSError: the file can't be written.
        """
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(frames, np.uint32).data)

    def read(self, number: int) -> Array:
        """Read a frame that was written, (Y, X)."""
        _, height, width = self.shape
        count = height * width
        return np.fromfile(self._path, np.uint32, count, offset=4 * count * number).reshape(height, width)

    def __iter__(self) -> Iterator[Array]:
        return map(self.read, range(self.shape[0]))
