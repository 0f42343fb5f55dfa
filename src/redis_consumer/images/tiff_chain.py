"""Checks the directories and the metadata of a TIFF file before tifffile reads them.

tifffile ignores directories and tags behind the end of a file and reads the rest. A file that was cut off in transfer
would silently lose frames or axes. tifffile also reads every directory and value as often as the file names them. A
small file whose directories overlap, or share one long value, would fill the memory.
"""

from __future__ import annotations

import json
import re
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite, prod
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree

from redis_consumer.errors import InvalidImage

#: Bytes of one value, by the code of its type; values of other codes are not looked at.
VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
#: Types whose values are read as bytes or text; each value of the others becomes a Python object.
_BYTES_AND_TEXT = frozenset({1, 2, 7})
#: Directories of a file, and of one whose directories differ in layout: tifffile compares each of them with all.
MAX_DIRECTORIES = 10_000
MAX_MIXED_DIRECTORIES = 4096
#: Tags of one directory, as tifffile has it, and of all directories together.
MAX_TAGS = 4096
MAX_ALL_TAGS = 500_000
#: Numbers in all tags together: two for each tile or strip.
MAX_NUMBERS = 2_000_000
#: Bytes of the values of all tags together.
MAX_VALUE_BYTES = 128 << 20
#: Planes times entries of the metadata of MetaMorph stacks, which are read once for each other.
MAX_STACK_ENTRIES = 1_000_000

#: Types of the places of directories, as struct has them.
_OFFSETS = {4: "I", 13: "I", 16: "Q", 18: "Q"}
#: Types of a width or a height, in the same way, and their tags.
_WHOLE = {1: "B", 3: "H", **_OFFSETS}
_SIDES = (256, 257)
#: Tags that describe the layout of a directory's pixels.
_LAYOUT = frozenset({256, 257, 258, 259, 262, 266, 277, 278, 284, 317, 322, 323, 338, 339, 347, 530, 32997, 32998})
_DESCRIPTION, _SUBDIRECTORIES, _STACK_ENTRIES, _STACK_PLANES = 270, 330, 33628, 33629
#: Planes that metadata may name for each directory of the file: an acquisition that was stopped lacks the last ones.
MAX_PLANES_A_DIRECTORY = 16
#: How many times the pixels of the smallest directory the images of OME-XML may be, all together.
MAX_PLACES = 1 << 22
#: Bytes of OME-XML, and of any other description; real ones have a few hundred a plane.
MAX_XML_BYTES = 32 << 20
MAX_TEXT_BYTES = 4 << 20
#: Starts and ends of elements in OME-XML.
MAX_XML_TAGS = 500_000
#: Axes of an array, and elements along one of them.
MAX_AXES = 32
MAX_SIDE = 1 << 40
_OLD_SHAPE = re.compile(r"shape=\(?((?:\s*\d{1,13}\s*,?)*)\)?", re.ASCII)
_SHOWN = 30


@dataclass(frozen=True)
class _Layout:
    """How the variants of TIFF write a directory: number of tags, tags, offset of the next directory."""

    order: str
    first: int
    count: struct.Struct
    tag: struct.Struct
    offset: struct.Struct

    @classmethod
    def of(cls, head: bytes) -> _Layout:
        order = "<" if head.startswith(b"II") else ">"
        is_big = head[2:4] in (b"+\0", b"\0+")
        first, formats = (8, ("Q", "HHQQ", "Q")) if is_big else (4, ("H", "HHII", "I"))
        return cls(order, first, *(struct.Struct(order + letters) for letters in formats))


@dataclass
class Chain:
    """What the directories of a TIFF file hold.

    Attributes:
        directories: how many there are, those below others counted as often as they are named.
        descriptions: the different texts of the tag ImageDescription, by their place in the file.
        least_px: pixels of the smallest one in the chain itself, at least 1.
    """

    directories: int = 0
    descriptions: dict[int, bytes] = field(default_factory=dict)
    least_px: int = 0


def read_chain(path: Path, name: str) -> Chain:
    """Read the directories of a TIFF file, with those below them, and their descriptions.

    Args:
        path: the local file.
        name: the user's name for the file, for messages.

    Raises:
        InvalidImage: a directory, or a value that a tag points to, lies outside the file; or they are too many.
    """
    with path.open("rb") as file:
        walk = _Walk(file, path.stat().st_size, name)
        try:
            return walk.run()
        except (struct.error, EOFError, OverflowError) as error:
            raise cut_off(name) from error


