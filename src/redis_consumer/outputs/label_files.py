"""Writes label images as integers: TIFF for ImageJ and others, and OME-TIFF with levels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.outputs.cells import LabelImages, Window

Array = npt.NDArray[Any]

#: Side of the tiles of a file.
TILE_PX = 512
#: A level with longer sides is followed by one of half the size.
_LAST_LEVEL_PX = 2048
_PACKED: dict[str, Any] = {"compression": "zlib", "compressionargs": {"level": 1}, "maxworkers": 1}


def write_labels(images: LabelImages, largest: int, path: Path) -> list[Path]:
    """Write a TIFF of uint16, or of uint32 for labels above 65,535, with axes and sizes.

    It is uncompressed with ImageJ's metadata if they can hold it, see `Calibration.tiff_options`. Images that are read
    in windows are written in compressed tiles.

    Args:
        images: the label images.
        largest: the largest label.
        path: of the file.

    Raises:
        OSError: it can't be written.
    """
    from tifffile import imwrite

    dtype = _dtype(largest)
    if images.tile_px:
        options = images.calibration.ome_options(dtype, images.shape[1:], "labels")
        imwrite(path, _tiles(images, 1, dtype), tile=(TILE_PX, TILE_PX), **_PACKED, **options)
    else:
        imwrite(path, _frames(images, dtype), **images.calibration.tiff_options(dtype, images.shape[1:]))
    return [path]


def write_ome(images: LabelImages, largest: int, path: Path) -> list[Path]:
    """Write an OME-TIFF with axes, sizes and a channel ``labels``, in compressed tiles. Arguments as `write_labels`.

    Planes with longer sides than 2,048 px have levels, each half the size.
    """
    from tifffile import TiffWriter

    dtype = _dtype(largest)
    levels = 0
    while max(images.shape[1:]) >> levels > _LAST_LEVEL_PX:
        levels += 1
    options = images.calibration.ome_options(dtype, images.shape[1:], "labels")
    frames = options.pop("shape")[:-2]
    with TiffWriter(path, ome=options.pop("ome"), bigtiff=options.pop("bigtiff")) as tif:
        for level in range(levels + 1):
            step = 1 << level
            shape = (*frames, *(-(-side // step) for side in images.shape[1:]))
            if level:
                options = {"dtype": dtype, "photometric": "minisblack", "subfiletype": 1}
            elif levels:
                options["subifds"] = levels
            tif.write(_tiles(images, step, dtype), shape=shape, tile=(TILE_PX, TILE_PX), **_PACKED, **options)
    return [path]


def thinned(images: LabelImages, frame: int, window: Window, step: int) -> Array:
    """Return every `step`-th row and column of a window. Only a part of it is read at once."""
    side = max(max(images.tile_px, TILE_PX) // step, 1) * step
    rows = []
    for top in range(window[0].start, window[0].stop, side):
        across = slice(top, min(top + side, window[0].stop))
        parts = [
            images.read(frame, (across, slice(left, min(left + side, window[1].stop))))[::step, ::step]
            for left in range(window[1].start, window[1].stop, side)
        ]
        rows.append(np.concatenate(parts, axis=1))
    return np.concatenate(rows)


def _dtype(largest: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if largest < 1 << 16 else np.uint32)


def _frames(images: LabelImages, dtype: np.dtype[Any]) -> Iterator[Array]:
    everything = (slice(0, images.shape[1]), slice(0, images.shape[2]))
    for frame in range(images.shape[0]):
        yield images.read(frame, everything).astype(dtype)


def _tiles(images: LabelImages, step: int, dtype: np.dtype[Any]) -> Iterator[Array]:
    """Yield the tiles of all frames, with every `step`-th pixel."""
    side = TILE_PX * step
    _, height, width = images.shape
    for frame in range(images.shape[0]):
        for top in range(0, height, side):
            for left in range(0, width, side):
                window = (slice(top, min(top + side, height)), slice(left, min(left + side, width)))
                tile = np.zeros((TILE_PX, TILE_PX), dtype)
                part = thinned(images, frame, window, step)
                tile[: part.shape[0], : part.shape[1]] = part
                yield tile
