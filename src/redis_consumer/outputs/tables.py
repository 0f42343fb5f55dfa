"""Writes tables of cells as CSV and Parquet."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from redis_consumer.images.calibration import Calibration
from redis_consumer.outputs.cells import Cells

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetWriter

Array = npt.NDArray[Any]

#: Columns that are also given in micrometres, with their unit: of an area, of a height, of a width, or of any length,
#: which is known only if pixels are square.
_IN_UM = {
    "area_px": "area",
    "centroid_y_px": "y",
    "centroid_x_px": "x",
    "major_axis_px": "length",
    "minor_axis_px": "length",
    "perimeter_px": "length",
}
#: Sides of a pixel differ by at most this part, if it is a square.
_SQUARE = 0.01
#: Rows of a group in a Parquet file, at least.
_GROUP_ROWS = 1 << 16


def columns_of(cells: Cells, calibration: Calibration) -> dict[str, Array]:
    """Return the columns of the table for the cells of a frame.

    They are ``label``, ``frame`` (from 0), a column for each axis of a stack (``t``, ``z``), the columns of
    `RegionTable.finish`, and each length and area also in micrometres (``area_um2``, ``perimeter_um``, …), which are
    empty (NaN) if the pixel size isn't known.
    """
    table = dict(cells.table)
    label = table.pop("label")
    result = {"label": label, "frame": np.full(len(label), cells.frame)}
    for axis, place in calibration.places(cells.frame).items():
        result[axis.lower()] = np.full(len(label), place)
    units = _units(calibration)
    for name, column in table.items():
        result[name] = column
        if name in _IN_UM:
            unit = _IN_UM[name]
            result[f"{name.removesuffix('_px')}_um{'2' if unit == 'area' else ''}"] = column * units[unit]
    return result


def _units(calibration: Calibration) -> dict[str, float]:
    y, x = calibration.pixel_yx_um or (np.nan, np.nan)
    return {"area": y * x, "y": y, "x": x, "length": x if abs(y - x) <= _SQUARE * x else np.nan}


@dataclass
class CsvTable:
    """A table as CSV: UTF-8, commas, a line of names, and one line for each cell and frame.

    Args:
        path: of the file.
        calibration: pixel size and axes.
    """

    path: Path
    calibration: Calibration
    _has_names: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._file = self.path.open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file, lineterminator="\n")

    def add(self, cells: Cells) -> None:
        """Add the cells of a frame."""
        columns = columns_of(cells, self.calibration)
        if not self._has_names:
            self._rows.writerow(columns)
            self._has_names = True
        self._rows.writerows(zip(*map(_texts, columns.values()), strict=True))

    def close(self) -> list[Path]:
        """Complete the file and return its path."""
        self._file.close()
        return [self.path]


@dataclass
class ParquetTable:
    """The same table as Parquet.

    Args:
        path: of the file.
        calibration: pixel size and axes.
    """

    path: Path
    calibration: Calibration
    _waiting: list[dict[str, Array]] = field(default_factory=list, init=False)
    _writer: ParquetWriter | None = field(default=None, init=False)

    def add(self, cells: Cells) -> None:
        """Add the cells of a frame."""
        self._waiting.append(columns_of(cells, self.calibration))
        if sum(len(part["label"]) for part in self._waiting) >= _GROUP_ROWS:
            self._write()

    def close(self) -> list[Path]:
        """Complete the file and return its path."""
        if self._waiting:
            self._write()
        if self._writer is not None:
            self._writer.close()
        return [self.path]

    def _write(self) -> None:
        import pyarrow
        import pyarrow.parquet

        names = self._waiting[0]
        table = pyarrow.table({name: np.concatenate([part[name] for part in self._waiting]) for name in names})
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self.path, table.schema)
        self._writer.write_table(table)
        self._waiting = []


def _texts(column: Array) -> list[Any]:
    """Return a column as it is written: numbers with up to seven digits, and empty if there is none."""
    if column.dtype.kind == "b":
        return [int(value) for value in column.tolist()]
    if column.dtype.kind != "f":
        return list(column.tolist())
    return ["" if value != value else f"{value:.7g}" for value in column.tolist()]