def first_description(path: Path, name: str) -> bytes:
    """Return the description in the first directory of a TIFF file; empty if it has none, or one that is too long.

    Raises:
        InvalidImage: as `read_chain`, about this directory.
    """
    with path.open("rb") as file:
        try:
            return _Walk(file, path.stat().st_size, name).description()
        except (struct.error, EOFError, OverflowError) as error:
            raise cut_off(name) from error


def cut_off(name: str) -> InvalidImage:
    """The error for a file that ends too early."""
    return InvalidImage(f"{name}: the file is cut off, pixels are missing; export it again and upload it whole")


@dataclass(frozen=True)
class _Tag:
    """One tag: its code, type and number of values, and where these lie in the file."""

    code: int
    kind: int
    count: int
    place: int
    length: int


class _Walk:
    """Goes through the directories of a file and counts what a library would read."""

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self._file = file
        self._size = size
        self._name = name
        self._layout = _Layout.of(file.read(4))
        self._chain = Chain()
        self._tags = self._numbers = self._value_bytes = 0
        self._layouts: set[tuple[tuple[int, int, int, bytes], ...]] = set()

    def run(self) -> Chain:
        first_place = self._layout.first + self._layout.offset.size
        for tags in self._main():
            sides = (min((self._number(tag) for tag in tags if tag.code == code), default=0) for code in _SIDES)
            self._chain.least_px = min(self._chain.least_px or sys.maxsize, max(prod(sides), 1))
            for offset in self._look(tags):
                if offset >= first_place and self._look(self._directory(offset)[0]):
                    raise InvalidImage(
                        f"{self._name}: a directory below another one names further ones (tag SubIFDs); "
                        "save it as an OME-TIFF"
                    )
        chain = self._chain
        if len(self._layouts) > 1 or any(b"UUID" in text for text in chain.descriptions.values()):
            self._check("directories of different layout", chain.directories, MAX_MIXED_DIRECTORIES)
        return chain

    def description(self) -> bytes:
        """Return the text of the tag ImageDescription in the first directory."""
        tags, _ = self._directory(self._read(self._layout.first, self._layout.offset))
        found = (tag for tag in tags if tag.code == _DESCRIPTION and tag.length <= MAX_XML_BYTES)
        return next(map(self._bytes, found), b"")

    def _main(self) -> Iterator[list[_Tag]]:
        seen: set[int] = set()
        offset = self._read(self._layout.first, self._layout.offset)
        while offset and offset not in seen:
            seen.add(offset)
            tags, offset = self._directory(offset)
            yield tags

    def _directory(self, offset: int) -> tuple[list[_Tag], int]:
        """The tags of a directory, and the place of the next one."""
        layout = self._layout
        self._chain.directories += 1
        self._check("directories", self._chain.directories, MAX_DIRECTORIES)
        count = self._read(offset, layout.count)
        start, length = offset + layout.count.size, count * layout.tag.size
        if start + length + layout.offset.size > self._size:
            raise EOFError
        self._tags += count
        self._check("tags in one directory", count, MAX_TAGS)
        self._check("tags", self._tags, MAX_ALL_TAGS)
        self._file.seek(start)
        tags = list(self._parsed(self._file.read(length), start))
        return tags, self._read(start + length, layout.offset)

    def _parsed(self, data: bytes, start: int) -> Iterator[_Tag]:
        layout = self._layout
        for number, (code, kind, count, value) in enumerate(layout.tag.iter_unpack(data), 1):
            length = count * VALUE_BYTES.get(kind, 0)
            is_inside = length <= layout.offset.size  # short values lie in the tag itself, at its end
            place = start + number * layout.tag.size - layout.offset.size if is_inside else value
            if place + length > self._size:
                raise EOFError
            yield _Tag(code, kind, count, place, length)

    def _look(self, tags: list[_Tag]) -> tuple[int, ...]:
        """Count what the tags of a directory hold; give the places of the directories below it."""
        below: tuple[int, ...] = ()
        for tag in tags:
            self._count(tag)
            if tag.code == _DESCRIPTION and tag.length and tag.place not in self._chain.descriptions:
                self._chain.descriptions[tag.place] = self._bytes(tag)
            elif tag.code == _SUBDIRECTORIES and tag.kind in _OFFSETS:
                below += struct.unpack(f"{self._layout.order}{tag.count}{_OFFSETS[tag.kind]}", self._bytes(tag))
        self._layouts.add(
            tuple((tag.code, tag.kind, tag.count, self._bytes(tag)) for tag in tags if tag.code in _LAYOUT)
        )
        entries, planes = (
            max((tag.count for tag in tags if tag.code == code), default=0) for code in (_STACK_ENTRIES, _STACK_PLANES)
        )
        self._check("entries in a MetaMorph stack", entries * max(planes, 1), MAX_STACK_ENTRIES)
        return below

    def _count(self, tag: _Tag) -> None:
        self._value_bytes += tag.length
        self._check("bytes in tags", self._value_bytes, MAX_VALUE_BYTES)
        if tag.kind not in _BYTES_AND_TEXT:
            self._numbers += tag.count
            self._check("numbers in tags", self._numbers, MAX_NUMBERS)

    def _number(self, tag: _Tag) -> int:
        kind = _WHOLE.get(tag.kind)
        number: int = struct.unpack_from(self._layout.order + kind, self._bytes(tag))[0] if kind and tag.count else 0
        return number

    def _bytes(self, tag: _Tag) -> bytes:
        self._file.seek(tag.place)
        return self._file.read(tag.length)

    def _check(self, what: str, count: int, limit: int) -> None:
        if count > limit:
            raise InvalidImage(
                f"{self._name}: has {count} {what}, allowed are {limit}; save it again as an ordinary TIFF, "
                "or split it into several files"
            )

    def _read(self, offset: int, number: struct.Struct) -> int:
        self._file.seek(offset)
        value: int = number.unpack(self._file.read(number.size))[0]
        return value


