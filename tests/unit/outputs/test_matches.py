"""Each nucleus has the cell that holds most of it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from redis_consumer.outputs.cells import LabelImages
from redis_consumer.outputs.matches import write_matches

CELLS, NUCLEI = np.zeros((2, 2, 40, 50), np.int32)
CELLS[0, 2:12, 2:12], CELLS[0, 20:30, 2:12], CELLS[0, 12:14, 2:12] = 1, 7, 9
NUCLEI[0, 4:8, 4:8], NUCLEI[0, 9:12, 4:8], NUCLEI[0, 10:16, 10:11] = 3, 4, 5
NUCLEI[0, 30:35, 30:35], NUCLEI[0, 29:33, 2:4] = 6, 8
CELLS[1, 5:9, 5:9] = 70000


def images_of(labels: npt.NDArray[np.int32], tile_px: int) -> LabelImages:
    return LabelImages(labels.shape, lambda frame, window: labels[frame][window], tile_px=tile_px)


@pytest.mark.parametrize("tile_px", [0, 16, 7])
def test_nuclei_have_cells(tmp_path: Path, tile_px: int) -> None:
    path = write_matches(images_of(CELLS, tile_px), images_of(NUCLEI, tile_px), tmp_path / "a_matched.csv")
    rows = list(csv.reader(path.read_text().splitlines()))
    assert rows == [
        ["frame", "cell", "nucleus", "overlap_px", "share_of_nucleus"],
        ["0", "1", "3", "16", "1"],
        ["0", "1", "4", "12", "1"],
        ["0", "1", "5", "2", "0.3333"],
        ["0", "7", "8", "2", "0.25"],
        ["0", "9", "", "0", ""],
        ["0", "", "6", "0", "0"],
        ["1", "70000", "", "0", ""],
    ]
