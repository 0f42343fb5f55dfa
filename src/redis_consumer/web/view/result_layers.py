"""Writes the layers of a job's result: label images, other results of the size of the image, and points."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.archives import iter_members
from redis_consumer.errors import InvalidImage
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.planes import Window
from redis_consumer.images.windows import WindowedImage, open_windowed
from redis_consumer.options import ArchiveLimits
from redis_consumer.web.view.layout import LABELS, POINTS, VALUES, ViewLayer
from redis_consumer.web.view.pixels import frames_by_place
from redis_consumer.web.view.pyramids import write_layer

Array = npt.NDArray[Any]
Tick = Callable[[float], None]

_FEATURE = re.compile(r"(?P<stem>.+?)(?:_batch_(?P<frame>\d+))?_feature_(?P<number>\d+)\.(?:tif|zarr)", re.ASCII)
_POINTS = re.compile(r"(?P<stem>.+)_(?P<frame>\d+)\.(?:npy|csv)", re.ASCII)
#: Workers pack blank label images to a thousandth of their size.
_LIMITS = ArchiveLimits(max_bytes=64 << 30, max_ratio=5000)
#: Columns of a table of points, and how the columns with the labels of their cells begin.
_COLUMNS, _CELL = ("x", "y"), "cellid"


class _NoLabelsError(Exception):
    """A result has values that are no labels."""


def write_result_layers(
    path: Path, folder: Path, unpacked: Path, image: tuple[str, tuple[tuple[str, int], ...]], tick: Tick
) -> list[ViewLayer]:
    """Write the layers of a result.

    Args:
        path: the result zip.
        folder: for the files of the layers.
        unpacked: an empty folder for the files of the zip.
        image: stem of the names of the image's results, and axes of its frames with their lengths.
        tick: called with the share that is done, 0..1.

    Returns:
        The layers: `LABELS` or `VALUES` for each feature, the further ones with a number, then `POINTS`.

    Raises:
        InvalidImage: a file can't be read.
        UnsafeArchive: the zip can't be read.
    """
    stem, axes = image
    features, points = find_features(_members(path, unpacked), stem)
    layers: list[ViewLayer] = []
    for number, files in enumerate(features):
        with LabelFrames(files) as frames:
            share = _shares(tick, number, len(features))
            layers.append(_write_feature(folder, frames, frames.places(axes), number, share))
    if points:
        layers.append(_write_points(folder, points, axes, layers))
    return layers


def _members(path: Path, unpacked: Path) -> Iterator[tuple[str, Path]]:
    """Unpack the files of a result that can be layers; yield name and path."""

    def why_skipped(name: str) -> str:
        return "" if _FEATURE.fullmatch(name) or _POINTS.fullmatch(name) else "it is no layer"

    def zarr_folder(name: str) -> str:
        head, mark, _ = name.partition(".zarr/")
        return f"{head}.zarr" if mark else ""

    members = iter_members(
        path, unpacked, label=path.name, why_skipped=why_skipped, limits=_LIMITS, whole_folder=zarr_folder
    )
    for member in members:
        if member.path is not None:
            yield member.name, member.path


def find_features(members: Iterator[tuple[str, Path]], stem: str) -> tuple[list[list[Path]], dict[int, list[Path]]]:
    """Return the files of each feature, frame by frame, and those of the points of each frame."""
    features: dict[str, dict[int, dict[int, Path]]] = {}
    points: dict[str, dict[int, list[Path]]] = {}
    for name, path in members:
        if match := _FEATURE.fullmatch(name):
            of_image = features.setdefault(match["stem"], {})
            of_image.setdefault(int(match["number"]), {})[int(match["frame"] or 0)] = path
        elif match := _POINTS.fullmatch(name):
            points.setdefault(match["stem"], {}).setdefault(int(match["frame"]), []).append(path)
    found = [*features, *points]
    chosen = stem if stem in found or len(set(found)) != 1 else found[0]
    of_image = features.get(chosen, {})
    if not (of_image or chosen in points) and found:
        raise InvalidImage(f"{stem}: the result has {len(set(found))} other images; look at them in the downloaded zip")
    files = [[by_frame[frame] for frame in sorted(by_frame)] for _, by_frame in sorted(of_image.items())]
    return files, points.get(chosen, {})


class LabelFrames:
    """The frames of a feature, in one file or in a file for each frame, of which one is open at a time."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._stack = ExitStack()
        self._open = -1
        self._image = self._opened(0)
        self._calibration = self._image.calibration
        self.shape_yx = self._image.shape[1:3]
        self.count = self._image.shape[0] if len(files) == 1 else len(files)

    def __enter__(self) -> LabelFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def places(self, axes: tuple[tuple[str, int], ...]) -> list[list[int]]:
        """Return the number of the frame at each time and plane."""
        of_image = Calibration(axes).fitting(self.count)
        own = self._calibration
        is_unknown = [letter for letter, _ in of_image.axes] == ["B"]
        return frames_by_place(own if is_unknown and own.frames == self.count else of_image, self.count)

    def read(self, frame: int, window: Window) -> Array:
        """Return (y, x) of a frame in the type of its file."""
        image = self._opened(0 if len(self._files) == 1 else frame)
        if image.shape[1:3] != self.shape_yx:
            raise InvalidImage(f"{image.name}: the frames of a result have different sizes")
        return image.read_stored(frame if len(self._files) == 1 else 0, window)[..., 0]

    def _opened(self, number: int) -> WindowedImage:
        if number == self._open:
            return self._image
        self._stack.close()
        path = self._files[number]
        image = self._stack.enter_context(open_windowed(path, name=path.name))
        if image.shape[3] > 1:  # by its shape alone, a short stack looks like channels
            self._stack.close()
            image = self._stack.enter_context(open_windowed(path, name=path.name, dimension_order="BXY"))
        self._open, self._image = number, image
        return image


