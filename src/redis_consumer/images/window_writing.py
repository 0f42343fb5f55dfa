"""Writes the planes of a result that is larger than memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from redis_consumer.errors import PermanentError
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.image import Array
from redis_consumer.images.writing import MAX_EXACT

#: Classic TIFF ends at 4 GiB; compression may fail to make files smaller, and the directory needs room.
_CLASSIC_BYTES = (4 << 30) - (64 << 20)
#: A level of an OME-Zarr with a longer side is followed by one of half the size.
_LAST_LEVEL_PX = 2048


@dataclass(frozen=True)
class TiledPlane:
    """One plane of a result for all frames, given tile by tile.

    Attributes:
        shape: (B, Y, X).
        tile_px: side of a tile; tiles at the far edges are smaller.
        dtype: of the tiles.
        tile: takes frame, row and column of a tile, gives its pixels (y, x).
        max_label: the largest label of a label image, else 0.
        calibration: axes of the frames, and sizes.
    """

    shape: tuple[int, int, int]
    tile_px: int
    dtype: np.dtype[Any]
    tile: Callable[[int, int, int], Array]
    max_label: int = 0
    calibration: Calibration = field(default_factory=Calibration)

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
    calibration = plane.calibration.fitting(plane.shape[0])
    is_large = 4 * int(np.prod(plane.shape, dtype=np.int64)) > _CLASSIC_BYTES
    known = replace(plane.calibration, spacing_um=None, interval_s=None)
    if known != Calibration():
        options = calibration.ome_options(np.float32, plane.shape[1:])
    else:
        options = {"shape": (*calibration.shape, *plane.shape[1:]), "dtype": np.float32, "photometric": "minisblack"}
    imwrite(
        path,
        (_full_tile(plane, place) for place in plane.places()),
        tile=(plane.tile_px, plane.tile_px),
        compression="zlib",
        compressionargs={"level": 1},
        # Workers would hold 256 MB of tiles.
        maxworkers=1,
        **{**options, "bigtiff": is_large},
    )
    return [path]


def _full_tile(plane: TiledPlane, place: tuple[int, int, int]) -> Array:
    tile = plane.tile(*place)
    result = np.zeros((plane.tile_px, plane.tile_px), np.float32)
    result[: tile.shape[0], : tile.shape[1]] = tile
    return result


def write_ome_zarr(plane: TiledPlane, folder: Path) -> list[Path]:
    """Write a plane as an OME-Zarr 0.4 in the plane's own dtype, with its axes and sizes.

    It is version 0.4, because readers of newer versions can read it too. Integers are described as labels. Planes with
    a longer side than `_LAST_LEVEL_PX` have levels: every other row and column of the level before.

    Args:
        plane: what to write.
        folder: the OME-Zarr; it and missing folders above are made.

    Returns:
        All files of it.

    Raises:
        OSError: it can't be written.
    """
    shape = (*plane.calibration.fitting(plane.shape[0]).shape, *plane.shape[1:])
    sides = plane.shape[1:]
    levels = 1
    while max(sides) >> (levels - 1) > _LAST_LEVEL_PX:
        levels += 1
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".zgroup").write_text(json.dumps({"zarr_format": 2}))
    (folder / ".zattrs").write_text(json.dumps(_metadata(plane, levels)))
    array = _new_array(folder / "0", shape, plane)
    for frame, row, column in plane.places():
        tile = plane.tile(frame, row, column)
        top, left = row * plane.tile_px, column * plane.tile_px
        rows, columns = slice(top, top + tile.shape[0]), slice(left, left + tile.shape[1])
        frames = np.unravel_index(frame, shape[:-2]) if shape[:-2] else ()
        place = (*map(int, frames), rows, columns)
        array[place].write(tile).result()
    for level in range(1, levels):
        array = _half(array, _new_array(folder / str(level), (*shape[:-2], *_halved(array.shape[-2:])), plane), plane)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _halved(sides: Sequence[int]) -> tuple[int, ...]:
    return tuple(ceil(side / 2) for side in sides)


def _half(array: Any, smaller: Any, plane: TiledPlane) -> Any:
    """Write every other row and column of an array to a smaller one, part by part."""
    height, width = array.shape[-2:]
    side = 2 * plane.tile_px
    for frame in np.ndindex(*array.shape[:-2]):
        for top, left in product(range(0, height, side), range(0, width, side)):
            window = (slice(top, min(top + side, height)), slice(left, min(left + side, width)))
            pixels = array[frame + window].read().result()[::2, ::2]
            rows, columns = (
                slice(at // 2, at // 2 + length) for at, length in zip((top, left), pixels.shape, strict=True)
            )
            place = (*frame, rows, columns)
            smaller[place].write(pixels).result()
    return smaller


def _new_array(folder: Path, shape: tuple[int, ...], plane: TiledPlane) -> Any:
    import tensorstore

    chunks = [1] * (len(shape) - 2) + [min(plane.tile_px, side) for side in shape[-2:]]
    return tensorstore.open(
        {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": f"{folder}/"},
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


def _metadata(plane: TiledPlane, levels: int) -> dict[str, Any]:
    calibration = plane.calibration.fitting(plane.shape[0])
    y, x = calibration.pixel_yx_um or (None, None)
    steps = [calibration.spacing_um if letter == "Z" else calibration.interval_s for letter in calibration.letters]
    known = list(zip([letter.lower() if letter == "Z" else "t" for letter in calibration.letters], steps, strict=True))
    known += [("y", y), ("x", x)]
    datasets = [
        {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": [
            (step or 1.0) * (1 << level if name in "yx" else 1) for name, step in known
        ]}]}
        for level in range(levels)
    ]  # fmt: skip
    axes = [_axis(name, is_known=step is not None) for name, step in known]
    labels = {"image-label": {"version": "0.4"}} if plane.dtype.kind in "iu" else {}
    return {"multiscales": [{"version": "0.4", "axes": axes, "datasets": datasets}], **labels}


def _axis(name: str, *, is_known: bool) -> dict[str, str]:
    kind, unit = ("time", "second") if name == "t" else ("space", "micrometer")
    return {"name": name, "type": kind, **({"unit": unit} if is_known else {})}