def check_metadata(chain: Chain, name: str) -> None:
    """Check the descriptions of a TIFF file: OME-XML, JSON by tifffile, text by ImageJ and others.

    Args:
        chain: the directories of the file, with their descriptions.
        name: the user's name for the file, for messages.

    Raises:
        InvalidImage: one of them names more planes than the file can hold, is too long, or is malformed.
    """
    for data in chain.descriptions.values():
        text = data.decode("utf-8", "replace").strip("\0 \t\r\n")
        is_xml = text.startswith("<") or text.endswith("OME>")
        _check_limit("ImageDescription", "bytes", len(data), MAX_XML_BYTES if is_xml else MAX_TEXT_BYTES, name)
        if is_xml:
            _check_xml(text, name)
        if text.endswith("OME>"):
            _Ome(chain, name).check(text)
        elif text.startswith("{") and '"shape":' in text:
            _check_shape(_json_shape(text, name), name)
        elif text.startswith("shape="):
            _check_shape(_text_shape(text, name), name)


def _check_limit(field: str, what: str, count: int, limit: int, name: str) -> None:
    if count > limit:
        raise InvalidImage(f"{name}: its {field} has {count} {what}, allowed are {limit}; export it with less metadata")


def _check_xml(text: str, name: str) -> None:
    # An entity may stand for any number of others.
    for word in ("<!DOCTYPE", "<!ENTITY"):
        if word in text:
            raise InvalidImage(f"{name}: its ImageDescription holds {word}, which no OME-XML has; export it again")
    _check_limit("ImageDescription", "XML tags", text.count("<"), MAX_XML_TAGS, name)


def _json_shape(text: str, name: str) -> object:
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidImage(f"{name}: its ImageDescription is malformed JSON; export the image again") from error
    return table.get("shape") if isinstance(table, dict) else None


def _text_shape(text: str, name: str) -> object:
    found = _OLD_SHAPE.fullmatch(text[:MAX_TEXT_BYTES]) if len(text) <= MAX_AXES * 16 else None
    if found is None:
        raise InvalidImage(f"{name}: its ImageDescription {text[:_SHOWN]!r} is no shape; export the image again")
    return [int(part) for part in found[1].split(",") if part.strip()]


def _check_shape(shape: object, name: str) -> None:
    if not isinstance(shape, list) or not all(isinstance(side, int) for side in shape):
        raise InvalidImage(f"{name}: the shape in its ImageDescription is no list of whole numbers; export it again")
    _check_limit("ImageDescription", "axes in its shape", len(shape), MAX_AXES, name)
    for side in shape:
        if not 0 <= side <= MAX_SIDE:
            raise InvalidImage(
                f"{name}: the shape in its ImageDescription names a side of {str(side)[:_SHOWN]}, "
                f"allowed are 0 to {MAX_SIDE}; export it again"
            )


