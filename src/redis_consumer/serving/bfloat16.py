"""Converts float32 numbers to bfloat16, which numpy lacks, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint16]


def to_bfloat16(values: npt.NDArray[Any]) -> Bits:
    """Return the bits of each number as bfloat16, rounded to the nearest, ties to even; NaN stays NaN.

    >>> to_bfloat16(np.array([1.0, -2.0], np.float32)).tolist()
    [16256, 49152]
    """
    floats = np.ascontiguousarray(values, dtype=np.float32).reshape(np.shape(values))
    bits = floats.view(np.uint32)
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(floats), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def from_bfloat16(bits: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return the float32 numbers that bits of bfloat16 stand for, exactly.

    >>> from_bfloat16(np.array([16256, 49152], np.uint16)).tolist()
    [1.0, -2.0]
    """
    return (bits.astype(np.uint32) << 16).view(np.float32)
