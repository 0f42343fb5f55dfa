"""Splits a protobuf message into whole fields, if it has few.

Large fields are then read separately, and protobuf parses the rest.
"""

from __future__ import annotations

from collections.abc import Iterator

from redis_consumer.serving.transport.fields import read_varint

# Beyond it, protobuf's own parser is faster than a walk in Python.
MAX_FIELDS = 1000

_LENGTH_DELIMITED = 2
_FIXED_BYTES = {1: 8, 5: 4}


def walk(message: memoryview) -> Iterator[tuple[int, memoryview | None, memoryview]]:
    """Go through the fields of a message without copying them.

    Yields:
        The field's number; its content, None where it is a number; the whole field with its tag.

    Raises:
        ValueError: the bytes are no message, or one of more than `MAX_FIELDS` fields.
    """
    at = 0
    for _ in range(MAX_FIELDS):
        if at == len(message):
            return
        start = at
        tag, at = read_varint(message, at, len(message))
        kind = tag & 7
        if kind == _LENGTH_DELIMITED:
            size, at = read_varint(message, at, len(message))
        elif kind == 0:
            size, at = 0, read_varint(message, at, len(message))[1]
        elif kind in _FIXED_BYTES:
            size = _FIXED_BYTES[kind]
        else:
            raise ValueError(f"wire type {kind} isn't known")
        at += size
        if at > len(message):
            raise ValueError(f"field {tag >> 3} is cut off")
        yield tag >> 3, message[at - size : at] if kind == _LENGTH_DELIMITED else None, message[start:at]
    if at != len(message):
        raise ValueError(f"it has more than {MAX_FIELDS} fields")
