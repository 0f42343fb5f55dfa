"""Writes the outlines of cells as GeoJSON (RFC 7946), with the properties that QuPath reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from redis_consumer.images.calibration import Calibration
from redis_consumer.outputs.cells import Cells
from redis_consumer.processing.outlines import Ring


class GeoJsonFile:
    """A feature collection with one feature for each cell. Coordinates are pixels, with the corner of the image at 0.

    Args:
        path: of the file.
        calibration: for the planes of a stack.
    """

    def __init__(self, path: Path, calibration: Calibration) -> None:
        self._path = path
        self._calibration = calibration
        self._file = path.open("w", encoding="utf-8", newline="\n")
        self._file.write('{"type":"FeatureCollection","features":[')
        self._joint = "\n"

    def add(self, cells: Cells) -> None:
        """Add the cells of a frame."""
        plane = self._plane(cells.frame)
        for label, polygons in cells.outlines.regions():
            self._file.write(self._joint + json.dumps(feature_of(label, polygons, plane), separators=(",", ":")))
            self._joint = ",\n"

    def close(self) -> list[Path]:
        """Complete the file and return its path."""
        self._file.write("\n]}\n")
        self._file.close()
        return [self._path]

    def _plane(self, frame: int) -> dict[str, int] | None:
        if self._calibration.frames == 1:
            return None
        places = self._calibration.places(frame)
        if not {"T", "Z"} & set(places):
            places = {"T": frame}
        return {"c": -1, "z": places.get("Z", 0), "t": places.get("T", 0)}


def feature_of(label: int, polygons: Sequence[Sequence[Ring]], plane: dict[str, int] | None = None) -> dict[str, Any]:
    """Return a cell as a feature: a Polygon, or a MultiPolygon if it has several parts.

    Args:
        label: of the cell.
        polygons: the outer ring and the holes of each.
        plane: QuPath's numbers of channel, depth and time; None for a single image.
    """
    coordinates = [[[*ring.tolist(), ring[0].tolist()] for ring in polygon] for polygon in polygons]
    geometry: dict[str, Any] = (
        {"type": "Polygon", "coordinates": coordinates[0]}
        if len(coordinates) == 1
        else {"type": "MultiPolygon", "coordinates": coordinates}
    )
    if plane is not None:
        geometry["plane"] = plane
    measurements = {"label": label, "area_px": _area_px(polygons)}
    properties = {"objectType": "detection", "name": str(label), "measurements": measurements}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _area_px(polygons: Sequence[Sequence[Ring]]) -> int:
    total = 0
    for polygon in polygons:
        for ring in polygon:
            # Each second edge is vertical.
            x, y = ring.T
            total += int(np.dot(x, np.roll(y, -1) - y))
    return total
