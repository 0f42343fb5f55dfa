"""Reads images of Leica LIF files, whose XML says where each pixel lies in a block of memory."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np

from redis_consumer.errors import InvalidImage
from redis_consumer.images.channels import channel_named
from redis_consumer.images.fields import choose
from redis_consumer.images.image import Array
from redis_consumer.images.planes import Planes, Window
from redis_consumer.images.vendors.stacks import stacked
from redis_consumer.images.vendors.xml_tree import MAX_XML, parse_xml

#: Blocks of memory of a file.
MAX_BLOCKS = 100_000
MAX_AXES = 16
_MAX_NAME_CHARS = 1 << 12
#: Marks of parts of the file.
_PART, _MARK = 0x70, 0x2A
_LETTERS = {1: "X", 2: "Y", 3: "Z", 4: "T", 5: "L", 6: "R", 7: "N", 8: "D", 9: "P", 10: "M"}
#: Tags of the channels red, green and blue of a colour image.
_COLOUR = ["1", "2", "3"]


@dataclass(frozen=True)
class _Axis:
    """One axis: its letter, and the bytes from one element to the next."""

    letter: str
    side: int
    step: int


@contextmanager
def open_lif(path: Path, name: str, field: str = "") -> Iterator[Planes]:
    """Open an image of a LIF.

    Raises:
        SeveralImages: it has several images and none is named.
        InvalidImage: its image is of a kind that isn't read.
        Exception: if the file is damaged.
    """
    with path.open("rb") as file:
        root, is_long = _read_xml(file, name)
        images = _images(root)
        fields = list(images)
        element = images[fields[choose(fields, field, name)]]
        blocks = _blocks(file, path.stat().st_size, is_long=is_long)
    description = element.find("Data/Image/ImageDescription")
    memory = element.find("Memory")
    if description is None or memory is None:
        raise ValueError("an image has no description")
    place, size = blocks[memory.get("MemoryBlockID", "")]
    yield _planes(path, (place, size), description, name)


def _check_letters(letters: list[str], name: str) -> None:
    if letters.count("X") != 1 or letters.count("Y") != 1 or len(set(letters)) < len(letters):
        raise InvalidImage(
            f"{name}: a Leica image with axes {''.join(letters)} is no stack of planes of x and y; "
            "export those as OME-TIFF"
        )


def _planes(path: Path, block: tuple[int, int], description: ElementTree.Element, name: str) -> Planes:
    channels = description.findall("Channels/ChannelDescription")
    dimensions = description.findall("Dimensions/DimensionDescription")
    if not 0 < len(dimensions) <= MAX_AXES:
        raise ValueError("an image has no axes")
    dtype = _dtype(channels, name)
    axes = [_Axis(_LETTERS.get(int(each.get("DimID", 0)), "Q"), *_numbers(each)) for each in dimensions]
    _check_letters([axis.letter for axis in axes], name)
    axes += _channel_axis(channels, name)
    by_letter = {axis.letter: axis for axis in axes}
    others = sorted((axis for axis in axes if axis.letter not in "YXS"), key=lambda axis: -axis.step)
    ordered = [*others, by_letter["Y"], by_letter["X"], *([by_letter["S"]] if "S" in by_letter else [])]
    inner = ordered[len(others) :]
    place, size = block
    if sum((axis.side - 1) * axis.step for axis in ordered) + dtype.itemsize > size:
        raise ValueError("an image is larger than its block of memory")

    def read(index: tuple[int, ...], window: Window) -> Array:
        start = place + sum(number * axis.step for number, axis in zip(index, others, strict=True))
        # A map of the file checks the sides and steps against its size.
        data = np.memmap(path, np.uint8, "r")
        plane: Array = np.ndarray([axis.side for axis in inner], dtype, data, start, [axis.step for axis in inner])
        return np.ascontiguousarray(plane[window], dtype.newbyteorder("="))

    sides = {axis.letter: axis.side for axis in ordered}
    return stacked(
        sides,
        dtype.newbyteorder("="),
        read,
        pixel_size_um=_pixel_size_um(dimensions),
        stored_bytes=size,
        channels=[channel_named(_name_of(each)) for each in channels],
    )


def _name_of(channel: ElementTree.Element) -> str:
    """The dye of a channel, or the name of its look-up table, such as Green."""
    for item in channel.iterfind("ChannelProperty"):
        if item.findtext("Key") == "DyeName" and (dye := item.findtext("Value", "").strip()):
            return dye
    return channel.get("NameTag", "").strip() or channel.get("LUTName", "")


def _channel_axis(channels: list[ElementTree.Element], name: str) -> list[_Axis]:
    """The axis of channels or colours, none for one channel."""
    if len(channels) < 2:
        return []
    steps = [int(each.get("BytesInc", 0)) for each in channels]
    if len(set(np.diff(steps))) > 1:
        raise InvalidImage(f"{name}: a Leica image of uneven channels can't be read; export it as OME-TIFF")
    is_colour = [each.get("ChannelTag") for each in channels] == _COLOUR
    return [_Axis("S" if is_colour else "C", len(channels), steps[1] - steps[0])]


def _numbers(dimension: ElementTree.Element) -> tuple[int, int]:
    side, step = int(dimension.get("NumberOfElements", 0)), int(dimension.get("BytesInc", 0))
    if side < 0 or step < 0:
        raise ValueError("an axis has a negative side")
    return side, step


def _dtype(channels: list[ElementTree.Element], name: str) -> np.dtype[Any]:
    kinds = {(each.get("DataType", "0"), int(each.get("Resolution", 0))) for each in channels}
    is_float, bits = kinds.pop() if len(kinds) == 1 else ("", 0)
    size = next((size for size in (8, 16, 32) if 0 < bits <= size), 0)
    if not size or is_float not in ("0", "1") or (is_float == "1" and bits != 32):
        raise InvalidImage(
            f"{name}: a Leica image whose channels have no common kind of 8, 16 or 32 bits can't be read; "
            "export it as OME-TIFF"
        )
    return np.dtype(f"<{'f' if is_float == '1' else 'u'}{size // 8}")


def _pixel_size_um(dimensions: list[ElementTree.Element]) -> float | None:
    """The side of a pixel: `Length` goes from the centre of the first to that of the last one."""
    sizes = []
    for each in dimensions:
        if each.get("DimID") in ("1", "2") and each.get("Unit") == "m":
            try:
                sizes.append(1e6 * float(each.get("Length", "nan")) / (int(each.get("NumberOfElements", 0)) - 1))
            except (ValueError, ZeroDivisionError):
                return None
    is_square = len(sizes) == 2 and 0 < sizes[0] < float("inf") and abs(sizes[0] - sizes[1]) <= 0.01 * sizes[0]
    return sizes[0] if is_square else None


def _read_xml(file: BinaryIO, name: str) -> tuple[ElementTree.Element, bool]:
    """The XML of a file, and whether sizes of blocks have eight bytes."""
    part, _, mark, characters = struct.unpack("<iiBi", file.read(13))
    if part != _PART or mark != _MARK or characters < 0:
        raise ValueError("the file has no XML")
    if characters > MAX_XML:
        raise InvalidImage(f"{name}: its XML has {characters} characters, allowed are {MAX_XML}; export it as OME-TIFF")
    data = file.read(2 * characters)
    if len(data) < 2 * characters:
        raise EOFError("the XML is cut off")
    text = data.decode("utf-16-le")
    if "<LMSDataContainerHeader" not in text[:1000]:
        raise InvalidImage(f"{name}: is a Leica LOF or XLEF, of which only LIF is read; export it as LIF or OME-TIFF")
    root = parse_xml(text, name)
    return root, int(root.get("Version", "1")) > 1


def _images(root: ElementTree.Element) -> dict[str, ElementTree.Element]:
    """The elements that are images, by their names."""
    found: dict[str, ElementTree.Element] = {}

    def look(element: ElementTree.Element, above: str) -> None:
        name = "/".join(part for part in (above, element.get("Name", "")) if part)
        if element.find("Data/Image") is not None:
            key = name if name not in found else f"{name} ({len(found)})"
            found[key] = element
        for child in element.findall("Children/Element"):
            look(child, name)

    top = root.find("Element")
    if top is not None:
        # The first element is the file itself.
        look(top, "")
    prefix = f"{top.get('Name', '')}/" if top is not None else ""
    return {name.removeprefix(prefix): element for name, element in found.items()}


def _blocks(file: BinaryIO, end: int, *, is_long: bool) -> dict[str, tuple[int, int]]:
    """Place and size of each block of memory, by its name."""
    blocks: dict[str, tuple[int, int]] = {}
    head = struct.Struct("<iiBqBi" if is_long else "<iiBiBi")
    while file.tell() < end and len(blocks) < MAX_BLOCKS:
        part, _, mark, size, second, characters = head.unpack(file.read(head.size))
        if part != _PART or mark != _MARK or second != _MARK or not 0 <= characters <= _MAX_NAME_CHARS or size < 0:
            raise ValueError("a block of memory is malformed")
        label = file.read(2 * characters).decode("utf-16-le")
        place = file.tell()
        if place + size > end:
            raise EOFError("a block of memory is cut off")
        blocks[label] = place, size
        file.seek(place + size)
    return blocks
