"""Reads the tiles of views for the web process: bytes at an offset, without numpy. Only light tiles are decoded."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

from redis_consumer.web.view.layout import ENTRY, POINTS, TILE_PX, VALUE_BYTES, ViewLayer

_QUALITY = 85
#: Formats of `struct` by type.
_FORMATS = {"uint8": "<B", "uint16": "<H", "uint32": "<I", "float32": "<f"}


def stored_tile(folder: Path, layer: ViewLayer, plane: int, level: int, row: int, col: int) -> bytes:
    """Return a tile as it is stored: 512 x 512 little-endian values, packed by zlib.

    Raises:
        IndexError: the layer has no such tile.
        FileNotFoundError: the view was removed.
    """
    place = layer.place_of(plane, level, row, col)
    offset, count = ENTRY.unpack(_read(folder / f"{layer.name}.index", place * ENTRY.size, ENTRY.size))
    return _read(folder / f"{layer.name}.tif", offset, count)


def value_at(folder: Path, layer: ViewLayer, plane: int, y: int, x: int) -> float:
    """Return a value of a layer, by the row and column of the layer.

    Raises:
        IndexError: it lies outside.
        FileNotFoundError: the view was removed.
    """
    if not (0 <= y < layer.height and 0 <= x < layer.width):
        raise IndexError(f"y is {y} and x is {x}, layer {layer.name} has {layer.height} rows and {layer.width} columns")
    tile = zlib.decompress(stored_tile(folder, layer, plane, 0, y // TILE_PX, x // TILE_PX))
    place = (y % TILE_PX * TILE_PX + x % TILE_PX) * VALUE_BYTES[layer.dtype]
    value: float = struct.unpack_from(_FORMATS[layer.dtype], tile, place)[0]
    return value


def light_tile(tile: bytes, dtype: str, low: float, high: float) -> bytes:
    """Return a tile as a JPEG of a grey value for each pixel, 255 times the root of its share of the range.

    The value is about ``low + (grey / 255) ** 2 * (high - low)``.

    Args:
        tile: as it is stored.
        dtype: its type.
        low: the lowest value of the channel.
        high: the highest value of the channel.
    """
    import numpy as np
    from PIL import Image

    values = np.frombuffer(zlib.decompress(tile), np.dtype(dtype).newbyteorder("<")).astype(np.float32)
    share = np.clip((values - np.float32(low)) / np.float32(max(high - low, 1e-30)), 0, 1)
    grey = np.rint(255 * np.sqrt(share)).astype(np.uint8).reshape(TILE_PX, TILE_PX)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def points_of(folder: Path, layer: ViewLayer, t: int, z: int) -> bytes:
    """Return the points of a plane, the object POINTS of the API as JSON.

    Raises:
        IndexError: there is no such plane.
        FileNotFoundError: the view was removed.
    """
    return (folder / f"{POINTS}_{layer.plane_of(t, z, 0)}.json").read_bytes()


def layer_facts(layer: ViewLayer) -> dict[str, Any]:
    """Return a layer as the API shows it."""
    shown = {"name": layer.name, "t": layer.t, "z": layer.z}
    if layer.name == POINTS:
        return {**shown, "count": layer.count}
    table = {**shown, "dtype": layer.dtype, "width": layer.width, "height": layer.height, "channels": layer.channels}
    return {**table, "max_label": layer.max_label} if layer.dtype == "uint32" else table


def _read(path: Path, offset: int, count: int) -> bytes:
    file = os.open(path, os.O_RDONLY)
    try:
        return os.pread(file, count, offset)
    finally:
        os.close(file)
