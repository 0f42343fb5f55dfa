"""Writes images of any size with a known number of discs, without holding them in memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

#: The pattern repeats after this many pixels: no multiple of a tile or block, so discs lie at all offsets to borders.
PERIOD_PX = 500
RADII_PX = (5, 20)
TILE_PX = 512
SEED = 11

Plane = npt.NDArray[np.float32]


def pattern() -> tuple[Plane, int]:
    """One period, 1 within discs that touch neither each other nor the edge, and their number."""
    dice = np.random.default_rng(SEED)
    rows, columns = np.indices((PERIOD_PX, PERIOD_PX))
    plane, count = np.zeros((PERIOD_PX, PERIOD_PX), np.float32), 0
    for _ in range(1000):
        radius = dice.uniform(*RADII_PX)
        y, x = dice.uniform(radius + 2, PERIOD_PX - radius - 2, 2)
        distance = np.hypot(rows - y, columns - x)
        if not plane[distance < radius + 2].any():
            plane[distance < radius] = 1
            count += 1
    return plane, count


def write_strips(path: Path, side_px: int) -> int:
    """Write a square float32 TIFF, uncompressed in one piece as most programs do; return the number of whole discs."""
    from tifffile import memmap

    period, count = pattern()
    across = period[:, np.arange(side_px) % PERIOD_PX]
    image: Any = memmap(path, shape=(side_px, side_px), dtype=np.float32, photometric="minisblack")
    for top in range(0, side_px, PERIOD_PX):
        image[top : top + PERIOD_PX] = across[: side_px - top]
    image.flush()
    return count * (side_px // PERIOD_PX) ** 2


def write_tiles(path: Path, side_px: int) -> int:
    """Write a square float32 BigTIFF in compressed tiles; return the number of its discs.

    Args:
        path: of the file.
        side_px: a multiple of `PERIOD_PX`.
    """
    from tifffile import imwrite

    period, count = pattern()
    imwrite(
        path,
        _tiles(period, side_px),
        shape=(side_px, side_px),
        dtype=np.float32,
        tile=(TILE_PX, TILE_PX),
        compression="zlib",
        compressionargs={"level": 1},
        photometric="minisblack",
        bigtiff=True,
        maxworkers=1,
    )
    return count * (side_px // PERIOD_PX) ** 2


def _tiles(period: Plane, side_px: int) -> Iterator[Plane]:
    for top, left in product(range(0, side_px, TILE_PX), repeat=2):
        rows, columns = (np.arange(start, start + TILE_PX) % PERIOD_PX for start in (top, left))
        yield period[np.ix_(rows, columns)]