def _shares(tick: Tick, number: int, count: int) -> Tick:
    return lambda share: tick((number + share) / count)


def _write_feature(folder: Path, frames: LabelFrames, places: list[list[int]], number: int, tick: Tick) -> ViewLayer:
    height, width = frames.shape_yx
    layer = ViewLayer(_numbered(LABELS, number), "uint32", width, height, len(places), len(places[0]))
    largest = 0

    def labels(t: int, z: int, window: Window) -> Array:
        nonlocal largest
        stored = frames.read(places[t][z], window)
        with np.errstate(invalid="ignore"):
            found: Array = stored.astype(np.uint32)
        if stored.dtype.kind != "u" and not np.array_equal(found, stored):
            raise _NoLabelsError
        largest = max(largest, int(found.max()))
        return found[..., np.newaxis]

    def values(t: int, z: int, window: Window) -> Array:
        found: Array = np.nan_to_num(frames.read(places[t][z], window).astype(np.float32), copy=False)
        return found[..., np.newaxis]

    try:
        write_layer(folder / f"{layer.name}.tif", layer, labels, tick)
        return replace(layer, max_label=largest)
    except _NoLabelsError:
        (folder / f"{layer.name}.tif").unlink()
        layer = replace(layer, name=_numbered(VALUES, number), dtype="float32")
        write_layer(folder / f"{layer.name}.tif", layer, values, tick)
        return layer


def _numbered(name: str, number: int) -> str:
    return name if number == 0 else f"{name}_{number + 1}"


def _write_points(
    folder: Path, points: dict[int, list[Path]], axes: tuple[tuple[str, int], ...], layers: Sequence[ViewLayer]
) -> ViewLayer:
    """Write the points of each frame as the object POINTS of the API, ``points_<plane>.json``."""
    frames = sorted(points)
    places = frames_by_place(Calibration(axes), len(frames))
    count = 0
    sides = (layers[0].width, layers[0].height) if layers else (1, 1)
    layer = ViewLayer(POINTS, "", *sides, len(places), len(places[0]))
    for t, row in enumerate(places):
        for z, frame in enumerate(row):
            table = _read_points(points[frames[frame]])
            count += len(table["y"])
            target = folder / f"{POINTS}_{layer.plane_of(t, z, 0)}.json"
            target.write_text(json.dumps(table, separators=(",", ":")), encoding="utf-8")
    return replace(layer, count=count)


def _read_points(files: Sequence[Path]) -> dict[str, list[float]]:
    """Read the points of a frame: a table if there is one, since it can name the cells; else an array of y and x."""
    table = next((path for path in files if path.suffix == ".csv"), None)
    try:
        if table is not None:
            return _table_of_points(table)
        points = np.load(files[0], allow_pickle=False).astype(np.float64)
        if points.ndim != 2 or points.shape[1] != 2:
            raise ValueError(f"its shape is {points.shape}")
        y, x = _finite(points).T.round(3).tolist()
    except (ValueError, IndexError, StopIteration, OSError) as error:
        raise InvalidImage(f"{files[0].name}: has no points that can be read; download the result") from error
    return {"y": y, "x": x, "cell": []}


def _finite(values: Array) -> Array:
    if not np.isfinite(values).all():
        raise ValueError("its points are no numbers")
    return values


def _table_of_points(path: Path) -> dict[str, list[float]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        names = [name.lower() for name in next(rows)]
        if tuple(names[:2]) != _COLUMNS:
            raise ValueError(f"its columns are {names}")
        columns = list(zip(*([float(value) for value in row] for row in rows), strict=True)) or [()] * len(names)
        _finite(np.array(columns))
    cells = columns[2] if len(names) > 2 and names[2].startswith(_CELL) else ()
    return {"y": list(columns[1]), "x": list(columns[0]), "cell": list(cells)}