class _Ome:
    """Checks OME-XML against the number of directories of its file."""

    def __init__(self, chain: Chain, name: str) -> None:
        self._directories = chain.directories
        self._least_px = max(chain.least_px, 1)
        self._most = MAX_PLANES_A_DIRECTORY * chain.directories
        self._name = name
        self._planes = self._places = 0

    def check(self, text: str) -> None:
        try:
            root = ElementTree.fromstring(text)  # noqa: S314 - it has no entities, and no more elements than allowed
        except ElementTree.ParseError:
            return  # tifffile takes it for a plain TIFF
        for element in root:
            if str(element.tag).endswith("Image"):
                for pixels in element:
                    if str(pixels.tag).endswith("Pixels"):
                        self._check_pixels(pixels)
            elif str(element.tag).endswith("StructuredAnnotations"):
                for along in element.iter():
                    if str(along.tag)[:-1].endswith("Along"):
                        self._check_steps(along)

    def _check_pixels(self, pixels: ElementTree.Element) -> None:
        order = pixels.get("DimensionOrder", "")
        if not order.startswith("XY") or sorted(order) != list("CTXYZ"):
            raise self._wrong(f"DimensionOrder is {order[:_SHOWN]!r}", "allowed are XY and an order of C, T and Z")
        width, height = (self._number(pixels, f"Size{axis}", 0, MAX_SIDE) for axis in "XY")
        sizes = {f"Size{axis}": self._number(pixels, f"Size{axis}", 0, MAX_SIDE) for axis in "ZCT"}
        samples = self._samples(pixels)
        largest = max(sizes, key=lambda field: sizes[field])
        planes = sizes["SizeZ"] * sizes["SizeC"] * sizes["SizeT"] // samples
        self._add(planes, f"{largest} {sizes[largest]} makes {planes} planes")
        # tifffile makes a list of as many directories of the smallest size as would hold the image.
        self._places += prod((width, height, *sizes.values())) // self._least_px
        if self._places > MAX_PLACES:
            raise self._wrong(
                f"SizeX {width} and SizeY {height} make it {self._places} times as large as a directory of the file, "
                f"which has {self._least_px} pixels",
                f"allowed are {MAX_PLACES} times",
            )
        for data in pixels:
            if str(data.tag).endswith("TiffData"):
                self._check_data(data)

    def _samples(self, pixels: ElementTree.Element) -> int:
        channels = (child for child in pixels if str(child.tag).endswith("Channel"))
        first = next(channels, None)
        return 1 if first is None else self._number(first, "SamplesPerPixel", 1, 1 << 16, default=1)

    def _check_data(self, data: ElementTree.Element) -> None:
        for name in ("IFD", "FirstZ", "FirstC", "FirstT"):
            self._number(data, name, 0, MAX_SIDE, default=0)
        count = self._number(data, "NumPlanes", 0, MAX_SIDE, default=1 if "IFD" in data.attrib else 0)
        count = self._number(data, "PlaneCount", 0, MAX_SIDE, default=count)
        # Without a number it stands for all directories.
        self._add(count or self._directories, f"PlaneCount {count} of an element TiffData is too much")

    def _add(self, planes: int, fault: str) -> None:
        self._planes += planes
        # The planes of the image once, and those of its parts.
        if planes > self._most or self._planes > 2 * self._most + self._directories:
            raise self._wrong(
                f"{fault}, but the file has {self._directories} directories", f"allowed are {self._most} planes"
            )

    def _check_steps(self, along: ElementTree.Element) -> None:
        """An axis that is divided, e.g. by angles: tifffile lists the steps."""
        if "Start" not in along.attrib:
            return
        try:
            start, end, step = (float(along.get(field, "1")) for field in ("Start", "End", "Step"))
            steps = (end - start) / step
        except (ValueError, ZeroDivisionError):
            steps = float("inf")
        if not isfinite(steps) or steps > self._most:
            tag = str(along.tag).rpartition("}")[2]
            raise self._wrong(
                f"{tag} goes from {along.get('Start', '')[:_SHOWN]!r} to {along.get('End', '')[:_SHOWN]!r} "
                f"by {along.get('Step', '1')[:_SHOWN]!r}",
                f"allowed are {self._most} steps",
            )

    def _number(
        self, element: ElementTree.Element, field: str, least: int, most: int, *, default: int | None = None
    ) -> int:
        text = element.get(field)
        if text is None and default is not None:
            return default
        given = (text or "").strip()
        if not re.fullmatch(r"[0-9]{1,18}", given) or not least <= int(given) <= most:
            raise self._wrong(f"{field} is {given[:_SHOWN]!r}", f"allowed are whole numbers from {least} to {most}")
        return int(given)

    def _wrong(self, fault: str, allowed: str) -> InvalidImage:
        return InvalidImage(f"{self._name}: its OME-XML is wrong, {fault}, {allowed}; export it again")
