"""Reads the frames of a movie from a TIFF, a zip of frames or a track file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from redis_consumer import wanted
from redis_consumer.consumers import defaults
from redis_consumer.consumers.frames import HELD_TIMES, check_needed, frames_for
from redis_consumer.consumers.results import shown_name
from redis_consumer.errors import InvalidImage
from redis_consumer.job import Job

if TYPE_CHECKING:
    from redis_consumer.serving.base import Array

TRACK_SUFFIXES = (".trk", ".trks")
FRAME_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".bmp", ".gif", ".pgm", ".npy")
SUFFIXES = (".tif", ".tiff", ".zip", *TRACK_SUFFIXES)


@dataclass(frozen=True)
class Movie:
    """An opened movie whose frames are read one by one.

    Attributes:
        shape: (T, Y, X).
        read: takes the number of a frame and gives its image, (Y, X) float32.
        labels: the same for its segmentation, (Y, X) integers; None where there is none yet.
    """

    shape: tuple[int, int, int]
    read: Callable[[int], Array]
    labels: Callable[[int], Array] | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def images(self) -> Iterator[Array]:
        """All frames, one after the other."""
        return map(self.read, range(len(self)))


@contextmanager
def open_movies(job: Job, path: Path, folder: Path) -> Iterator[list[Movie]]:
    """Open the movies of a job's input: one, or all of a ``.trks`` file.

    Args:
        job: which channel to take, the first by default, and the name for messages.
        path: the local file.
        folder: for what is unpacked.

    Raises:
        InvalidImage: no movie, damaged, larger than the settings allow, or in need of more memory than a job may.
        UnsafeArchive: an archive that must not be unpacked.
    """
    name = shown_name(job.original_name)
    suffix = Path(job.input_file_name.lower()).suffix
    channel = next((index for index in job.channels or () if index is not None), 0)
    if suffix in TRACK_SUFFIXES:
        movies = _track_file_movies(path, name, channel, suffix)
    elif suffix == ".zip":
        movies = [_zip_movie(path, name, channel, folder)]
    else:
        with _tiff_movie(job, path, name, channel) as movie:
            yield [_checked(movie, name)]
        return
    yield [_checked(movie, name) for movie in movies]


@contextmanager
def _tiff_movie(job: Job, path: Path, name: str, channel: int) -> Iterator[Movie]:
    """A movie of one frame in memory at a time. Of three axes the first is time, whatever the file calls it."""
    from redis_consumer.images.regions import open_regions

    options: dict[str, Any] = {"name": name, "channels": [channel], "max_frames": int(defaults.get("MAX_IMAGE_FRAMES"))}
    order = job.dimension_order
    if not order:
        with open_regions(path, name=name) as image:
            order = "BXY" if image.shape[0] == 1 and image.shape[3] > 1 else ""
    with open_regions(path, dimension_order=order, **options) as image:
        frames, height, width, _ = image.shape
        _check_memory(name, (frames, height, width))
        everything = (slice(0, height), slice(0, width))
        yield Movie((frames, height, width), lambda number: image.read(number, everything)[0, ..., 0])


def _zip_movie(path: Path, name: str, channel: int, folder: Path) -> Movie:
    """A movie of one file a frame, in the order of their names; numbers in names count as numbers."""
    from redis_consumer.archives import ArchiveLimits, iter_members
    from redis_consumer.images import check_frames

    frames = int(defaults.get("MAX_IMAGE_FRAMES"))
    limits = ArchiveLimits(int(defaults.get("MAX_ARCHIVE_BYTES")), int(defaults.get("MAX_ARCHIVE_MEMBERS")))
    unpacked = folder / "frames"
    unpacked.mkdir()
    members = iter_members(path, unpacked, label=name, why_skipped=_why_no_frame, limits=limits)
    found: list[tuple[str, Path]] = []
    for member in members:
        if member.path is not None:
            found.append((member.name, member.path))
            check_frames(len(found), frames, name)
    if not found:
        raise InvalidImage(f"{name}: holds no images; pack the frames as image files, e.g. t001.tif")
    files = [path for _, path in sorted(found, key=lambda each: natural(each[0]))]
    first = _read_frame(files[0], channel)

    def read(number: int) -> Array:
        frame = _read_frame(files[number], channel)
        if frame.shape != first.shape:
            raise InvalidImage(
                f"{name}: frame {files[number].name} has {frame.shape[0]} x {frame.shape[1]} pixels, the first "
                f"one {first.shape[0]} x {first.shape[1]}; pack frames of one size"
            )
        return frame

    return Movie((len(files), *first.shape), read)


def _why_no_frame(name: str) -> str:
    return "" if Path(name).suffix.lower() in FRAME_SUFFIXES else "is no image by its name"


def _read_frame(path: Path, channel: int) -> Array:
    from redis_consumer.images import ImageLimits, batch_shape, open_image, select_channels, to_batch

    with open_image(path, limits=ImageLimits(), name=path.name) as opened:
        count, height, width, _ = batch_shape(opened.source.shape, opened.source.axes, "", path.name)
        # The file's pixels, and all channels as float32 twice.
        _check_memory(path.name, (count, height, width), 3 * 4 * prod(opened.source.shape))
        batch = to_batch(opened.read())
    if len(batch) != 1:
        raise InvalidImage(f"{path.name}: holds {len(batch)} frames; pack one frame a file, or upload a TIFF by itself")
    frame: Array = select_channels(batch, [channel], path.name)[0, ..., 0]
    return frame


def _track_file_movies(path: Path, name: str, channel: int, suffix: str) -> list[Movie]:
    from redis_consumer.images import check_frames
    from redis_consumer.tracking.track_file import read_track_file

    def check_memory(held: int, shape: tuple[int, ...]) -> None:
        if len(shape) in (4, 5) and all(shape):
            _check_memory(name, (shape[-4], shape[-3], shape[-2]), held)

    movies = []
    file = wanted.wait_for(lambda: read_track_file(path, name=f"{Path(name).stem}{suffix}", check_memory=check_memory))
    for raw, labels in file.movies():
        if channel >= raw.shape[-1]:
            raise InvalidImage(f"{name}: has {raw.shape[-1]} channels, none is {channel}; correct the field channels")
        check_frames(len(raw), int(defaults.get("MAX_IMAGE_FRAMES")), name)
        movies.append(_array_movie(raw[..., channel], labels))
    return movies


def _array_movie(raw: Array, labels: Array) -> Movie:
    return Movie(raw.shape, lambda number: raw[number].astype(np.float32), lambda number: labels[number])


def _check_memory(name: str, shape: tuple[int, int, int], kept: int = 0) -> None:
    """Refuse a movie that needs more memory than a job may, before its pixels are read.

    Args:
        name: the scientist's name of the file.
        shape: (T, Y, X).
        kept: bytes that are held besides the frames that are worked on at once.
    """
    frames, height, width = shape
    held = 4 * height * width * min(frames, frames_for((height, width, 1)))
    check_needed(
        name,
        HELD_TIMES * held + kept,
        defaults.max_job_bytes(),
        f"{HELD_TIMES} x {held / 1e6:.1f} MB for frames of {height} x {width} px, {kept / 1e6:.0f} MB for what is read "
        "at once",
    )


def _checked(movie: Movie, name: str) -> Movie:
    limits = int(defaults.get("MAX_IMAGE_HEIGHT")), int(defaults.get("MAX_IMAGE_WIDTH"))
    if movie.shape[1] > limits[0] or movie.shape[2] > limits[1]:
        raise InvalidImage(
            f"{name}: frames of {movie.shape[1]} x {movie.shape[2]} px, allowed are {limits[0]} x {limits[1]} "
            "(MAX_IMAGE_HEIGHT, MAX_IMAGE_WIDTH); crop them or ask for a higher limit"
        )
    return movie


def natural(path: str) -> list[tuple[int, str]]:
    """Key by which ``t2`` comes before ``t10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", path) if part]
