"""Chooses the files in the result of a movie: always the contract's two, others if the job asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import numpy as np

from redis_consumer.images.scratch import FrameScratch
from redis_consumer.images.writing import write_frames
from redis_consumer.job import Job
from redis_consumer.movies.movie import Movie
from redis_consumer.outputs.cells import LabelImages, Window, whole_frames
from redis_consumer.outputs.files import write_outputs
from redis_consumer.segmentation.cell_outputs import CELL_OUTPUTS, wanted_outputs
from redis_consumer.serving.base import Array
from redis_consumer.text import result_stem
from redis_consumer.tracking.challenge import write_challenge
from redis_consumer.tracking.preview import write_preview
from redis_consumer.tracking.table import write_table
from redis_consumer.tracking.track_file import write_track_file
from redis_consumer.tracking.tracks import Tracking, to_json

T = TypeVar("T")

#: Percentage of progress when all frames are processed; packing and uploading make up the rest.
_LAST = 98


class FrameProgress:
    """Reports the progress of a job by the frames that were processed. Stops a job that was cancelled or lost.

    Args:
        report: takes the finished amount and the total, like `Consumer.report_progress`.
        total: number of frames, each counted as often as it is processed.
        first: percentage of the job that was done before.
    """

    def __init__(self, report: Callable[[int, int], None], total: int, *, first: int = 0) -> None:
        self._report = report
        self._total = total
        self._first = first
        self._done = 0

    def take(self, count: int = 1) -> None:
        """Count frames that were processed."""
        self._done += count
        shown = self._first * self._total + (_LAST - self._first) * min(self._done, self._total)
        self._report(shown, 100 * self._total)

    def counted(self, frames: Iterable[T]) -> Iterator[T]:
        """Count frames as they are taken."""
        for frame in frames:
            self.take()
            yield frame

    def reading(self, read: Callable[[int], T]) -> Callable[[int], T]:
        """Count frames as they are read by their number."""

        def counted(number: int) -> T:
            self.take()
            return read(number)

        return counted


@dataclass(frozen=True)
class TrackResult:
    """A movie and its tracks.

    Attributes:
        movie: the images.
        tracking: its tracks.
        labels: (T, Y, X) uint32, the label of its track in each pixel.
        shifts_px: for each frame, rows and columns by which the scene has moved since the one before.
        progress: counts the frames that are written.
    """

    movie: Movie
    tracking: Tracking
    labels: FrameScratch
    shifts_px: list[tuple[int, int]]
    progress: FrameProgress

    def frames(self) -> Iterator[Array]:
        """The labels, frame by frame."""
        return self.progress.counted(self.labels)

    @property
    def offsets_px(self) -> list[tuple[int, int]]:
        """For each frame, rows and columns by which the scene has moved since the first one."""
        rows, columns = zip(*self.shifts_px, strict=True)
        return list(zip(accumulate(rows), accumulate(columns), strict=True))


def movie_outputs(job: Job) -> list[str]:
    """Return the additional files that the job of a movie names in its field ``outputs``.

    Raises:
        InvalidJob: as `redis_consumer.segmentation.cell_outputs.wanted_outputs`.
    """
    return wanted_outputs(job, (*OUTPUTS, *CELL_OUTPUTS))


def count_passes(job: Job) -> int:
    """Return how often a frame is processed for the additional files of a job. One pass writes all files of cells."""
    wanted = movie_outputs(job)
    return sum(name in OUTPUTS for name in wanted) + any(name in CELL_OUTPUTS for name in wanted)


def write_tracks(result: TrackResult, folder: Path, job: Job) -> list[Path]:
    """Write the files of a result.

    Args:
        result: what to write.
        folder: folder for the files, in the subfolders of the job's ``original_name``.
        job: its name and its ``outputs``.

    Returns:
        The files: ``<name>_feature_0.tif`` (T, Y, X) float32, ``lineage.json``, and the additional files of the job.

    Raises:
        PermanentError: there are more tracks than the files can number.
        OSError: the files can't be written.
    """
    stem = folder / result_stem(job.original_name)
    stem.parent.mkdir(parents=True, exist_ok=True)
    movie = write_frames(result.frames(), result.labels.shape, Path(f"{stem}_feature_0.tif"), result.movie.calibration)
    lineage = folder / "lineage.json"
    lineage.write_text(to_json(result.tracking.tracks))
    files = [movie, lineage]
    wanted = movie_outputs(job)
    for name in wanted:
        files += OUTPUTS[name](result, stem) if name in OUTPUTS else []
    names = [name for name in wanted if name in CELL_OUTPUTS]
    return files + _write_cells(result, names, stem) if names else files


def _write_cells(result: TrackResult, names: list[str], stem: Path) -> list[Path]:
    """Write the files of label images, in which a cell has the number of its track in each frame."""
    labels, picture = whole_frames(result.labels.read), whole_frames(result.movie.read)

    def grey(frame: int, window: Window) -> Array:
        return picture(frame, window)[..., np.newaxis]

    calibration = replace(result.movie.calibration, axes=(("T", len(result.movie)),))
    images = LabelImages(
        result.labels.shape, labels, grey, picture, calibration=calibration, first_channel=result.movie.channel
    )
    return write_outputs(names, images, stem, tick=lambda _: result.progress.take())


def _trk(result: TrackResult, stem: Path) -> list[Path]:
    path = Path(f"{stem}.trk")
    images, tracks = result.movie.images(), result.tracking.tracks
    write_track_file(path, images, result.frames(), tracks, shape=result.movie.shape)
    return [path]


def _challenge(result: TrackResult, stem: Path) -> list[Path]:
    return write_challenge(stem.parent / "01_RES", result.frames(), result.tracking.tracks, len(result.movie))


def _table(result: TrackResult, stem: Path) -> list[Path]:
    path = stem.with_name("tracks.csv")
    write_table(path, result.tracking, result.offsets_px)
    result.progress.take(len(result.movie))
    return [path]


def _preview(result: TrackResult, stem: Path) -> list[Path]:
    path = stem.with_name("tracks.gif")
    write_preview(path, result.progress.counted(result.movie.images()), result.tracking, result.offsets_px)
    return [path]


#: Functions that write additional files, by their names in the job.
OUTPUTS: dict[str, Callable[[TrackResult, Path], list[Path]]] = {
    "trk": _trk,
    "ctc": _challenge,
    "csv": _table,
    "preview": _preview,
}
