"""Measures the time to write table, ROIs and polygons of cells, beside scikit-image's table of the same columns."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.measure import regionprops_table

from redis_consumer.outputs.cells import LabelImages, Window
from redis_consumer.outputs.files import write_outputs

SIDE_PX, CELLS, SEED, RUNS = 2048, 2000, 7, 3
#: Columns of scikit-image that the table has.
PROPERTIES = (
    "label", "area", "centroid", "bbox", "axis_major_length", "axis_minor_length", "eccentricity", "perimeter",
    "solidity", "intensity_mean", "intensity_std", "intensity_min", "intensity_max",
)  # fmt: skip

Array = npt.NDArray[Any]


def measure() -> dict[str, Any]:
    """Time both for an image of one channel; the shortest of some runs.

    Returns:
        ``ours_s``, for ``_cells.csv``, ``_rois.zip`` and ``.geojson`` on disk; ``regionprops_s``, for the columns in
        memory; ``ratio`` of the two; ``objects``.
    """
    labels = cells()
    image = np.random.default_rng(SEED).normal(200, 20, labels.shape).astype(np.float32)
    ours_s = _shortest_s(lambda: _write(labels, image))
    regionprops_s = _shortest_s(lambda: regionprops_table(labels, image, properties=PROPERTIES))
    figures = {"ours_s": ours_s, "regionprops_s": regionprops_s, "ratio": ours_s / regionprops_s}
    return {**figures, "objects": int(labels.max())}


def cells() -> Array:
    """Draw ellipses with rough edges on a grid, (Y, X) int32."""
    dice = np.random.default_rng(SEED)
    labels = np.zeros((SIDE_PX, SIDE_PX), np.int32)
    columns = int(np.ceil(np.sqrt(CELLS)))
    step = SIDE_PX // columns
    y, x = np.mgrid[:step, :step] - step / 2 + 0.5
    for number in range(CELLS):
        row, column = divmod(number, columns)
        angle, *radii = dice.uniform((0, step / 5, step / 5), (3.1, step / 2.2, step / 2.2))
        along, across = y * np.cos(angle) + x * np.sin(angle), x * np.cos(angle) - y * np.sin(angle)
        inside = (along / radii[0]) ** 2 + (across / radii[1]) ** 2 + dice.normal(0, 0.05, y.shape) < 1
        labels[row * step : (row + 1) * step, column * step : (column + 1) * step][inside] = number + 1
    return labels


def _write(labels: Array, image: Array) -> None:
    def grey(_: int, window: Window) -> Array:
        return np.asarray(image[window])[..., np.newaxis]

    def read(_: int, window: Window) -> Array:
        return np.asarray(labels[window])

    images = LabelImages((1, SIDE_PX, SIDE_PX), read, grey)
    with tempfile.TemporaryDirectory() as folder:
        write_outputs(["table", "rois", "geojson"], images, Path(folder) / "a")


def _shortest_s(work: Callable[[], object]) -> float:
    times = []
    for _ in range(RUNS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)
