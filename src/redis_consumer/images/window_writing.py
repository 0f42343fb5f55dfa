"""Writes the planes of a result that is larger than memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from redis_consumer.errors import PermanentError
from redis_consumer.images.image import Array
from redis_consumer.images.writing import MAX_EXACT

#: Classic TIFF ends at 4 GiB; compression may fail to make files smaller, and the directory needs room.
_CLASSIC_BYTES = (4 << 30) - (64 << 20)


@dataclass(frozen=True)
class TiledPlane:
    """One plane of a result for all frames, given tile by tile.

    Attributes:
        shape: (B, Y, X).
        tile_px: side of a tile; tiles at the far edges are smaller.
        dtype: of the tiles.
        tile: takes frame, row and column of a tile, gives its pixels (y, x).
        max_label: the largest label of a label image, else 0.
        pixel_size_um: side of a pixel in micrometres, None if it isn't known.
    """

    shape: tuple[int, int, int]
    tile_px: int
    dtype: np.dtype[Any]
    tile: Callable[[int, int, int], Array]
    max_label: int = 0
    pixel_size_um: float | None = None

    def places(self) -> Iterator[tuple[int, int, int]]:
        """Frame, row and column of each tile, row by row."""
        frames, height, width = self.shape
        return product(range(frames), range(ceil(height / self.tile_px)), range(ceil(width / self.tile_px)))


def write_tiled_tiff(plane: TiledPlane, path: Path) -> list[Path]:
    """Write a plane as the contract's float32 TIFF, with Deflate tiles, a BigTIFF where it may exceed 4 GiB.

    This needs the memory of a few tiles.

    Args:
        plane: what to write.
        path: the file; missing folders are made.

    Returns:
        The file.

    Raises:
        PermanentError: float32 can't distinguish its labels (contract, section 5.1).
        OSError: it can't be written.
    """
    from tifffile import imwrite

    if plane.max_label > MAX_EXACT:
        raise PermanentError(
            f"result: holds labels up to {plane.max_label}, but result files (float32) keep only those up to "
            f"{MAX_EXACT} apart; split the image, or upload it as OME-Zarr, whose result is an OME-Zarr of integers"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = plane.shape if plane.shape[0] > 1 else plane.shape[1:]
    imwrite(
        path,
        (_full_tile(plane, place) for place in plane.places()),
        shape=shape,
        dtype=np.float32,
        tile=(plane.tile_px, plane.tile_px),
        compression="zlib",
        compressionargs={"level": 1},
        photometric="minisblack",
        bigtiff=4 * int(np.prod(plane.shape, dtype=np.int64)) > _CLASSIC_BYTES,
        # Workers would hold 256 MB of tiles.
        maxworkers=1,
    )
    return [path]


def _full_tile(plane: TiledPlane, place: tuple[int, int, int]) -> Array:
    tile = plane.tile(*place)
    result = np.zeros((plane.tile_px, plane.tile_px), np.float32)
    result[: tile.shape[0], : tile.shape[1]] = tile
    return result


def write_ome_zarr(plane: TiledPlane, folder: Path) -> list[Path]:
    """Write a plane as an OME-Zarr 0.4 of one resolution, in the plane's own dtype.

    It is version 0.4, because readers of newer versions can read it too.

    Args:
        plane: what to write.
        folder: the OME-Zarr; it and missing folders above are made.

    Returns:
        All files of it.

    Raises:
        OSError: it can't be written.
    """
    import tensorstore

    is_stack = plane.shape[0] > 1
    shape = plane.shape if is_stack else plane.shape[1:]
    chunks = [1] * is_stack + [min(plane.tile_px, side) for side in plane.shape[1:]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    (folder / ".zattrs").write_text(json.dumps(_metadata(plane, "tyx" if is_stack else "yx")))
    array = tensorstore.open(
        {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": f"{folder}/0/"},
            "metadata": {
                "shape": list(shape),
                "chunks": chunks,
                "dtype": plane.dtype.newbyteorder("<").str,
                "compressor": {"id": "zlib", "level": 1},
                "dimension_separator": "/",
                "fill_value": 0,
            },
        },
        create=True,
    ).result()
    for frame, row, column in plane.places():
        tile = plane.tile(frame, row, column)
        top, left = row * plane.tile_px, column * plane.tile_px
        rows, columns = slice(top, top + tile.shape[0]), slice(left, left + tile.shape[1])
        array[(frame, rows, columns) if is_stack else (rows, columns)].write(tile).result()
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _metadata(plane: TiledPlane, axes: str) -> dict[str, Any]:
    unit = {"unit": "micrometer"} if plane.pixel_size_um else {}
    side = plane.pixel_size_um or 1.0
    return {
        "multiscales": [
            {
                "version": "0.4",
                "axes": [
                    {"name": axis, "type": "time"} if axis == "t" else {"name": axis, "type": "space", **unit}
                    for axis in axes
                ],
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [1.0 if axis == "t" else side for axis in axes]}
                        ],
                    }
                ],
            }
        ]
    }
