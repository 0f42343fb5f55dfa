"""Cuts an image into blocks that are processed one after the other. Each block overlaps its neighbours."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Block:
    """One block. Slices are rows and columns.

    Attributes:
        index: number of the block in the grid, row by row from 0.
        core: the pixels of the image whose result comes from this block.
        window: the pixels that are processed for it: the core and the overlap around it, inside the image.
    """

    index: int
    core: Window
    window: Window

    @property
    def inner(self) -> Window:
        """The core within the window."""
        rows, columns = (
            slice(core.start - window.start, core.stop - window.start)
            for core, window in zip(self.core, self.window, strict=True)
        )
        return rows, columns

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Rows and columns of the window."""
        rows, columns = (side.stop - side.start for side in self.window)
        return rows, columns


@dataclass(frozen=True)
class BlockGrid:
    """Blocks whose cores cover each pixel of an image once.

    Attributes:
        shape_yx: sides of the image in pixels.
        overlap_px: width of the overlap on each side of a core.
        row_edges: first rows of the cores, and the end of the last one.
        column_edges: first columns of the cores, and the end of the last one.
    """

    shape_yx: tuple[int, int]
    overlap_px: int
    row_edges: tuple[int, ...]
    column_edges: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Number of blocks in a row."""
        return len(self.column_edges) - 1

    def block_at(self, y: int, x: int) -> int:
        """Return the index of the block whose core contains a pixel."""
        row, column = (bisect_right(edges, at) - 1 for edges, at in ((self.row_edges, y), (self.column_edges, x)))
        return row * self.columns + column

    def __len__(self) -> int:
        return (len(self.row_edges) - 1) * self.columns

    def __iter__(self) -> Iterator[Block]:
        spans = [(rows, columns) for rows in pairwise(self.row_edges) for columns in pairwise(self.column_edges)]
        for index, (rows, columns) in enumerate(spans):
            yield Block(
                index,
                (slice(*rows), slice(*columns)),
                (self._seen(rows, self.shape_yx[0]), self._seen(columns, self.shape_yx[1])),
            )

    def _seen(self, span: tuple[int, int], side: int) -> slice:
        return slice(max(span[0] - self.overlap_px, 0), min(span[1] + self.overlap_px, side))


def plan_blocks(shape_yx: tuple[int, int], block_px: int, overlap_px: int, multiple_px: int = 1) -> BlockGrid:
    """Cut an image into blocks of nearly equal size.

    Args:
        shape_yx: rows and columns of the image, 1 or more.
        block_px: largest side of a core, `multiple_px` or more.
        overlap_px: width of the overlap on each side of a core, 0 or more. If it is at least the diameter of a region
            that crosses a border, both blocks contain the whole region.
        multiple_px: cores begin at multiples of this number.

    Raises:
        ValueError: a number is out of range.

    >>> plan_blocks((100, 1000), 512, 64, 256).column_edges
    (0, 512, 1000)
    >>> plan_blocks((100, 1030), 512, 64, 256).column_edges
    (0, 256, 768, 1030)
    """
    if min(shape_yx) < 1 or overlap_px < 0 or not 1 <= multiple_px <= block_px:
        raise ValueError(
            f"an image of {shape_yx} px can't be cut into blocks of {block_px} px that overlap by {overlap_px} px and "
            f"begin at multiples of {multiple_px}"
        )
    rows, columns = (_edges(side, block_px // multiple_px, multiple_px) for side in shape_yx)
    return BlockGrid(shape_yx, overlap_px, rows, columns)


def _edges(side: int, units_per_block: int, unit_px: int) -> tuple[int, ...]:
    units = math.ceil(side / unit_px)
    count = math.ceil(units / units_per_block)
    # Blocks are spread evenly, so that no block at the edge is very narrow.
    return (*(index * units // count * unit_px for index in range(count)), side)
