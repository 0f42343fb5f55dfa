"""Joins the results of blocks into the planes of one result."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from redis_consumer.errors import ModelMismatch
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.scratch import TileScratch
from redis_consumer.images.window_writing import TiledPlane
from redis_consumer.processing.blocks import Block, BlockGrid, LabelJoiner, Numbering
from redis_consumer.serving.base import Array


class BlockResults:
    """Collects the results of all blocks of all frames, and returns the planes of the result.

    A pixel gets its value from the block whose core contains it. Labels are joined across the borders of blocks.

    Args:
        frames: of the image.
        grid: the blocks of a frame.
        scratch: file for tiles. The side of a tile divides the edges of blocks.
        has_labels: whether planes of integers are label images, or numbers such as a model's classes.

    Attributes:
        confidences: after `planes`: for each frame and each of its label images, the confidence of objects by label.
    """

    def __init__(self, frames: int, grid: BlockGrid, scratch: TileScratch, *, has_labels: bool = True) -> None:
        self._label_kinds = "iu" if has_labels else ""
        self._frames = frames
        self._grid = grid
        self._scratch = scratch
        self._dtypes: list[np.dtype[Any]] = []
        self._joiners: dict[tuple[int, int], LabelJoiner] = {}
        self._objects = 0
        self.confidences: list[list[Array]] = []
        self._tables: dict[tuple[int, int], list[Array]] = {}

    def add(self, frame: int, block: Block, results: Sequence[Array], confidences: Sequence[Array] = ()) -> None:
        """Add the results of one block, each (1, y, x, C) of its window, frame by frame in the order of the grid.

        Args:
            frame: number of the frame.
            block: where it is.
            results: its results.
            confidences: of the objects in each label image, by label; those after the last one aren't known.

        Raises:
            ModelMismatch: a result has another shape than expected or than for the first block, or a label below 0.
        """
        planes = [plane for result in results for plane in _planes(result, block)]
        dtypes = [np.dtype(np.uint32 if plane.dtype.kind in self._label_kinds else np.float32) for plane in planes]
        self._dtypes = self._dtypes or dtypes
        if dtypes != self._dtypes:
            raise ModelMismatch(
                f"result: {len(dtypes)} channels for one part of the image, {len(self._dtypes)} for another, or of "
                "other types; choose functions and a model whose results don't change"
            )
        known = iter(confidences)
        for index, plane in enumerate(planes):
            if plane.dtype.kind in self._label_kinds:
                if plane.min() < 0:
                    raise ModelMismatch(
                        f"result: has the label {plane.min()}; choose a function that gives labels of 0 or more"
                    )
                joiner = self._joiners.setdefault((index, frame), LabelJoiner(self._grid))
                core: Array = joiner.add(block, plane)
                self._keep_confidence((index, frame), core, plane[block.inner], next(known, None))
            else:
                core = plane[block.inner].astype(np.float32)
            self._scratch.write(index, frame, (block.core[0].start, block.core[1].start), core)

    @property
    def objects(self) -> int | None:
        """Number of regions in the first plane of all frames, after `planes`; None if it has no labels."""
        if not self._dtypes or self._dtypes[0].kind not in self._label_kinds:
            return None
        return self._objects

    def _keep_confidence(self, place: tuple[int, int], core: Array, labels: Array, known: Array | None) -> None:
        """Keep the confidences of a block's objects by the numbers that they have in its core."""
        if known is not None:
            table = np.full(int(core.max(initial=0)) + 1, np.nan, np.float32)
            table[core] = known[labels]
            self._tables.setdefault(place, []).append(table)

    def _confidences_of(self, numberings: dict[tuple[int, int], Numbering]) -> list[list[Array]]:
        """Return the highest confidence of each object in its blocks."""
        planes = sorted({index for index, _ in self._tables})
        found: list[list[Array]] = [[] for _ in range(self._frames)]
        for frame, index in product(range(self._frames), planes):
            numbering = numberings[index, frame]
            joined = np.full(numbering.count + 1, np.nan, np.float32)
            for block, table in enumerate(self._tables[index, frame]):
                numbers = numbering.table(block)[: len(table)]
                joined[numbers] = np.fmax(joined[numbers], table)
            joined[0] = np.nan
            found[frame].append(joined)
        return found

    def planes(self, calibration: Calibration) -> list[TiledPlane]:
        """Number the labels and return the planes. Their tiles are read while the scratch file is open."""
        numberings = {place: joiner.finish() for place, joiner in self._joiners.items()}
        self._objects = sum(numbering.count for (plane, _), numbering in numberings.items() if plane == 0)
        self.confidences = self._confidences_of(numberings)
        return [self._plane(index, numberings, calibration) for index in range(len(self._dtypes))]

    def _plane(self, index: int, numberings: dict[tuple[int, int], Numbering], calibration: Calibration) -> TiledPlane:
        (height, width), tile_px, dtype = self._grid.shape_yx, self._scratch.tile_px, self._dtypes[index]

        def tile(frame: int, row: int, column: int) -> Array:
            top, left = row * tile_px, column * tile_px
            shape = (min(tile_px, height - top), min(tile_px, width - left))
            pixels = self._scratch.read((index, frame, row, column), shape, dtype)
            numbering = numberings.get((index, frame))
            return pixels if numbering is None else numbering.table(self._grid.block_at(top, left))[pixels]

        counts = [numbering.count for (plane, _), numbering in numberings.items() if plane == index]
        return TiledPlane((self._frames, height, width), tile_px, dtype, tile, max(counts, default=0), calibration)


def _planes(result: Array, block: Block) -> list[Array]:
    if result.ndim != 4 or result.shape[:3] != (1, *block.shape_yx):
        raise ModelMismatch(
            f"result: has the shape {result.shape} for a part of {block.shape_yx[0]} x {block.shape_yx[1]} px; choose "
            "functions that give one value or more for each pixel"
        )
    return [result[0, ..., channel] for channel in range(result.shape[-1])]
