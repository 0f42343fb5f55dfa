"""Writes the outlines of cells as ROI sets of ImageJ."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from redis_consumer.images.calibration import Calibration
from redis_consumer.outputs.cells import Cells
from redis_consumer.processing.outlines import Ring

#: ROIs of one file. Programs open larger sets slowly, and older ones not at all.
MOST_ROIS = 65_000
#: Largest coordinate that ImageJ holds as an integer.
_MOST_WHOLE = 32_767
#: Parts of a path, as `java.awt.geom.PathIterator` numbers them.
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0


class RoiFiles:
    """ROI sets, each a zip of ``.roi`` files named by label. After `MOST_ROIS` a new set begins: ``…_rois_2.zip``.

    A cell of one ring is a traced selection. A cell with holes, or of several parts, is a composite selection.
    Coordinates run along the edges of pixels, as in ImageJ's own wand selections.

    Args:
        stem: folder and begin of the names.
        ending: end of the name of the first set, with ``.zip``.
        calibration: for the positions in a stack.
    """

    def __init__(self, stem: Path, ending: str, calibration: Calibration) -> None:
        self._first = stem.with_name(f"{stem.name}{ending}")
        self._calibration = calibration
        self.paths: list[Path] = []
        self._count = 0
        self._zip = self._next()

    def add(self, cells: Cells) -> None:
        """Add the cells of a frame."""
        places = self._calibration.places(cells.frame)
        is_stack = self._calibration.frames > 1
        for label, polygons in cells.outlines.regions():
            name = f"{cells.frame + 1:04d}-{label:04d}" if is_stack else f"{label:04d}"
            if self._count == MOST_ROIS:
                self._zip.close()
                self._zip, self._count = self._next(), 0
            self._zip.writestr(f"{name}.roi", roi_of(polygons, name, cells.frame if is_stack else None, places))
            self._count += 1

    def close(self) -> list[Path]:
        """Complete the sets and return their paths."""
        self._zip.close()
        return self.paths

    def _next(self) -> zipfile.ZipFile:
        number = len(self.paths) + 1
        name = self._first.name if number == 1 else f"{self._first.stem}_{number}.zip"
        self.paths.append(self._first.with_name(name))
        return zipfile.ZipFile(self.paths[-1], "w", zipfile.ZIP_STORED)


def roi_of(
    polygons: Sequence[Sequence[Ring]], name: str, frame: int | None, places: dict[str, int] | None = None
) -> bytes:
    """Return the polygons of a cell in ImageJ's format.

    Args:
        polygons: the outer ring and the holes of each.
        name: of the ROI.
        frame: number of the frame in a stack; None for a single image.
        places: number of the frame on each axis of the stack, by letter.
    """
    from roifile import ROI_TYPE, ImagejRoi

    rings = [ring for polygon in polygons for ring in polygon]
    points = np.concatenate(rings)
    left, top = points.min(axis=0).tolist()
    right, bottom = points.max(axis=0).tolist()
    values: dict[str, Any] = {"name": name, "left": left, "top": top, "right": right, "bottom": bottom, "version": 228}
    values |= _position(frame, places or {})
    if len(rings) > 1:
        path = np.concatenate([_path(ring) for ring in rings])
        return ImagejRoi(
            roitype=ROI_TYPE.RECT, shape_roi_size=len(path), multi_coordinates=path.astype(np.float32), **values
        ).tobytes()
    values |= {"roitype": ROI_TYPE.TRACED, "n_coordinates": len(points)}
    values["integer_coordinates"] = (points - (left, top)).astype(np.int32)
    if max(right, bottom) > _MOST_WHOLE:
        values |= _fractional(points)
    return ImagejRoi(**values).tobytes()


def _fractional(points: Ring) -> dict[str, Any]:
    from roifile import ROI_OPTIONS

    return {"options": ROI_OPTIONS.SUB_PIXEL_RESOLUTION, "subpixel_coordinates": points.astype(np.float32)}


def _position(frame: int | None, places: dict[str, int]) -> dict[str, int]:
    if frame is None:
        return {}
    if set(places) <= {"T", "Z"} and len(places) == 2:
        return {"c_position": 1, "z_position": places["Z"] + 1, "t_position": places["T"] + 1}
    return {"position": frame + 1}


def _path(ring: Ring) -> np.ndarray[Any, Any]:
    """Return a ring as numbers: kind of a part, x, y; at the end only the kind."""
    parts = np.full((len(ring), 3), _LINE)
    parts[:, 1:] = ring
    parts[0, 0] = _MOVE
    return np.append(parts.ravel(), _CLOSE)
