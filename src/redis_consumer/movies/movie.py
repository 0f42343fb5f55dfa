"""Reads the frames of a movie from an image file, a zip of frames or a track file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
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
from redis_consumer.images.axes import FROM_JOB, FROM_SHAPE, as_read
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.channels import Channel, Channels, Choice, choose, combine, look
from redis_consumer.images.image import calibration_of
from redis_consumer.images.ome_zarr import is_ome_zarr
from redis_consumer.images.windows import open_windowed
from redis_consumer.job import Job
from redis_consumer.options import MovieLimits
from redis_consumer.segmentation.frames import HELD_TIMES, check_needed, frames_for
from redis_consumer.segmentation.z_planes import ProjectedImage, Projection, projection_of
from redis_consumer.serving.base import Array
from redis_consumer.text import shown_name
from redis_consumer.tracking.track_file import read_track_file

TRACK_SUFFIXES = (".trk", ".trks")
FRAME_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2", ".bmp", ".gif", ".pgm", ".npy")
SUFFIXES = (
    ".tif", ".tiff", ".btf", ".tf8", ".lsm", ".stk", ".npy", ".zarr", ".ozx", ".czi", ".nd2", ".lif", ".zip",
    *TRACK_SUFFIXES,
)  # fmt: skip


@dataclass(frozen=True)
class Movie:
    """An opened movie whose frames are read one by one.

    Attributes:
        shape: (T, Y, X).
        read: takes the number of a frame and returns its image, (Y, X) float32.
        labels: the same for its segmentation, (Y, X) integers; None if there is none yet.
        calibration: sizes that the file says.
        channel: number of the channel in the file.
        fields: the job's fields that say how axes and channels were read.
    """

    shape: tuple[int, int, int]
    read: Callable[[int], Array]
    labels: Callable[[int], Array] | None = None
    calibration: Calibration = field(default_factory=Calibration)
    channel: int = 0
    fields: Mapping[str, str] = field(default_factory=dict)

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
    file = _MovieFile(path, shown_name(job.original_name), job, limits)
    suffix = Path(job.input_file_name.lower()).suffix
    if suffix in TRACK_SUFFIXES:
        yield file.open_track_file(suffix)
    elif suffix == ".zip" and not is_ome_zarr(path):
        yield [file.open_zip(folder)]
    else:
        with file.open_file() as movie:
            yield [movie]


@dataclass(frozen=True)
class _MovieFile:
    """The file of a movie, with the selected channel and the user's name for it."""

    path: Path
    name: str
    job: Job
    limits: MovieLimits

    @property
    def named(self) -> tuple[int | str, ...] | None:
        """The first channel that the job names; None if it names none."""
        named = [each for each in self.job.channels or () if each is not None]
        return tuple(named[:1]) or None

    @contextmanager
    def open_file(self) -> Iterator[Movie]:
        """Open a movie in one file, with one frame in memory at a time.

        T is time, and so is B, an axis of frames that neither job nor file names. If nothing names the axes, an axis
        before rows and columns is time, however short it is.
        """
        options: dict[str, Any] = {"name": self.name, "field": self.job.field_of_view}
        order, who = self.job.dimension_order, ""
        if not order:
            with open_windowed(self.path, **options) as image:
                axes, by = image.reading.split(" ", 1)
                order = "TYX" if axes == "CYX" and by.endswith(FROM_SHAPE) else ""
                who = FROM_SHAPE if order else ""
        with open_windowed(self.path, **options, dimension_order=order) as opened:
            choice = choose(self.named, opened.channels, self.name, takes=1)
            if choice.seen:
                choice = choice.decided(opened.seen(choice.seen), self.name)
            image = opened.picked(choice.picks, choice.text)
            reading = image.reading.replace(FROM_JOB, who) if who else image.reading
            fields = {"axes_read": reading, "channels_read": choice.text}
            projection = self._over_time(image.calibration, image.shape[0], self.name, image.reading)
            planes = image if projection is None else ProjectedImage(image, projection)
            frames, height, width, _ = planes.shape
            check_frames(frames, self.limits.frames.max_frames, self.name, image.reading)
            self._check_memory((frames, height, width))
            everything = (slice(0, height), slice(0, width))
            shape, channel = (frames, height, width), image.picks[0][0]
            movie = Movie(shape, lambda number: planes.read(number, everything)[0, ..., 0], None, planes.calibration)
            yield self._checked(replace(movie, channel=channel, fields=fields))

    def _over_time(self, calibration: Calibration, frames: int, name: str, reading: str) -> Projection | None:
        """Return how planes become time points; None if each plane is one."""
        time = [letter for letter in calibration.letters if letter != "Z"]
        strange = [letter for letter in time if letter not in "TB"]
        if strange or len(time) > 1:
            axes = " and ".join(strange or time)
            raise InvalidImage(
                f"{name}: has several frames along {axes}, of which at most one can be time; name T in field "
                f"dimension_order, or save one movie {as_read(reading)}"
            )
        if "Z" in calibration.letters and self.job.z in ("each", "link"):
            way_out = "" if time else ", or dimension_order TYX if they are time points"
            raise InvalidImage(
                f"{name}: has planes along Z, which are not time; give field z: max, mean or the number of a plane"
                f"{way_out} {as_read(reading)}"
            )
        is_flat = "Z" not in calibration.letters and self.job.z in ("max", "mean", "link", 0)
        return None if is_flat else projection_of(self.job, calibration, frames, name, reading)

    def open_zip(self, folder: Path) -> Movie:
        """Open a movie with one file per frame, in the order of their names. Numbers in names are compared as
        numbers.
        """
        files = self._unpack(folder / "frames")
        first, choice = self._read_frame(files[0])

        def read(number: int) -> Array:
            frame, _ = self._read_frame(files[number], choice)
            if frame.shape != first.shape:
                raise InvalidImage(
                    f"{self.name}: frame {files[number].name} has {frame.shape[0]} x {frame.shape[1]} pixels, the "
                    f"first one {first.shape[0]} x {first.shape[1]}; pack frames of one size"
                )
            return frame

        return self._checked(
            Movie((len(files), *first.shape), read, channel=choice.picks[0][0], fields={"channels_read": choice.text})
        )

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

    def _read_frame(self, path: Path, choice: Choice | None = None) -> tuple[Array, Choice]:
        """Return a frame, and the channel that is read: that of the first frame, or the one that the job names."""
        with open_image(path, limits=ImageLimits(), name=path.name) as opened:
            source = opened.source
            count, height, width, _ = batch_shape(source.shape, source.axes, "", path.name)
            # The file's pixels, and all channels as float32 twice.
            self._check_memory((count, height, width), 3 * 4 * prod(source.shape), path.name)
            found = choose(self.named, source.all_channels, path.name, takes=1)
            projection = self._over_time(calibration_of(source), count, path.name, source.reading)
            batch = to_batch(opened.read())
        if choice is None:
            choice = (
                found.decided(look([batch[..., list(found.seen)]], len(found.seen)), path.name) if found.seen else found
            )
        if max(max(pick) for pick in choice.picks) >= batch.shape[-1]:
            raise InvalidImage(f"{path.name}: has fewer channels than the first frame; pack frames of one kind")
        planes = combine(batch, choice.picks)[..., 0]
        frames = len(planes) if projection is None else len(projection.planes)
        if frames != 1:
            raise InvalidImage(f"{path.name}: holds {frames} frames; pack one frame a file, or upload a TIFF by itself")
        frame: Array = planes[0] if projection is None else projection.frame(0, planes.__getitem__)
        return frame, choice

    def open_track_file(self, suffix: str) -> list[Movie]:
        """Open the movies of a track file, with their label images."""

        def check_memory(held: int, shape: tuple[int, ...]) -> None:
            if len(shape) in (4, 5) and all(shape):
                self._check_memory((shape[-4], shape[-3], shape[-2]), held)

        stem = Path(self.name).stem
        file = wanted.wait_for(lambda: read_track_file(self.path, name=f"{stem}{suffix}", check_memory=check_memory))
        movies = []
        for raw, labels in file.movies():
            (wanted_channel,) = self.named or (0,)
            channel = Channels((Channel(),) * raw.shape[-1]).index_of(wanted_channel, self.name)
            check_frames(len(raw), self.limits.frames.max_frames, self.name)
            movies.append(self._checked(_array_movie(raw[..., channel], labels, channel)))
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
        return movie


def _array_movie(raw: Array, labels: Array, channel: int) -> Movie:
    return Movie(
        raw.shape, lambda number: raw[number].astype(np.float32), lambda number: labels[number], channel=channel
    )


def _why_no_frame(name: str) -> str:
    return "" if Path(name).suffix.lower() in FRAME_SUFFIXES else "is no image by its name"


def natural(path: str) -> list[tuple[int, str]]:
    """Return a sort key with which ``t2`` comes before ``t10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", path) if part]
