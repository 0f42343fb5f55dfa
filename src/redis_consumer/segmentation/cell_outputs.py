"""Reads which additional files a job asks for, collects the label images of its result, and writes the files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from redis_consumer import wanted
from redis_consumer.errors import InvalidJob, ModelMismatch
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.scratch import FrameScratch
from redis_consumer.images.window_writing import TiledPlane
from redis_consumer.job import Job
from redis_consumer.outputs.cells import LabelImages, Read, Window, whole_frames
from redis_consumer.outputs.files import MEASURED, write_outputs
from redis_consumer.outputs.matches import MATCHED, write_matches
from redis_consumer.processing.measure import label_channels
from redis_consumer.segmentation.frames import Frames, check_needed, open_whole
from redis_consumer.segmentation.options import SegmentationOptions
from redis_consumer.serving.base import Array
from redis_consumer.text import quoted, result_stem, shown_name

#: Largest side of a window of an image that is read in parts, and the bytes of its grey values.
_WINDOW_PX, _WINDOW_BYTES = 2048, 32 << 20
#: Tiles of labels that are kept, because windows and their surroundings share them.
_KEPT_TILES = 64
#: What can be made of label images, of every kind of job.
CELL_OUTPUTS = ("labels", "ome", "rois", "geojson", "table", "parquet", "overlay")
ALL = "all"


class CellOutputs:
    """The additional files of one job.

    Args:
        job: names them in its field ``outputs``.
        path: its image.
        folder: folder of the job. The files are written below ``folder / "results"``.
        options: limits of images.

    Raises:
        InvalidJob: the field names something unknown.

    Attributes:
        names: what the job asks for.
        folder: folder of the job.
        results: folder of all files of the result.
        confidences: for each frame and each of its label images, see `SizeCheck`; None if no output needs them.
    """

    def __init__(self, job: Job, path: Path, folder: Path, options: SegmentationOptions) -> None:
        self.names = wanted_outputs(job)
        self._job = job
        self._path = path
        self.folder = folder
        self.results = folder / "results"
        self._options = options
        self._kept: list[FrameScratch] = []
        self.confidences: list[list[Array]] | None = None if MEASURED.isdisjoint(self.names) else []

    @property
    def stem(self) -> Path:
        """Folder and begin of the names of all files of the result."""
        return self.results / result_stem(self._job.original_name)

    def keep(self, arrays: Sequence[Array]) -> None:
        """Keep the label images of some frames on disk, (b, Y, X, C) each."""
        channels = label_channels(arrays) if self.names else []
        if not self._kept:
            self._kept = [
                FrameScratch(self.folder / f"labels_{number}", (0, *channel.shape[1:3]))
                for number, channel in enumerate(channels)
            ]
        for scratch, channel in zip(self._kept, channels, strict=True):
            scratch.append(channel)

    def write(self, frames: Frames, arrays: Sequence[Array] | None = None) -> list[Path]:
        """Write the files.

        Args:
            frames: the image.
            arrays: results (B, Y, X, C); None for the label images that were kept.

        Raises:
            InvalidImage: an image with all channels needs more memory than a job is allowed.
            ModelMismatch: there are no label images, or they have another size than the image.
        """
        if not self.names:
            return []
        if arrays is None:
            reads = [whole_frames(scratch.read) for scratch in self._kept]
            shape_yx = self._kept[0].shape[1:] if self._kept else frames.shape[1:3]
        else:
            channels = label_channels(arrays)
            reads = [whole_frames(channel.__getitem__) for channel in channels]
            shape_yx = channels[0].shape[1:3] if channels else frames.shape[1:3]
        if shape_yx != frames.shape[1:3]:
            raise self._refused(f"label images of {shape_yx[0]} x {shape_yx[1]} px")
        picture = whole_frames(lambda frame: frames.read(frame, frame + 1)[0, ..., 0])
        with self.all_channels(frames) as whole:
            grey = None if whole is None else whole_frames(lambda frame: whole.read(frame, frame + 1)[0])
            calibration = frames.calibration.fitting(frames.shape[0])
            images = [
                LabelImages(
                    frames.shape[:3], read, grey, picture, calibration=calibration, confidence=self._confidence(plane)
                )
                for plane, read in enumerate(reads)
            ]
            return self._write(images)

    def write_planes(self, planes: Sequence[TiledPlane], image: _Windows, whole: _Windows) -> list[Path]:
        """Write the files of an image that was processed in parts.

        Args:
            planes: of the result.
            image: with the channels of the job.
            whole: with all channels.
        """
        side = _WINDOW_PX
        tile_px = planes[0].tile_px if planes else side
        while side > tile_px and 4 * whole.shape[3] * side * side > _WINDOW_BYTES:
            side //= 2
        side = max(side // tile_px, 1) * tile_px

        def grey(frame: int, window: Window) -> Array:
            return np.asarray(whole.read(frame, window)[0])

        def picture(frame: int, window: Window) -> Array:
            return np.asarray(image.read(frame, window)[0, ..., 0])

        measured = None if self.confidences is None else grey
        images = [
            LabelImages(
                plane.shape, _tile_reader(plane), measured, picture, side, image.calibration,
                confidence=self._confidence(number),
            )
            for number, plane in enumerate(plane for plane in planes if plane.dtype.kind in "iu")
        ]  # fmt: skip
        return self._write(images) if self.names else []

    def _write(self, images: Sequence[LabelImages]) -> list[Path]:
        if not images:
            raise self._refused("no label image")
        files = [
            path
            for number, each in enumerate(images)
            for path in write_outputs(self.names, each, self.stem, number=number, tick=lambda _: wanted.check())
        ]
        if self._job.compartment == "both" and len(images) == 2 and self.confidences is not None:
            cells, nuclei = images
            files.append(write_matches(cells, nuclei, self.stem.with_name(f"{self.stem.name}{MATCHED}")))
        return files

    def _confidence(self, plane: int) -> Callable[[int], Array]:
        """Return what gives the confidences of the objects in a frame of one of the label images, by label."""
        known = self.confidences or []

        def of_frame(frame: int) -> Array:
            planes = known[frame] if frame < len(known) else []
            return planes[plane] if plane < len(planes) else np.zeros(0, np.float32)

        return of_frame

    @contextmanager
    def all_channels(self, frames: Frames) -> Iterator[Frames | None]:
        """Open the image of the job again, with all channels; None if the outputs measure none.

        Raises:
            InvalidImage: it needs more memory than a job is allowed.
        """
        if self.confidences is None:
            yield None
            return
        job = self._job.with_fields(channels="")
        with open_whole(self._path, job, self._options.limits) as whole:
            _, height, width, channels = whole.shape
            why = f"{channels} channel(s) of {height} x {width} px, whose grey values are measured"
            held = 8 * height * width * channels + whole.kept_bytes
            check_needed(frames.name, held, self._options.max_job_bytes, why)
            yield whole

    def _refused(self, what: str) -> ModelMismatch:
        return ModelMismatch(
            f"{shown_name(self._job.original_name)}: field outputs: model and functions make {what}; leave the field "
            "empty, or name a function that makes label images in postprocess_function, e.g. deep_watershed",
            job_id=self._job.id,
        )


class _Windows(Protocol):
    """An image that is read in windows, such as `WindowedImage`."""

    @property
    def shape(self) -> tuple[int, int, int, int]: ...
    @property
    def calibration(self) -> Calibration: ...
    def read(self, frame: int, window: Window, /) -> Array: ...


def _tile_reader(plane: TiledPlane) -> Read:
    """Return windows of a plane that is given in tiles."""
    tile, side = lru_cache(maxsize=_KEPT_TILES)(plane.tile), plane.tile_px

    def read(frame: int, window: Window) -> Array:
        wanted.check()
        rows, columns = window
        result = np.zeros((rows.stop - rows.start, columns.stop - columns.start), plane.dtype)
        for row in range(rows.start // side, -(-rows.stop // side)):
            for column in range(columns.start // side, -(-columns.stop // side)):
                pixels = tile(frame, row, column)
                top, left = row * side, column * side
                part = pixels[
                    max(rows.start - top, 0) : rows.stop - top, max(columns.start - left, 0) : columns.stop - left
                ]
                y, x = max(top - rows.start, 0), max(left - columns.start, 0)
                result[y : y + part.shape[0], x : x + part.shape[1]] = part
        return result

    return read


def wanted_outputs(job: Job, known: Sequence[str] = CELL_OUTPUTS) -> list[str]:
    """Return the additional files that a job names in its field ``outputs``, joined by commas, each once.

    Args:
        job: the job.
        known: what jobs of its kind have. ``all`` stands for all of them that the worker can write.

    Raises:
        InvalidJob: a name is unknown, or the worker lacks the library for it.
    """
    names = list(dict.fromkeys(part.strip().lower() for part in job.get("outputs").split(",") if part.strip()))
    unknown = [name for name in names if name not in (*known, ALL)]
    if unknown:
        raise InvalidJob(
            f"field outputs: {quoted(', '.join(unknown))} is unknown; give some of {', '.join(known)}, or all",
            job_id=job.id,
        )
    has_parquet = find_spec("pyarrow") is not None
    if "parquet" in names and not has_parquet:
        raise InvalidJob(
            "field outputs: parquet needs a library that the worker lacks; ask for table, or install "
            "kiosk-redis-consumer[parquet] there",
            job_id=job.id,
        )
    return [name for name in known if name != "parquet" or has_parquet] if ALL in names else names
