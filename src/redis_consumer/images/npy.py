"""Reads NPY files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from redis_consumer.errors import InvalidImage
from redis_consumer.images.image import Source

#: NPY has no axes of its own: channels are last, images of a batch first.
AXES = {2: "YX", 3: "YXC", 4: "BYXC"}

#: Bytes of a header; numpy's own limit is lower still.
MAX_HEADER_BYTES = 1 << 16
_LENGTH_END = 12


@contextmanager
def open_npy(path: Path, name: str) -> Iterator[Source]:
    """Read the header of an NPY file; pixels are copied from a memory map, pickles are never loaded.

    Raises:
        InvalidImage: the rank isn't 2, 3 or 4.
        Exception: whatever numpy raises for a damaged file.
    """
    with path.open("rb") as file:
        head = file.read(_LENGTH_END)
    # The first version has two bytes for the length, the others four; numpy reads as much before it looks at it.
    length = int.from_bytes(head[8:_LENGTH_END] if head[6:7] > b"\1" else head[8:10], "little")
    if length > MAX_HEADER_BYTES:
        raise InvalidImage(
            f"{name}: its header has {length} bytes, allowed are {MAX_HEADER_BYTES}; save the array again by numpy.save"
        )
    # A map refuses a file that is shorter than its header says, before memory is taken.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim not in AXES:
        raise InvalidImage(
            f"{name}: array of rank {array.ndim}; save it as (y, x), (y, x, channel) or (batch, y, x, channel)"
        )
    yield Source(
        shape=array.shape,
        axes=AXES[array.ndim],
        dtype=array.dtype,
        decode=lambda: np.array(array, dtype=array.dtype.newbyteorder("=")),
    )
