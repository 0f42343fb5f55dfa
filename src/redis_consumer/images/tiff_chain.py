"""Checks the directories of a TIFF file before tifffile reads them.

tifffile ignores directories and tags behind the end of a file and reads the rest. A file that was cut off in transfer
would silently lose frames or axes. tifffile also reads every directory and value as often as the file names them. A
small file whose directories overlap, or share one long value, would fill the memory.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import BinaryIO

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
