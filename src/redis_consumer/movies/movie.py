"""Reads the frames of a movie from a TIFF, a zip of frames or a track file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from redis_consumer import wanted
from redis_consumer.archives import iter_members
from redis_consumer.errors import InvalidImage
from redis_consumer.images import ImageLimits, batch_shape, check_frames, open_image, to_batch
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.channels import Channel, Channels
from redis_consumer.images.windows import open_windowed
from redis_consumer.job import Job
from redis_consumer.options import MovieLimits
from redis_consumer.segmentation.frames import HELD_TIMES, check_needed, frames_for
from redis_consumer.serving.base import Array
from redis_consumer.text import shown_name
from redis_consumer.tracking.track_file import read_track_file

TRACK_SUFFIXES = (".trk", ".trks")
FRAME_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".bmp", ".gif", ".pgm", ".npy")
SUFFIXES = (".tif", ".tiff", ".zip", *TRACK_SUFFIXES)


@dataclass(frozen=True)
class Movie:
    """An opened movie whose frames are read one by one.

    Attributes:
        shape: (T, Y, X).
        read: takes the number of a frame and returns its image, (Y, X) float32.
        labels: the same for its segmentation, (Y, X) integers; None if there is none yet.
        calibration: sizes that the file says.
        channel: number of the channel in the file.
    """

    shape: tuple[int, int, int]
    read: Callable[[int], Array]
    labels: Callable[[int], Array] | None = None
    calibration: Calibration = field(default_factory=Calibration)
    channel: int = 0

    def __len__(self) -> int:
        return self.shape[0]

    def images(self) -> Iterator[Array]:
        """Yield all frames, one after the other."""
        return map(self.read, range(len(self)))


@contextmanager
def open_movies(job: Job, path: Path, folder: Path, limits: MovieLimits) -> Iterator[list[Movie]]:
    """Open the movies of a job's input: one, or all of a ``.trks`` file.

    Args:
        job: names the channel (the first by default) and the input, for messages.
        path: the local file.
        folder: folder for unpacked files.
        limits: how large it can be.

    Raises:
        InvalidImage: not a movie, damaged, above the limits, or needs more memory than a job is allowed.
        UnsafeArchive: the archive is not safe to unpack.
    """
    channel = next((index for index in job.channels or () if index is not None), 0)
    file = _MovieFile(path, shown_name(job.original_name), channel, limits)
    suffix = Path(job.input_file_name.lower()).suffix
    if suffix in TRACK_SUFFIXES:
        yield file.open_track_file(suffix)
    elif suffix == ".zip":
        yield [file.open_zip(folder)]
    else:
        with file.open_tiff(job.dimension_order) as movie:
            yield [movie]


@dataclass(frozen=True)
class _MovieFile:
    """The file of a movie, with the selected channel and the user's name for it."""

    path: Path
    name: str
    channel: int | str
    limits: MovieLimits

    @contextmanager
    def open_tiff(self, order: str) -> Iterator[Movie]:
        """Open a movie with one frame in memory at a time. Of three axes, the first is time, whatever its name in the
        file is.
        """
        if not order:
            with open_windowed(self.path, name=self.name) as image:
                order = "BXY" if image.shape[0] == 1 and image.shape[3] > 1 else ""
        options: dict[str, Any] = {"channels": [self.channel], "max_frames": self.limits.frames.max_frames}
        with open_windowed(self.path, dimension_order=order, name=self.name, **options) as image:
            frames, height, width, _ = image.shape
            self._check_memory((frames, height, width))
            everything = (slice(0, height), slice(0, width))
            movie = Movie((frames, height, width), lambda number: image.read(number, everything)[0, ..., 0])
            yield self._checked(replace(movie, calibration=image.calibration, channel=image.picks[0][0]))

    def open_zip(self, folder: Path) -> Movie:
        """Open a movie with one file per frame, in the order of their names. Numbers in names are compared as
        numbers.
        """
        files = self._unpack(folder / "frames")
        first = self._read_frame(files[0])

        def read(number: int) -> Array:
            frame = self._read_frame(files[number])
            if frame.shape != first.shape:
                raise InvalidImage(
                    f"{self.name}: frame {files[number].name} has {frame.shape[0]} x {frame.shape[1]} pixels, the "
                    f"first one {first.shape[0]} x {first.shape[1]}; pack frames of one size"
                )
            return frame

        return self._checked(Movie((len(files), *first.shape), read))

    def _unpack(self, folder: Path) -> list[Path]:
        folder.mkdir()
        found: list[tuple[str, Path]] = []
        for member in iter_members(
            self.path, folder, label=self.name, why_skipped=_why_no_frame, limits=self.limits.archive
        ):
            if member.path is not None:
                found.append((member.name, member.path))
                check_frames(len(found), self.limits.frames.max_frames, self.name)
        if not found:
            raise InvalidImage(f"{self.name}: holds no images; pack the frames as image files, e.g. t001.tif")
        return [path for _, path in sorted(found, key=lambda each: natural(each[0]))]

    def _read_frame(self, path: Path) -> Array:
        with open_image(path, limits=ImageLimits(), name=path.name) as opened:
            count, height, width, _ = batch_shape(opened.source.shape, opened.source.axes, "", path.name)
            # The file's pixels, and all channels as float32 twice.
            self._check_memory((count, height, width), 3 * 4 * prod(opened.source.shape), path.name)
            channel = opened.source.all_channels.index_of(self.channel, path.name)
            batch = to_batch(opened.read())
        if len(batch) != 1:
            raise InvalidImage(
                f"{path.name}: holds {len(batch)} frames; pack one frame a file, or upload a TIFF by itself"
            )
        frame: Array = batch[0, ..., channel]
        return frame

    def open_track_file(self, suffix: str) -> list[Movie]:
        """Open the movies of a track file, with their label images."""

        def check_memory(held: int, shape: tuple[int, ...]) -> None:
            if len(shape) in (4, 5) and all(shape):
                self._check_memory((shape[-4], shape[-3], shape[-2]), held)

        stem = Path(self.name).stem
        file = wanted.wait_for(lambda: read_track_file(self.path, name=f"{stem}{suffix}", check_memory=check_memory))
        movies = []
        for raw, labels in file.movies():
            channel = Channels((Channel(),) * raw.shape[-1]).index_of(self.channel, self.name)
            check_frames(len(raw), self.limits.frames.max_frames, self.name)
            movies.append(self._checked(_array_movie(raw[..., channel], labels)))
        return movies

    def _check_memory(self, shape: tuple[int, int, int], kept: int = 0, name: str = "") -> None:
        """Refuse a movie that needs more memory than a job is allowed, before its pixels are read.

        Args:
            shape: (T, Y, X).
            kept: bytes of memory in addition to the frames that are processed at once.
            name: name of the file, if it is a part of this one.
        """
        frames, height, width = shape
        held = 4 * height * width * min(frames, frames_for((height, width, 1)))
        why = (
            f"{HELD_TIMES} x {held / 1e6:.1f} MB for frames of {height} x {width} px, {kept / 1e6:.0f} MB for what is "
            "read at once"
        )
        check_needed(name or self.name, HELD_TIMES * held + kept, self.limits.max_job_bytes, why)

    def _checked(self, movie: Movie) -> Movie:
        (_, height, width), limits = movie.shape, self.limits.frames
        if height > (limits.max_height or height) or width > (limits.max_width or width):
            raise InvalidImage(
                f"{self.name}: frames of {height} x {width} px, allowed are {limits.max_height} x {limits.max_width} "
                "(MAX_IMAGE_HEIGHT, MAX_IMAGE_WIDTH); crop them or ask for a higher limit"
            )
        return movie if isinstance(self.channel, str) else replace(movie, channel=self.channel)


def _array_movie(raw: Array, labels: Array) -> Movie:
    return Movie(raw.shape, lambda number: raw[number].astype(np.float32), lambda number: labels[number])


def _why_no_frame(name: str) -> str:
    return "" if Path(name).suffix.lower() in FRAME_SUFFIXES else "is no image by its name"


def natural(path: str) -> list[tuple[int, str]]:
    """Return a sort key with which ``t2`` comes before ``t10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", path) if part]
