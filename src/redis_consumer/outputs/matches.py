"""Writes which nucleus lies in which cell."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.outputs.cells import LabelImages

Array = npt.NDArray[Any]

#: End of the name.
MATCHED = "_matched.csv"
COLUMNS = ("frame", "cell", "nucleus", "overlap_px", "share_of_nucleus")


def write_matches(cells: LabelImages, nuclei: LabelImages, path: Path) -> Path:
    """Write a row for each nucleus with the cell that holds most of its pixels, and one for each cell without nucleus.

    A cell can have several nuclei. A number is empty if a nucleus is in no cell, or a cell has no nucleus. Memory
    depends on a window and on the number of objects.

    Args:
        cells: label images of whole cells.
        nuclei: label images of nuclei, with the same shape and windows.
        path: of the table.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for frame in range(cells.shape[0]):
            rows.writerows(_rows(frame, *_overlaps(cells, nuclei, frame)))
    return path


def _overlaps(cells: LabelImages, nuclei: LabelImages, frame: int) -> tuple[Array, Array]:
    """Return the pairs of labels of a frame that share pixels, (n, 2) of cell and nucleus, and their pixels."""
    pairs, counts = np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    for side in cells.rows():
        found = [(pairs, counts)]
        for other in cells.columns():
            window = (side, other)
            both = np.stack([cells.read(frame, window), nuclei.read(frame, window)], axis=-1).reshape(-1, 2)
            found.append(_counted(both[both.any(axis=1)].astype(np.int64), None))
        pairs, counts = _counted(np.concatenate([each for each, _ in found]), np.concatenate([px for _, px in found]))
    return pairs, counts


def _counted(pairs: Array, counts: Array | None) -> tuple[Array, Array]:
    """Return each pair once, and the sum of its counts; 1 each if there are none."""
    keys = pairs[:, 0] << 32 | pairs[:, 1]
    distinct, index = np.unique(keys, return_inverse=True)
    sums = np.bincount(index, counts, len(distinct)).astype(np.int64)
    return np.stack([distinct >> 32, distinct & 0xFFFFFFFF], axis=-1), sums


def _rows(frame: int, pairs: Array, counts: Array) -> Iterator[tuple[int | str, ...]]:
    """Yield the rows of a frame, by rising numbers of cells and nuclei; nuclei without a cell come last."""
    if not len(pairs):
        return
    cells, nuclei = pairs.T
    areas = np.bincount(nuclei, counts)
    # For each nucleus the cell with the most of its pixels; background counts only if there is no cell.
    order = np.lexsort((-cells, counts, cells > 0, nuclei))
    order = order[nuclei[order] > 0]
    last = np.flatnonzero(np.diff(nuclei[order], append=-1))
    best = order[last]
    empty = np.setdiff1d(cells, cells[best])
    rows: list[tuple[int, int, int]] = [
        *((int(cells[at]), int(nuclei[at]), int(counts[at]) if cells[at] else 0) for at in best),
        *((int(cell), 0, 0) for cell in empty if cell),
    ]
    for cell, nucleus, overlap in sorted(rows, key=lambda row: (row[0] == 0, row)):
        share = f"{overlap / areas[nucleus]:.4g}" if nucleus else ""
        yield frame, cell or "", nucleus or "", overlap, share
