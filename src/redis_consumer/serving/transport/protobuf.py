"""Reads and writes protobuf messages without parsing or copying their large values."""

from __future__ import annotations

import ctypes
import functools
import io
import mmap
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from redis_consumer.serving.base import Array

Buffer = bytes | memoryview | mmap.mmap
Piece = bytes | memoryview | Array

# No reader of protobuf takes a longer message.
MAX_MESSAGE_BYTES = 2**31 - 1

# Beyond it, protobuf's own parser is faster than a walk in Python.
MAX_FIELDS = 1000

_MAX_VARINT_BITS = 70
_NUMBER, _LENGTH_DELIMITED = 0, 2
_FIXED_BYTES = {1: 8, 5: 4}

# From this size on huge pages are faster; numpy asks for them from the same size on.
_HUGE_BYTES = 4 * 2**20
_MADV_HUGEPAGE = 14


def fields(
    content: Buffer, start: int = 0, end: int | None = None, *, limit: int | None = None
) -> Iterator[tuple[int, int, int | None, int]]:
    """Find the fields of a message, whether or not there is a definition of it.

    Args:
        content: holds the message.
        start: where it begins.
        end: where it ends, by default with the content.
        limit: how many fields it may have at most, None for any number.

    Yields:
        The field's number; where it begins; where its value begins if it is length-delimited (texts, bytes, messages,
        packed numbers), None for a single number; where it ends.

    Raises:
        ValueError: the bytes aren't made of fields, or of more than `limit`.
    """
    at, end = start, len(content) if end is None else end
    count = 0
    while at < end:
        begin, count = at, count + 1
        if limit is not None and count > limit:
            raise ValueError(f"it has more than {limit} fields")
        tag, at = _read_varint(content, at, end)
        number, kind = tag >> 3, tag & 7
        value = None
        if kind == _NUMBER:
            _, at = _read_varint(content, at, end)
        elif kind in _FIXED_BYTES:
            at += _FIXED_BYTES[kind]
        elif kind == _LENGTH_DELIMITED:
            size, value = _read_varint(content, at, end)
            at = value + size
        else:
            raise ValueError(f"byte {at} starts no field")
        if at > end:
            raise ValueError(f"field {number} is cut off")
        yield number, begin, value, at


def field_values(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and value of each length-delimited field of a message of at most `MAX_FIELDS` fields, without a
    copy.

    Raises:
        ValueError: as `fields`.
    """
    for number, _, value, end in fields(message, limit=MAX_FIELDS):
        if value is not None:
            yield number, message[value:end]


def field_head(number: int, size: int) -> bytes:
    """Write what stands in front of a value of `size` bytes: its field's number and its length.

    >>> field_head(7, 300)
    b':\\xac\\x02'
    """
    return _as_varint(number << 3 | _LENGTH_DELIMITED) + _as_varint(size)


def size_of(pieces: Iterable[Piece]) -> int:
    """Count the bytes of all pieces."""
    return sum(piece.nbytes if isinstance(piece, np.ndarray) else len(piece) for piece in pieces)


def joined(pieces: Iterable[Piece]) -> bytes:
    """Join pieces into one message, with one copy of each.

    Bytes, because gRPC takes nothing else. `bytes.join` of 32 MiB would spend nine tenths of its time on page faults,
    4 KiB at a time, and want strided arrays copied before.

    Args:
        pieces: bytes, and arrays of any memory layout, which are written in row-major order.
    """
    parts = list(pieces)
    # CPython writes into the buffer of its only reference and returns it as bytes, both without a copy.
    buffer = io.BytesIO(bytes(size_of(parts)))
    with buffer.getbuffer() as view:
        _want_huge_pages(view)
        at = 0
        for part in parts:
            if isinstance(part, np.ndarray):
                np.ndarray(part.shape, part.dtype, view, at)[...] = part
            else:
                view[at : at + len(part)] = part
            at += size_of([part])
    return buffer.getvalue()


def _read_varint(content: Buffer, at: int, end: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, lowest first; give it and where the next thing starts."""
    value = 0
    for shift in range(0, _MAX_VARINT_BITS, 7):
        if at >= end:
            raise ValueError("it is cut off")
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"byte {at} ends no number")


def _as_varint(value: int) -> bytes:
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _want_huge_pages(view: memoryview) -> None:
    """Ask for pages of 2 MiB where nothing is written yet; a refusal has no effect."""
    advise = _adviser()
    if advise is None or len(view) < _HUGE_BYTES:
        return
    address = np.frombuffer(view, np.uint8).ctypes.data
    unaligned = -address % mmap.PAGESIZE
    advise(address + unaligned, len(view) - unaligned, _MADV_HUGEPAGE)


@functools.cache
def _adviser() -> Callable[[int, int, int], int] | None:
    """The system's ``madvise``, None if it has none."""
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    if advise is not None:
        advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return advise
