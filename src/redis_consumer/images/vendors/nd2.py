"""Reads images of Nikon ND2 files of 2010 and later, frame by frame.

A file is a chain of chunks; a map of them stands at its end. Metadata are tables of typed values, in older files XML.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np

from redis_consumer.errors import InvalidImage
from redis_consumer.images.channels import Channel, channel_named
from redis_consumer.images.fields import choose
from redis_consumer.images.image import Array
from redis_consumer.images.planes import Planes, Window
from redis_consumer.images.vendors.stacks import stacked
from redis_consumer.images.vendors.xml_tree import parse_xml

#: Bytes of the map of chunks, and of a chunk of metadata, packed and unpacked.
MAX_MAP_BYTES = 32 << 20
MAX_METADATA_BYTES = 16 << 20
#: Values of all metadata, and levels of tables.
MAX_VALUES = 150_000
MAX_LEVELS = 32
#: Bytes of a frame.
MAX_FRAME_BYTES = 1 << 30

_MAGIC = 0x0ABECEDA
_CHUNK = struct.Struct("<IIQ")
_MAP_NAME, _END_NAME = b"ND2 FILEMAP SIGNATURE NAME 0001!", b"ND2 CHUNK MAP SIGNATURE 0000001!"
_TIME_BYTES = 8
#: Kinds of loops of an experiment, and their axes.
_LOOPS = {1: "T", 2: "P", 4: "Z", 7: "Q", 8: "T", 9: "T", 10: "Z"}
_LOSSLESS, _LOSSY = 0, 1
_NUMBERS = {1: "<B", 2: "<i", 3: "<I", 4: "<q", 5: "<Q", 6: "<d", 7: "<Q"}
_STRING, _BYTES, _TABLE, _PACKED = 8, 9, 11, 76
#: Name of the values of a list.
_ITEM = ""

Table = dict[str, Any]


@dataclass(frozen=True)
class _Layout:
    """What the metadata say of the frames.

    Attributes:
        shape: (y, x, components) of a frame.
        dtype: of its pixels.
        row_bytes: from one row to the next.
        is_packed: whether frames are compressed.
        is_colour: whether components are red, green and blue.
        loops: axes besides those of a frame and their sides, outermost first.
        pixel_size_um: side of a pixel, None if it isn't known.
        channels: what is known of each component of a frame.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    row_bytes: int
    is_packed: bool
    is_colour: bool
    loops: tuple[tuple[str, int], ...]
    pixel_size_um: float | None
    channels: tuple[Channel, ...]


@contextmanager
def open_nd2(path: Path, name: str, field: str = "") -> Iterator[Planes]:
    """Open a position of an ND2.

    Raises:
        SeveralImages: it has several positions and none is named.
        InvalidImage: its pixels are of a kind that isn't read.
        Exception: if the file is damaged.
    """
    with path.open("rb") as file:
        source = _File(file, path.stat().st_size, name)
        layout = source.layout()
        yield _planes(source, layout, choose(_fields(layout), field, name))


def _fields(layout: _Layout) -> list[str]:
    return [str(number) for number in range(dict(layout.loops).get("P", 1))]


def _planes(source: _File, layout: _Layout, position: int) -> Planes:
    height, width, components = layout.shape
    sides = [side for _, side in layout.loops]
    outer = {axis: side for axis, side in layout.loops if axis != "P"}
    channels = {} if layout.is_colour or components == 1 else {"C": components}
    axes = {**outer, **channels, "Y": height, "X": width, **({"S": 3} if layout.is_colour else {})}

    def read(index: tuple[int, ...], window: Window) -> Array:
        places = iter(index)
        where = [position if axis == "P" else next(places) for axis, _ in layout.loops]
        frame = source.frame(int(np.ravel_multi_index(where, sides)) if sides else 0, layout)
        part = frame[window]
        part = part if layout.is_colour else part[..., next(places, 0)]
        return np.ascontiguousarray(part, layout.dtype.newbyteorder("="))

    dtype = layout.dtype.newbyteorder("=")
    return stacked(
        axes,
        dtype,
        read,
        pixel_size_um=layout.pixel_size_um,
        stored_bytes=source.size,
        channels=layout.channels,
    )


