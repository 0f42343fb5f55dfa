"""An image of spots, nuclei and cells, and what the models of `support.onnx_models` make of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Models for each kind of job, as variables of a worker.
MODELS = {
    "POLARIS_MODEL": "Spots:1",
    "NUCLEAR_MODEL": "Distances:1",
    "CYTOPLASM_MODEL": "Distances:1",
    "MESMER_MODEL": "Multiplex:1",
}
#: y and x of the spots: in the nuclei, in a cell beside its nucleus, in a cell without nucleus, outside of cells.
SPOTS = [(45, 45), (52, 30), (78, 76), (175, 190), (40, 220), (230, 30)]
#: What the model adds to each.
OFFSET = (0.25, -0.25)
_SHAPE = (260, 280)


def spots(places: Sequence[tuple[int, int]]) -> Any:
    """A plane with a bright pixel at each place."""
    plane = np.full(_SHAPE, 100, np.float32)
    for y, x in places:
        plane[y, x] = 900
    return plane


def squares(*boxes: tuple[int, int, int]) -> Any:
    """A plane with bright squares: y and x of a corner, and the side."""
    plane = np.zeros(_SHAPE, np.float32)
    for y, x, side in boxes:
        plane[y : y + side, x : x + side] = 1
    return plane


NUCLEI = squares((20, 20, 50), (150, 160, 50))
CELLS = squares((10, 10, 75), (135, 145, 90), (10, 190, 70))
IMAGE = np.stack([spots(SPOTS), NUCLEI, CELLS])


def known_rows(*labels: Any, places: Sequence[tuple[int, int]] = SPOTS) -> list[list[str]]:
    """The table of the spots: x, y and the label at the place in each label image."""
    header = ["x", "y", *(f"cellID{number}" for number in range(len(labels)))]
    rows = []
    for y, x in sorted(places):
        at_y, at_x = y + OFFSET[0], x + OFFSET[1]
        rows.append([str(at_x), str(at_y), *(str(int(image[int(at_y), int(at_x)])) for image in labels)])
    return [header, *rows]


def table(data: bytes) -> list[list[str]]:
    """The rows of a CSV file."""
    return list(csv.reader(io.StringIO(data.decode(), newline="")))
