"""Cuts an image into blocks that are processed one after the other, joins the labels of neighbours and numbers them.

Each block is labelled independently. Its window includes `overlap_px` pixels beyond its core. Where the windows of two
blocks overlap, both blocks have labels for the same pixels. Two labels become one region if each is the best match of
the other and they share at least half of the smaller one. Two labels of the same block are never joined.

A pixel gets the label of the block whose core contains it. Memory grows with the number of regions that cross borders
and with the overlap of one row of blocks, not with the image.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

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


Array = npt.NDArray[Any]
Labels = npt.NDArray[np.uint32]
Node = tuple[int, int]
"""Index of a block, and a label in that block."""

#: Two labels are joined if they share at least this part of the smaller one.
MIN_SHARE = 0.5


@dataclass(frozen=True)
class _Piece:
    """The part of a block's labels that overlaps later neighbours, and its place in the image."""

    block: int
    window: Window
    labels: Labels
    written: int


class LabelJoiner:
    """Joins the labels of the blocks of one image plane.

    Add every block in the order of the grid and keep the result of `add`. Then get the final numbers from `finish`.

    Args:
        grid: the blocks.
    """

    def __init__(self, grid: BlockGrid) -> None:
        self._grid = grid
        self._written: list[int] = []
        self._below: dict[int, _Piece] = {}
        self._beside: dict[int, _Piece] = {}
        self._matches: list[tuple[float, Node, Node]] = []

    def add(self, block: Block, labels: Array) -> Labels:
        """Take the labels of a block's window and return those of its core.

        Args:
            block: the next block of the grid.
            labels: (y, x) integers of the window; 0 is background, numbers can have gaps.

        Returns:
            (y, x) uint32 of the core. 0 is background, and labels are 1..n without gaps, in the order of their old
            numbers.

        Raises:
            ValueError: the shape isn't that of the window, a label is negative, or the block isn't the next one.
        """
        if labels.shape != block.shape_yx or block.index != len(self._written):
            raise ValueError(
                f"block {block.index} with labels of shape {labels.shape}; "
                f"wanted block {len(self._written)} with {block.shape_yx}"
            )
        local, written = _renumber(labels, block)
        for piece in self._earlier(block):
            self._matches += _matches(piece, block, local, written)
        self._remember(block, local, written)
        self._written.append(written)
        if len(self._written) == len(self._grid):
            # These are not needed any more, but the joiner is kept until the last frame is done.
            self._below, self._beside = {}, {}
        return local[block.inner]

    def finish(self) -> Numbering:
        """Number all regions. Call it after the last block."""
        return Numbering(self._written, _united(self._matches))

    def _earlier(self, block: Block) -> Iterator[_Piece]:
        """Yield the labels of the neighbours above and on the left in this block's window."""
        columns = self._grid.columns
        column, above = block.index % columns, block.index - columns
        self._below.pop(above - 2, None)
        yield from (self._below[above + step] for step in (-1, 0, 1) if above >= 0 and 0 <= column + step < columns)
        if column:
            yield self._beside[block.index - 1]

    def _remember(self, block: Block, local: Labels, written: int) -> None:
        """Keep the labels of this block that the neighbours below and on the right overlap."""
        (rows, columns), overlap_px = block.window, self._grid.overlap_px
        below = slice(max(block.core[0].stop - overlap_px, rows.start), rows.stop)
        beside = slice(max(block.core[1].stop - overlap_px, columns.start), columns.stop)
        self._below[block.index] = _cut(local, block, (below, columns), written)
        self._beside = {block.index: _cut(local, block, (rows, beside), written)}


class Numbering:
    """The final numbers of the labels of all blocks: 1..`count`, in the order of the blocks and their labels.

    Attributes:
        count: number of regions in the whole plane.
    """

    def __init__(self, written: list[int], roots: dict[Node, Node]) -> None:
        self._written = written
        self._first: list[int] = []
        self._known: dict[int, dict[int, int]] = {}
        numbers: dict[Node, int] = {}
        by_block: dict[int, list[int]] = {}
        for block, label in sorted(roots):
            by_block.setdefault(block, []).append(label)
        self.count = 0
        for block, labels in enumerate(written):
            self._first.append(self.count)
            self.count += labels - self._number(block, by_block.get(block, []), roots, numbers)

    def table(self, block: int) -> Labels:
        """Return the final number of each label of a block. The index is the label, and 0 stays 0."""
        known = self._known.get(block, {})
        is_new = np.ones(self._written[block] + 1, np.uint32)
        is_new[[0, *known]] = 0
        table = np.cumsum(is_new, dtype=np.uint32) + np.uint32(self._first[block])
        table[[0, *known]] = [0, *known.values()]
        return np.asarray(table, np.uint32)

    def _number(self, block: int, labels: list[int], roots: dict[Node, Node], numbers: dict[Node, int]) -> int:
        """Number the joined labels of a block. Return how many of them have a number from an earlier block."""
        known: dict[int, int] = {}
        for label in labels:
            root = roots[block, label]
            if root in numbers:
                known[label] = numbers[root]
            else:
                numbers[root] = self._first[block] + label - len(known)
        self._known[block] = known
        return len(known)