class _File:
    """The chunks of a file, by their names."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self.size = size
        self._file = file
        self._name = name
        file.seek(size - 40)
        mark, place = struct.unpack("<32sQ", file.read(40))
        if mark != _END_NAME:
            raise EOFError("the map of chunks is missing")
        self._places = dict(_map_entries(self._chunk(place, MAX_MAP_BYTES, _MAP_NAME)))
        self._kept: tuple[int, bytes] = (-1, b"")

    def layout(self) -> _Layout:
        attributes = self._table("ImageAttributes", "SLxImageAttributes")
        picture = self._table("ImageMetadataSeq", "SLxPictureMetadata", "|0")
        height, width, components = (int(attributes[key]) for key in ("uiHeight", "uiWidth", "uiComp"))
        dtype, compression = self._pixels(attributes)
        row_bytes = int(attributes.get("uiWidthBytes") or width * components * dtype.itemsize)
        is_large = not 0 < height * max(row_bytes, 1) <= MAX_FRAME_BYTES
        if is_large or min(width, components) < 1 or row_bytes < width * components * dtype.itemsize:
            raise ValueError("sides of frames are wrong")
        planes = int(picture.get("sPicturePlanes", {}).get("uiCount", 1) or 1)
        is_colour = components == 3 and planes == 1
        frames = int(attributes["uiSequenceCount"])
        if frames > sum(each.startswith("ImageDataSeq|") for each in self._places):
            raise EOFError("frames are missing")
        return _Layout(
            (height, width, components), dtype, row_bytes, compression == _LOSSLESS, is_colour, self._loops(frames),
            _pixel_size_um(picture), _channels(picture.get("sPicturePlanes", {})),
        )  # fmt: skip

    def _experiment(self) -> Table:
        has_experiment = any(f"ImageMetadata{end}" in self._places for end in ("LV!", "!"))
        return self._table("ImageMetadata", "SLxExperiment") if has_experiment else {}

    def _pixels(self, attributes: Mapping[str, Any]) -> tuple[np.dtype[Any], int]:
        """Return the dtype of the pixels and the number of their compression."""
        bits = int(attributes["uiBpcInMemory"])
        compression = int(attributes.get("eCompression", 2))
        if bits not in (8, 16, 32) or compression == _LOSSY:
            raise InvalidImage(
                f"{self._name}: a Nikon ND2 with {bits} bits and compression {compression} can't be read; "
                "export it as OME-TIFF"
            )
        return np.dtype({8: "u1", 16: "<u2", 32: "<f4"}[bits]), compression

    def frame(self, number: int, layout: _Layout) -> Array:
        """The pixels of a frame, (y, x, components)."""
        height, width, components = layout.shape
        size = height * layout.row_bytes
        if self._kept[0] != number:
            data = self._chunk(self._places[f"ImageDataSeq|{number}!"], 2 * size + (1 << 20))[_TIME_BYTES:]
            if layout.is_packed:
                data = zlib.decompressobj().decompress(data, size)
            self._kept = number, data
        shape = (height, layout.row_bytes // layout.dtype.itemsize)
        rows = np.frombuffer(self._kept[1], layout.dtype, prod(shape)).reshape(shape)
        return rows[:, : width * components].reshape(layout.shape)

    def _loops(self, frames: int) -> tuple[tuple[str, int], ...]:
        """The loops of the experiment; together they have as many steps as the file has frames."""
        loops = _nested_loops(self._experiment())
        inside = prod(side for _, side in loops[1:])
        if loops and loops[0][0] == "T" and loops[0][1] * inside > frames:
            # An acquisition that was stopped.
            loops[0] = "T", frames // inside
            frames = loops[0][1] * inside
        if not loops and frames > 1:
            loops = [("T", frames)]
        has_twice = len({axis for axis, _ in loops}) < len(loops)
        if has_twice or prod(side for _, side in loops) != max(frames, 1):
            listed = ", ".join(f"{axis}={side}" for axis, side in loops)
            raise InvalidImage(
                f"{self._name}: a Nikon ND2 of {frames} frames whose loops are {listed} can't be read; "
                "export it as OME-TIFF"
            )
        return tuple(loops)

    def _table(self, chunk: str, inner: str, number: str = "") -> Table:
        """The metadata in a chunk: a table of values, or XML."""
        modern = f"{chunk}LV{number}!"
        data = self._chunk(self._places[modern if modern in self._places else f"{chunk}{number}!"], MAX_METADATA_BYTES)
        if modern in self._places:
            table = _Values(self._name).read(data)
        else:
            table = _from_xml(parse_xml(data.decode("utf-8", "replace").strip("\0 \r\n\t"), self._name))
            table = _first(table) or table
        found: Table = table.get(inner, table)
        return found

    def _chunk(self, place: int, limit: int, name: bytes = b"") -> bytes:
        """The content of the chunk at a place."""
        self._file.seek(place)
        magic, name_bytes, data_bytes = _CHUNK.unpack(self._file.read(_CHUNK.size))
        start = place + _CHUNK.size
        if magic != _MAGIC or start + name_bytes + data_bytes > self.size:
            raise EOFError("a chunk is cut off")
        if data_bytes > limit or name_bytes > limit:
            raise ValueError(f"a chunk has {data_bytes} bytes, allowed are {limit}")
        if not self._file.read(name_bytes).startswith(name):
            raise ValueError("a chunk has another name than the map says")
        return self._file.read(data_bytes)


def _map_entries(data: bytes) -> Iterator[tuple[str, int]]:
    """Names and places of chunks: each name ends with an exclamation mark, two numbers of 8 bytes follow."""
    at = 0
    while True:
        end = data.index(b"!", at) + 1
        name = data[at:end]
        if name == _END_NAME:
            return
        (place,) = struct.unpack_from("<Q", data, end)
        yield name.decode("latin-1"), int(place)
        at = end + 16


def _nested_loops(level: Table) -> list[tuple[str, int]]:
    """Return axis and number of steps of each loop, the outermost first."""
    loops = []
    for _ in range(MAX_LEVELS):
        kind, count = level.get("eType"), _steps(level)
        if kind in _LOOPS and count > 1:
            loops.append((_LOOPS[kind], count))
        inner = _first(level.get("ppNextLevelEx") or {})
        if not inner:
            break
        level = inner
    return loops


def _channels(planes: Mapping[str, Any]) -> tuple[Channel, ...]:
    """The names of the planes of a frame, in their order; those of a colour stand for one channel."""
    tables = planes.get("sPlaneNew") or planes.get("sPlane") or {}
    found = [each for each in tables.values() if isinstance(each, dict)] or _all(tables)
    return tuple(channel_named(str(each.get("sDescription", ""))) for each in found)


def _pixel_size_um(picture: Mapping[str, Any]) -> float | None:
    size = picture.get("dCalibration")
    return size if isinstance(size, float) and 0 < size < float("inf") and picture.get("bCalibrated", True) else None


def _steps(level: Table) -> int:
    """Steps of a loop: those of all valid periods, or the valid positions."""
    given = level.get("uLoopPars", {})
    parameters = _first(given) or given
    if "pPeriod" in parameters:
        periods = [int(each.get("uiCount", 0)) for each in _all(parameters["pPeriod"])]
        valid = _flags(parameters.get("pPeriodValid")) or [True] * len(periods)
        return sum(count for count, is_valid in zip(periods, valid, strict=False) if is_valid)
    points = _all(parameters.get("Points", {}))
    if points:
        valid = _flags(level.get("pItemValid")) or [True] * len(points)
        return sum(is_valid for _, is_valid in zip(points, valid, strict=False))
    return int(parameters.get("uiCount", 0))


def _flags(value: Any) -> list[bool]:
    """Flags of items, as bytes or as a list."""
    items = value.get(_ITEM, list(value.values())) if isinstance(value, dict) else value
    return [bool(each) for each in items or ()]


def _all(table: Table) -> list[Table]:
    """The tables in a list, whose values have no names or numbers for names."""
    items = table.get(_ITEM, [])
    listed = items if isinstance(items, list) else [items]
    return [each for each in [*listed, *(value for key, value in table.items() if key)] if isinstance(each, dict)]


def _first(table: Table) -> Table:
    """The only table in a list; empty if it isn't one."""
    items = _all({_ITEM: table.get(_ITEM, [])}) or [
        value for key, value in table.items() if isinstance(value, dict) and key.startswith("i00")
    ]
    return items[0] if items else {}


