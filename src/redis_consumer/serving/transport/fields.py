"""Finds the fields of a protobuf message without parsing their content.

So large values are read in place, and messages without a definition can be searched.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator

Buffer = bytes | mmap.mmap

# No reader of protobuf takes a longer message.
MAX_MESSAGE_BYTES = 2**31 - 1

_MAX_VARINT_BITS = 70


def fields(content: Buffer, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Find each length-delimited field of a message: texts, bytes, messages, packed numbers; step over all others.

    Args:
        content: holds the message.
        start: where it begins.
        end: where it ends, by default with the content.

    Yields:
        The field's number, and where its value begins and ends.

    Raises:
        ValueError: the bytes aren't made of fields.
    """
    position, end = start, len(content) if end is None else end
    while position < end:
        tag, position = read_varint(content, position, end)
        kind = tag & 7
        if kind == 0:
            _, position = read_varint(content, position, end)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        elif kind == 2:
            size, position = read_varint(content, position, end)
            if position + size <= end:
                yield tag >> 3, position, position + size
            position += size
        else:
            raise ValueError(f"byte {position} starts no field")
    if position != end:
        raise ValueError("it is cut off")


def field_head(number: int, size: int) -> bytes:
    """Write what stands in front of a value of `size` bytes: its field's number and its length.

    >>> field_head(7, 300)
    b':\\xac\\x02'
    """
    return _as_varint(number << 3 | 2) + _as_varint(size)


def read_varint(content: Buffer | memoryview, position: int, end: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, lowest first; give it and where the next thing starts.

    Raises:
        ValueError: it is cut off or too long.
    """
    value = 0
    for shift in range(0, _MAX_VARINT_BITS, 7):
        if position >= end:
            raise ValueError("it is cut off")
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"byte {position} ends no number")


def _as_varint(value: int) -> bytes:
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
