"""Joins many pieces into one large message, with one copy of each."""

from __future__ import annotations

import ctypes
import functools
import io
import mmap
from collections.abc import Callable, Iterable

import numpy as np

from redis_consumer.serving.base import Array

Piece = bytes | memoryview | Array

# From this size on huge pages are faster; numpy asks for them from the same size on.
_HUGE_BYTES = 4 * 2**20
_MADV_HUGEPAGE = 14


def size_of(pieces: Iterable[Piece]) -> int:
    """Count the bytes of all pieces."""
    return sum(piece.nbytes if isinstance(piece, np.ndarray) else len(piece) for piece in pieces)


def joined(pieces: Iterable[Piece]) -> bytes:
    """Join pieces.

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
    """The system's ``madvise``, None where it has none."""
    advise = getattr(ctypes.CDLL(None), "madvise", None)
    if advise is not None:
        advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return advise