class _Values:
    """Reads tables of typed values."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._left = MAX_VALUES

    def read(self, data: bytes) -> Table:
        """Read all values of a chunk."""
        return self._table(memoryview(data), None, 0)

    def _table(self, data: memoryview, count: int | None, level: int) -> Table:
        if level > MAX_LEVELS:
            raise ValueError("tables are nested too deep")
        table: Table = {}
        at = 0
        while at < len(data) and (count is None or count > 0):
            count = None if count is None else count - 1
            self._left -= 1
            if self._left < 0:
                raise InvalidImage(
                    f"{self._name}: its metadata have more than {MAX_VALUES} values; export it as OME-TIFF"
                )
            start, kind = at, data[at]
            if kind == _PACKED:
                unpacked = zlib.decompressobj().decompress(bytes(data[at + 12 :]), MAX_METADATA_BYTES)
                return self._table(memoryview(unpacked), None, level + 1)
            at += 2 + 2 * data[at + 1]
            name = bytes(data[start + 2 : at]).decode("utf-16-le", "replace").rstrip("\0")
            value, at = self._value(data, kind, start, at, level)
            if name == _ITEM:
                table.setdefault(_ITEM, []).append(value)
            else:
                table[name] = value
        return table

    def _value(self, data: memoryview, kind: int, start: int, at: int, level: int) -> tuple[Any, int]:
        """A value and the place behind it."""
        if kind in _NUMBERS:
            form = _NUMBERS[kind]
            return struct.unpack_from(form, data, at)[0], at + struct.calcsize(form)
        if kind == _STRING:
            end = at
            while bytes(data[end : end + 2]) not in (b"\0\0", b""):
                end += 2
            return bytes(data[at:end]).decode("utf-16-le", "replace"), end + 2
        if kind == _BYTES:
            (size,) = struct.unpack_from("<Q", data, at)
            return bytes(data[at + 8 : at + 8 + size]), at + 8 + size
        if kind == _TABLE:
            count, length = struct.unpack_from("<IQ", data, at)
            end = start + length
            if not at + 12 <= end <= len(data):
                raise ValueError("a table is cut off")
            return self._table(data[at + 12 : end], count, level + 1), end + 8 * count
        raise ValueError(f"a value has kind {kind}")


def _from_xml(element: ElementTree.Element) -> Table:
    """Values of a table as older files write them: each has a type and a value, or more values in it."""
    table: Table = {}
    for child in element:
        text, kind = child.get("value"), child.get("runtype", "")
        value: Any = _from_xml(child) if text is None else text
        if text is not None and ("int" in kind or kind == "bool"):
            value = int(text) if text.lstrip("-").isdecimal() else text == "true"
        elif text is not None and kind == "double":
            value = float(text)
        if child.tag == "no_name":
            table.setdefault(_ITEM, []).append(value)
        else:
            table[child.tag] = value
    return table
