"""Does a TIFF file hold all that its directories point to?

tifffile drops directories and tags that lie behind the end of a file and reads the rest: a file cut off in
transfer would lose frames, or the axes that its last bytes name, without a word.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

#: Bytes of one value, by the code of its type; values of other codes are not looked at.
VALUE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True)
class _Layout:
    """How the variants of TIFF write a directory: number of tags, tags, offset of the next directory."""

    first: int
    count: struct.Struct
    tag: struct.Struct
    offset: struct.Struct

    @classmethod
    def of(cls, head: bytes) -> _Layout:
        order = "<" if head.startswith(b"II") else ">"
        is_big = head[2:4] in (b"+\0", b"\0+")
        first, formats = (8, ("Q", "HHQQ", "Q")) if is_big else (4, ("H", "HHII", "I"))
        return cls(first, *(struct.Struct(order + letters) for letters in formats))


def is_whole(path: Path) -> bool:
    """Whether every directory of a TIFF file, and every value its tags point to, lies inside the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        layout = _Layout.of(file.read(4))
        try:
            return all(_ends(tags, layout) <= size for tags in _directories(file, layout, size))
        except (struct.error, EOFError):
            return False


def _directories(file: BinaryIO, layout: _Layout, size: int) -> Iterator[bytes]:
    seen: set[int] = set()
    offset = _read(file, layout.first, layout.offset)
    while offset and offset not in seen:
        seen.add(offset)
        length = _read(file, offset, layout.count) * layout.tag.size
        start = offset + layout.count.size
        if start + length + layout.offset.size > size:
            raise EOFError
        file.seek(start)
        yield file.read(length)
        offset = _read(file, start + length, layout.offset)


def _read(file: BinaryIO, offset: int, field: struct.Struct) -> int:
    file.seek(offset)
    value: int = field.unpack(file.read(field.size))[0]
    return value


def _ends(tags: bytes, layout: _Layout) -> int:
    """Where the farthest value of a directory ends; short values lie in the tag itself."""
    ends = [0]
    for _, kind, count, value in layout.tag.iter_unpack(tags):
        length = count * VALUE_BYTES.get(kind, 0)
        if length > layout.offset.size:
            ends.append(value + length)
    return max(ends)
