"""The table of tracks."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from redis_consumer.tracking.linking import Linker
from redis_consumer.tracking.table import COLUMNS, write_table


def test_places_are_those_in_the_movie_as_it_was_given(tmp_path: Path) -> None:
    linker = Linker()
    for top in (2, 12):
        image = np.zeros((40, 40), np.uint8)
        image[top : top + 3, 4:7] = 9
        linker.add(image, (top - 2, 0))
    write_table(tmp_path / "tracks.csv", linker.finish(), [(0, 0), (10, 0)])
    header, *rows = csv.reader((tmp_path / "tracks.csv").read_text().splitlines())
    assert tuple(header) == COLUMNS
    assert rows == [["1", "0", "3.00", "5.00", "9", "", "9"], ["1", "1", "13.00", "5.00", "9", "", "9"]]
