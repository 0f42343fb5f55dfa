"""What does an NPY file hold?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from redis_consumer.errors import InvalidImage
from redis_consumer.images.image import Source

#: NPY has no axes of its own: channels are last, images of a batch first.
AXES = {2: "YX", 3: "YXC", 4: "BYXC"}


@contextmanager
def open_npy(path: Path, name: str) -> Iterator[Source]:
    """Read the header of an NPY file; pixels are copied from a memory map, pickles are never loaded.

    Raises:
        InvalidImage: the rank is none of 2, 3, 4.
        Exception: whatever numpy raises for a damaged file.
    """
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