def _renumber(labels: Array, block: Block) -> tuple[Labels, int]:
    """Number the labels with pixels in the core 1..n and the others from n + 1. Return the labels and n."""
    if labels.size and labels.min() < 0:
        raise ValueError(f"block {block.index} has the label {labels.min()}; wanted 0 or more")
    if labels.size and labels.max() > labels.size:
        labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape) + (labels.min() > 0)
    size = int(labels.max(initial=0)) + 1
    is_used, is_written = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
    is_used[labels] = True
    is_written[labels[block.inner]] = True
    is_used[0] = is_written[0] = False
    written = int(is_written.sum())
    table = np.cumsum(is_written, dtype=np.uint32) * is_written
    is_seen = is_used & ~is_written
    table += (np.cumsum(is_seen, dtype=np.uint32) + np.uint32(written)) * is_seen
    return table.astype(np.uint32)[labels], written


def _matches(piece: _Piece, block: Block, local: Labels, written: int) -> Iterator[tuple[float, Node, Node]]:
    """Yield pairs of labels that are one region and have pixels in both cores, with the shared part of their union."""
    common = _common(piece.window, block.window)
    first, second = piece.labels[_within(common, piece.window)].ravel(), local[_within(common, block.window)].ravel()
    first_px, second_px = np.bincount(first), np.bincount(second)
    is_both = (first > 0) & (second > 0)
    pairs, shared = np.unique(first[is_both].astype(np.int64) * len(second_px) + second[is_both], return_counts=True)
    ones, others = np.divmod(pairs, len(second_px))
    is_mutual = _is_best(shared, ones, len(first_px)) & _is_best(shared, others, len(second_px))
    is_one = is_mutual & (shared >= MIN_SHARE * np.minimum(first_px[ones], second_px[others]))
    # A label without pixels in its own core isn't written, so it isn't joined.
    for index in np.flatnonzero(is_one & (ones <= piece.written) & (others <= written)):
        one, other, px = int(ones[index]), int(others[index]), int(shared[index])
        union_px = int(first_px[one] + second_px[other]) - px
        yield px / union_px, (piece.block, one), (block.index, other)


def _is_best(shared: Array, owners: Array, count: int) -> npt.NDArray[np.bool_]:
    """Return whether a pair shares the most pixels of all pairs of its owner. Of equal pairs, the first one does."""
    order = np.lexsort((-np.arange(len(shared)), shared))
    best = np.full(count, -1, np.int64)
    best[owners[order]] = order  # the last one written counts
    return np.asarray(best[owners] == np.arange(len(shared)))


def _united(matches: list[tuple[float, Node, Node]]) -> dict[Node, Node]:
    """Return for each matched label the smallest label of its region. The best matches are joined first."""
    sets: dict[Node, dict[int, int]] = {}
    for _, one, other in sorted(matches, key=lambda match: (-match[0], *match[1:])):
        first, second = (sets.setdefault(node, dict([node])) for node in (one, other))
        # Two labels of one block are never joined, even if a neighbour has one label for both.
        if first is second or first.keys() & second.keys():
            continue
        large, small = (first, second) if len(first) >= len(second) else (second, first)
        large.update(small)
        for node in small.items():
            sets[node] = large
    smallest = {id(members): min(members.items()) for members in sets.values()}
    return {node: smallest[id(members)] for node, members in sets.items()}


def _cut(labels: Labels, block: Block, window: Window, written: int) -> _Piece:
    return _Piece(block.index, window, labels[_within(window, block.window)].copy(), written)


def _common(one: Window, other: Window) -> Window:
    rows, columns = (slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return rows, columns


def _within(part: Window, whole: Window) -> Window:
    rows, columns = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(part, whole, strict=True))
    return rows, columns
