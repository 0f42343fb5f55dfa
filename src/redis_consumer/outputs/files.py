"""Writes the additional files of a result that its job asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from redis_consumer.outputs import ENDINGS
from redis_consumer.outputs.cells import Cells, LabelImages, find_cells
from redis_consumer.outputs.geojson import GeoJsonFile
from redis_consumer.outputs.label_files import write_labels, write_ome
from redis_consumer.outputs.overlay import write_overlay
from redis_consumer.outputs.rois import RoiFiles
from redis_consumer.outputs.tables import CsvTable, ParquetTable

#: Outputs for which grey values are measured, and those for which outlines are traced.
MEASURED, TRACED = frozenset({"table", "parquet"}), frozenset({"rois", "geojson"})


class CellFile(Protocol):
    """A file, or several, to which cells are added."""

    def add(self, cells: Cells) -> None:
        """Add some cells of a frame."""

    def close(self) -> list[Path]:
        """Complete the files and return their paths."""


def write_outputs(
    outputs: Sequence[str],
    images: LabelImages,
    stem: Path,
    *,
    number: int = 0,
    tick: Callable[[int], None] = lambda _: None,
) -> list[Path]:
    """Write additional files of label images.

    Args:
        outputs: names out of `ENDINGS`.
        images: the label images, and the grey values that the outputs need.
        stem: folder, and begin of the files' names.
        number: of the label images, if a result has several: those after the first have it in their names.
        tick: called with the number of each frame after its cells were found.

    Returns:
        The files.

    Raises:
        OSError: they can't be written.
    """
    stem = stem if number == 0 else stem.with_name(f"{stem.name}_{number}")
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = {name: stem.with_name(f"{stem.name}{ENDINGS[name]}") for name in outputs}
    files: list[Path] = []
    if not {"labels", "ome"}.isdisjoint(outputs):
        largest = _largest(images)
        files += write_labels(images, largest, paths["labels"]) if "labels" in paths else []
        files += write_ome(images, largest, paths["ome"]) if "ome" in paths else []
    if "overlay" in paths and images.picture is not None:
        files += write_overlay(images, images.picture, paths["overlay"])
    return files + _write_cells(outputs, images, stem, tick)


def _write_cells(outputs: Sequence[str], images: LabelImages, stem: Path, tick: Callable[[int], None]) -> list[Path]:
    wanted, calibration = set(outputs), images.calibration
    path = {name: stem.with_name(f"{stem.name}{ENDINGS[name]}") for name in MEASURED | TRACED}
    makers: dict[str, Callable[[], CellFile]] = {
        "rois": lambda: RoiFiles(stem, ENDINGS["rois"], calibration),
        "geojson": lambda: GeoJsonFile(path["geojson"], calibration),
        "table": lambda: CsvTable(path["table"], calibration),
        "parquet": lambda: ParquetTable(path["parquet"], calibration),
    }
    open_files = [make() for name, make in makers.items() if name in wanted]
    if not open_files:
        return []
    try:
        found = find_cells(images, is_measured=not MEASURED.isdisjoint(wanted), is_traced=not TRACED.isdisjoint(wanted))
        for cells in found:
            for file in open_files:
                file.add(cells)
            tick(cells.frame)
    except BaseException:
        for file in open_files:
            with suppress(Exception):
                file.close()
        raise
    return [path for file in open_files for path in file.close()]


def _largest(images: LabelImages) -> int:
    largest = 0
    for frame in range(images.shape[0]):
        for rows in images.rows():
            for columns in images.columns():
                largest = max(largest, int(np.max(images.read(frame, (rows, columns)), initial=0)))
    return largest
