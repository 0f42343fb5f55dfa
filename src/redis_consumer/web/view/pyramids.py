"""Writes a layer of a view: tiles of the image, and of each smaller level down to one tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.images.planes import Window
from redis_consumer.web.view.layout import TILE_PX, ViewLayer
from redis_consumer.web.view.tile_files import TileWriter

Array = npt.NDArray[Any]

#: Bytes of the pixels that are read at once, if a row of tiles is no more than that.
_BAND_BYTES = 64 << 20


def write_layer(
    path: Path,
    layer: ViewLayer,
    read: Callable[[int, int, Window], Array],
    tick: Callable[[float], None],
    *,
    keep: Callable[[Array], None] = lambda _: None,
) -> None:
    """Write the tiles of a layer.

    A smaller level of an image has the means of 2 x 2 values, and one of labels has every other label of every other
    row.

    Args:
        path: of the file, see `TileWriter`.
        layer: its sizes; a type of ``uint32`` is that of labels.
        read: takes t, z and a window, gives (y, x, C) of the image.
        tick: called with the share that is done, 0..1.
        keep: called with all pixels, part by part.

    Raises:
        InvalidImage: the file is damaged.
        OSError: the tiles can't be written.
    """
    places = list(product(range(layer.t), range(layer.z)))
    with TileWriter(path, layer) as file:
        for number, (t, z) in enumerate(places):
            windows = list(_windows(layer, file.dtype.itemsize))
            for part, window in enumerate(windows):
                pixels = read(t, z, window)
                keep(pixels)
                _write_part(file, layer, layer.plane_of(t, z, 0), window, pixels)
                tick((number + 0.9 * (part + 1) / len(windows)) / len(places))
            for channel in range(layer.channels):
                _write_levels(file, layer, layer.plane_of(t, z, channel))
            tick((number + 1) / len(places))


def _windows(layer: ViewLayer, value_bytes: int) -> Iterator[Window]:
    """Rows of tiles, or parts of them: files in strips are decoded for their whole width."""
    across = _BAND_BYTES // (TILE_PX * TILE_PX * layer.channels * value_bytes)
    side = TILE_PX * max(across, 1)
    for top in range(0, layer.height, TILE_PX):
        for left in range(0, layer.width, side):
            yield slice(top, min(top + TILE_PX, layer.height)), slice(left, min(left + side, layer.width))


def _write_part(file: TileWriter, layer: ViewLayer, plane: int, window: Window, pixels: Array) -> None:
    row, first = window[0].start // TILE_PX, window[1].start // TILE_PX
    for channel in range(layer.channels):
        for number, left in enumerate(range(0, pixels.shape[1], TILE_PX)):
            file.write(plane + channel, 0, row, first + number, pixels[:, left : left + TILE_PX, channel])


def _write_levels(file: TileWriter, layer: ViewLayer, plane: int) -> None:
    for number, level in enumerate(layer.levels[1:], 1):
        before = layer.levels[number - 1]
        for row, col in product(range(level.rows), range(level.cols)):
            square = np.zeros((2 * TILE_PX, 2 * TILE_PX), file.dtype)
            for down, right in product((0, 1), (0, 1)):
                if 2 * row + down < before.rows and 2 * col + right < before.cols:
                    part = file.read(plane, number - 1, 2 * row + down, 2 * col + right)
                    square[down * TILE_PX :, right * TILE_PX :][:TILE_PX, :TILE_PX] = part
            rows = min(2 * TILE_PX, before.height - 2 * TILE_PX * row)
            cols = min(2 * TILE_PX, before.width - 2 * TILE_PX * col)
            file.write(plane, number, row, col, halved(square[:rows, :cols]))


def halved(pixels: Array) -> Array:
    """Return an image of half the sides: the means of 2 x 2 values, or of labels (uint32) the first of them.

    A last row or column that is alone counts twice. Means of integers are rounded.

    >>> halved(np.array([[0, 2, 9], [4, 6, 11]], np.uint8)).tolist()
    [[3, 10]]
    """
    if pixels.dtype == np.uint32:
        return pixels[::2, ::2]
    even = np.pad(pixels, [(0, side % 2) for side in pixels.shape], mode="edge")
    if pixels.dtype.kind == "f":
        half: Array = even.reshape(even.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3), dtype=np.float64)
        return half.astype(pixels.dtype)
    total = even[::2, ::2].astype(np.uint32)
    total += even[1::2, ::2]
    total += even[::2, 1::2]
    total += even[1::2, 1::2]
    return ((total + 2) >> 2).astype(pixels.dtype)
