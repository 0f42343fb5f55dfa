"""Reads images of Zeiss CZI files, tile by tile.

The layout is that of Zeiss' document "ZEN image file format": segments, of which the directory names every tile with
its place on all axes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np

from redis_consumer.errors import InvalidImage
from redis_consumer.images.channels import Channel, channel_named
from redis_consumer.images.compressed_sides import check_segment
from redis_consumer.images.fields import choose
from redis_consumer.images.image import Array
from redis_consumer.images.planes import Planes, Window
from redis_consumer.images.vendors.stacks import check_planes, stacked
from redis_consumer.images.vendors.xml_tree import parse_xml

#: Tiles of a file.
MAX_TILES = 200_000
MAX_AXES = 32
_MAX_PARTS = 10_000
#: Bytes of a decoded tile, and how many of them are kept.
MAX_TILE_BYTES = 256 << 20
_KEPT_TILES = 2
MAX_XML_BYTES = 32 << 20
#: Sides and coordinates.
_MAX_PX = 1 << 31

_SEGMENT = struct.Struct("<16sqq")
_ENTRY = struct.Struct("<2siqiiB5xi")
_DIMENSION = struct.Struct("<4siifi")
#: Bytes of a tile's segment before its metadata, at least.
_LEAST_HEADER = 256
_DTYPES = {
    0: ("u1", 1),
    1: ("u2", 1),
    2: ("f4", 1),
    3: ("u1", 3),
    4: ("u2", 3),
    8: ("f4", 3),
    9: ("u1", 4),
    12: ("i4", 1),
}
_JPEG, _LZW, _JPEG_XR, _ZSTD, _ZSTD_WITH_HEADER = 1, 2, 4, 5, 6
_PIXEL_SIZE = re.compile(r'<Distance\s+Id="([XY])"[^>]*>\s*<Value>([^<]{1,40})</Value>')


@dataclass(frozen=True)
class _Tile:
    """One tile: where it lies in the file and in its scene, and its place on all other axes."""

    place: int
    kind: int
    compression: int
    corner_yx: tuple[int, int]
    shape_yx: tuple[int, int]
    number: int
    others: tuple[tuple[str, int], ...]
    scene: int
    header_bytes: int


@contextmanager
def open_czi(path: Path, name: str, field: str = "") -> Iterator[Planes]:
    """Open a scene of a CZI: the tiles of full resolution, those with higher numbers above others.

    Raises:
        SeveralImages: it has several scenes and none is named.
        InvalidImage: it lacks planes, or has a kind of pixels that isn't read.
        Exception: if the file is damaged.
    """
    with path.open("rb") as file:
        tiles = _tiles(file, name)
        scenes = sorted({tile.scene for tile in tiles})
        scene = scenes[choose([str(each) for each in scenes], field, name)]
        chosen = sorted((tile for tile in tiles if tile.scene == scene), key=lambda tile: tile.number)
        metadata = _metadata(file)
        mosaic = _Mosaic(file, chosen, name)
        yield mosaic.planes(_pixel_size_um(metadata), path.stat().st_size, _channels(metadata, name))


def _pixels_of(tiles: Sequence[_Tile], name: str) -> tuple[str, int]:
    """Return the dtype and the number of samples that all tiles have."""
    kinds = {tile.kind for tile in tiles}
    if len(kinds) > 1 or not kinds <= set(_DTYPES):
        raise InvalidImage(
            f"{name}: a Zeiss CZI with pixels of kind {', '.join(map(str, sorted(kinds)))} can't be read; "
            "export it as OME-TIFF"
        )
    return _DTYPES[kinds.pop()]


def _values_of(places: Sequence[Mapping[str, int]]) -> dict[str, list[int]]:
    """Return the axes along which the tiles have several places, T, C and Z first, and the places along each."""
    letters = sorted({axis for each in places for axis in each}, key=lambda axis: ("TCZ".find(axis) % 9, axis))
    values = {axis: sorted({each.get(axis, 0) for each in places}) for axis in letters}
    return {axis: found for axis, found in values.items() if len(found) > 1}


class _Mosaic:
    """The tiles of one scene."""

    def __init__(self, file: BinaryIO, tiles: list[_Tile], name: str) -> None:
        self._file = file
        self._name = name
        kind, self._samples = _pixels_of(tiles, name)
        self._dtype = np.dtype(f"<{kind}")
        self._top, self._left = (min(tile.corner_yx[axis] for tile in tiles) for axis in (0, 1))
        self._height, self._width = (
            max(tile.corner_yx[axis] + tile.shape_yx[axis] for tile in tiles) - start
            for axis, start in ((0, self._top), (1, self._left))
        )
        places = [dict(tile.others) for tile in tiles]
        self._values = _values_of(places)
        self._by_plane: dict[tuple[int, ...], list[_Tile]] = {}
        for tile, each in zip(tiles, places, strict=True):
            index = tuple(values.index(each.get(axis, 0)) for axis, values in self._values.items())
            self._by_plane.setdefault(index, []).append(tile)
        self._decoded = lru_cache(_KEPT_TILES)(self._decode)

    def planes(self, pixel_size_um: float | None, stored_bytes: int, named: Sequence[Channel]) -> Planes:
        """Return the scene; `named` are all channels of the file."""
        axes = {axis: len(values) for axis, values in self._values.items()}
        axes |= {"Y": self._height, "X": self._width} | ({"S": self._samples} if self._samples > 1 else {})
        check_planes(axes, len(self._by_plane), self._name)
        numbers = self._values.get("C", [0])
        channels = [named[number] for number in numbers if 0 <= number < len(named)]
        return stacked(
            axes,
            self._dtype.newbyteorder("="),
            self._read,
            pixel_size_um=pixel_size_um,
            stored_bytes=stored_bytes,
            channels=channels,
        )

    def _read(self, index: tuple[int, ...], window: Window) -> Array:
        rows, columns = window
        sample = (self._samples,) if self._samples > 1 else ()
        result = np.zeros(
            (rows.stop - rows.start, columns.stop - columns.start, *sample), self._dtype.newbyteorder("=")
        )
        for tile in self._by_plane[index]:
            targets, sources = [], []
            for part, corner, start, side in zip(
                window, tile.corner_yx, (self._top, self._left), tile.shape_yx, strict=True
            ):
                first = corner - start
                begin, end = max(part.start, first), min(part.stop, first + side)
                targets.append(slice(begin - part.start, max(end - part.start, begin - part.start)))
                sources.append(slice(begin - first, max(end - first, begin - first)))
            if all(target.stop > target.start for target in targets):
                result[tuple(targets)] = self._decoded(tile)[tuple(sources)]
        return result

    def _decode(self, tile: _Tile) -> Array:
        shape = (*tile.shape_yx, *((self._samples,) if self._samples > 1 else ()))
        size = prod(shape) * self._dtype.itemsize
        self._file.seek(tile.place)
        mark, _, _ = _SEGMENT.unpack(self._file.read(_SEGMENT.size))
        if mark.rstrip(b"\0") != b"ZISRAWSUBBLOCK":
            raise ValueError("no tile is where the directory names one")
        metadata_bytes, _, data_bytes = struct.unpack("<iiq", self._file.read(16))
        if metadata_bytes < 0 or not 0 <= data_bytes <= 2 * MAX_TILE_BYTES:
            raise ValueError("sizes of a tile are wrong")
        self._file.seek(tile.place + _SEGMENT.size + tile.header_bytes + metadata_bytes)
        data = self._file.read(data_bytes)
        if len(data) < data_bytes:
            raise EOFError("a tile is cut off")
        pixels = self._unpacked(data, tile, size)
        if isinstance(pixels, bytes):
            pixels = np.frombuffer(pixels, self._dtype, prod(shape)).reshape(shape)
            pixels = pixels[..., [2, 1, 0, *range(3, self._samples)]] if self._samples > 1 else pixels  # BGR
        tile_pixels: Array = pixels.reshape(shape)
        return tile_pixels

    def _unpacked(self, data: bytes, tile: _Tile, size: int) -> Any:
        """The pixels of a tile, as bytes or as an array."""
        import imagecodecs

        if tile.compression in (_JPEG, _JPEG_XR):
            check_segment(data, prod(tile.shape_yx) * self._samples, 0)
            return imagecodecs.jpeg_decode(data) if tile.compression == _JPEG else imagecodecs.jpegxr_decode(data)
        if tile.compression == _LZW:
            return bytes(imagecodecs.lzw_decode(data, out=size))
        if tile.compression == _ZSTD:
            return bytes(imagecodecs.zstd_decode(data, out=size))
        if tile.compression == _ZSTD_WITH_HEADER:
            # The first byte is the length of the header; the last bit of its third says that low bytes come first.
            is_split = data[0] >= 3 and data[2] & 1
            unpacked = bytes(imagecodecs.zstd_decode(data[data[0] :], out=size))
            return np.frombuffer(unpacked, np.uint8).reshape(2, -1).T.tobytes() if is_split else unpacked
        return data


def _tiles(file: BinaryIO, name: str) -> list[_Tile]:
    """The tiles of full resolution that the directory names."""
    file.seek(0)
    mark, _, _ = _SEGMENT.unpack(file.read(_SEGMENT.size))
    header = file.read(80)
    part, directory = struct.unpack_from("<iq", header, 48)
    _check_part(part, name)
    file.seek(directory)
    mark, _, _ = _SEGMENT.unpack(file.read(_SEGMENT.size))
    if mark.rstrip(b"\0") != b"ZISRAWDIRECTORY":
        raise ValueError("the directory isn't where the header says")
    (count,) = struct.unpack_from("<i", file.read(128))
    if not 0 <= count <= MAX_TILES:
        raise InvalidImage(
            f"{name}: has {count} tiles, allowed are {MAX_TILES}; export it as OME-TIFF with larger tiles"
        )
    tiles = [tile for tile in (_entry(file, name) for _ in range(count)) if tile is not None]
    if not tiles:
        raise InvalidImage(f"{name}: a Zeiss CZI without images; export the image again")
    return tiles


def _check_part(part: int, name: str) -> None:
    if not 0 <= part <= _MAX_PARTS:
        raise ValueError("the number of a part is wrong")
    if part:
        raise InvalidImage(f"{name}: is a Zeiss CZI of several files; export it as one OME-TIFF")


def _entry(file: BinaryIO, name: str) -> _Tile | None:
    """One entry of the directory; None for a tile of a reduced image."""
    schema, kind, place, part, compression, pyramid, count = _ENTRY.unpack(file.read(_ENTRY.size))
    if schema != b"DV" or not 0 < count <= MAX_AXES:
        raise ValueError("an entry of the directory is malformed")
    sides: dict[str, tuple[int, int, int]] = {}
    for _ in range(count):
        axis, start, size, _, stored = _DIMENSION.unpack(file.read(_DIMENSION.size))
        sides[axis.rstrip(b"\0").decode("ascii")] = start, size, stored
    _check_part(part, name)
    (left, width, stored_width), (top, height, stored_height) = sides["X"], sides["Y"]
    if pyramid or (stored_width, stored_height) != (width, height):
        return None
    if compression not in (0, _JPEG, _LZW, _JPEG_XR, _ZSTD, _ZSTD_WITH_HEADER):
        raise InvalidImage(f"{name}: a Zeiss CZI with compression {compression} can't be read; export it as OME-TIFF")
    if not (0 < width < _MAX_PX and 0 < height < _MAX_PX and width * height <= MAX_TILE_BYTES):
        raise ValueError("sides of a tile are wrong")
    others = tuple((axis, start) for axis, (start, _, _) in sides.items() if axis not in ("X", "Y", "M", "S"))
    return _Tile(
        place,
        kind,
        compression,
        (top, left),
        (height, width),
        sides.get("M", (0, 0, 0))[0],
        others,
        sides.get("S", (0, 0, 0))[0],
        max(_LEAST_HEADER, 16 + _ENTRY.size + count * _DIMENSION.size),
    )


def _metadata(file: BinaryIO) -> str:
    """The XML of the file; empty without one."""
    file.seek(_SEGMENT.size)
    (place,) = struct.unpack_from("<q", file.read(80), 60)
    if place <= 0:
        return ""
    file.seek(place)
    mark, _, _ = _SEGMENT.unpack(file.read(_SEGMENT.size))
    (size,) = struct.unpack_from("<i", file.read(256))
    if mark.rstrip(b"\0") != b"ZISRAWMETADATA" or not 0 < size <= MAX_XML_BYTES:
        return ""
    return file.read(size).decode("utf-8", "replace").strip("\0 \r\n\t")


def _channels(metadata: str, name: str) -> list[Channel]:
    """What the metadata say of each channel; nothing if they are malformed."""
    try:
        root = parse_xml(metadata, name)
    except ElementTree.ParseError:
        return []
    found = root.findall(".//Information/Image/Dimensions/Channels/Channel")
    modes = ("ContrastMethod", "IlluminationType", "AcquisitionMode")
    return [channel_named(each.get("Name", ""), *(each.findtext(mode, "") for mode in modes)) for each in found]


def _pixel_size_um(metadata: str) -> float | None:
    """The side of a pixel that the metadata give in metres; None without them, or for pixels that aren't square."""
    sizes = dict(_PIXEL_SIZE.findall(metadata))
    try:
        x, y = (float(sizes[axis]) * 1e6 for axis in "XY")
    except (KeyError, ValueError):
        return None
    return x if 0 < x < float("inf") and abs(x - y) <= 0.01 * x else None
