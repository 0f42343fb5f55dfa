"""Opens the image of a job, and reads its frames in groups, so that memory doesn't grow with their number."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from redis_consumer.errors import InvalidImage, InvalidJob
from redis_consumer.images import batch_shape, check_frames, open_image, to_batch
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.channels import Choice, Picks, choose, combine, look
from redis_consumer.images.image import calibration_of
from redis_consumer.images.planes import NotWindowedError
from redis_consumer.images.reading import OpenedImage
from redis_consumer.images.windows import WindowedImage, is_large, open_windowed
from redis_consumer.job import Job
from redis_consumer.options import ImageLimits
from redis_consumer.processing.tiled import Planned
from redis_consumer.segmentation.z_planes import limits_of_planes, projection_of
from redis_consumer.serving.base import Array
from redis_consumer.text import shown_name

#: What to do with an image that is too large for a format that is read at once.
WAY_OUT = "save it as TIFF, which is processed in parts"
#: Largest memory of a job, in float32 bytes of a group of frames with all channels, without a model's call.
HELD_TIMES = 12
#: Largest size of a group of frames, in float32 bytes. A larger frame is a group of one.
GROUP_BYTES = 16 << 20


@dataclass(frozen=True)
class Frames:
    """Images of one shape, which are read when they are used.

    Attributes:
        shape: (B, Y, X, C) of all.
        read: takes the first frame and the one after the last; returns them as (b, Y, X, C) float32.
        name: the user's name for the file, for messages.
        kept_bytes: additional memory for a file that must be read at once.
        pixel_size_um: side of a pixel in micrometres, None if the file doesn't say or pixels aren't square.
        pixel_yx_um: height and width of a pixel in micrometres, None if the file doesn't say.
        calibration: axes of the frames and sizes in the file.
        axes_read: how the axes were read, for the job's field.
        channels_read: which channels were chosen, for the job's field.
        notes: what the user should know about the pixels, for the job's field ``warning``.
    """

    shape: tuple[int, int, int, int]
    read: Callable[[int, int], Array]
    name: str = "image"
    kept_bytes: int = 0
    pixel_size_um: float | None = None
    pixel_yx_um: tuple[float, float] | None = None
    calibration: Calibration = field(default_factory=Calibration)
    axes_read: str = ""
    channels_read: str = ""
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, batch: Array) -> Frames:
        """The frames of an array (B, Y, X, C)."""
        frames, height, width, channels = batch.shape
        return cls((frames, height, width, channels), lambda start, stop: batch[start:stop])

    @property
    def fields(self) -> dict[str, str]:
        """The job's fields that say how the image was read."""
        return {"axes_read": self.axes_read, "channels_read": self.channels_read}

    def all(self) -> Array:
        """All frames."""
        return self.read(0, self.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of all frames as float32."""
        return 4 * prod(self.shape)

    def check_memory(self, held: int, call: int, limit: int, scale: float = 1.0) -> None:
        """Refuse an image that needs more memory than a job is allowed, before its pixels are read.

        Args:
            held: float32 bytes of the frames that are processed at once.
            call: bytes that one call of the model takes.
            limit: bytes that the job is allowed.
            scale: factor by which the image is resized.

        Raises:
            InvalidImage: it needs more.
        """
        height, width, channels = self.shape[1:]
        scaled = f" at scale {scale:g}" if scale != 1 else ""
        check_needed(
            self.name,
            HELD_TIMES * held + call + self.kept_bytes,
            limit,
            f"{HELD_TIMES} x {held / 1e6:.1f} MB for frames of {height} x {width} px with {channels} channel(s)"
            f"{scaled}, "
            f"{call / 1e6:.0f} MB for a call of the model, {self.kept_bytes / 1e6:.0f} MB for a stack that is held "
            "whole",
        )

    def groups(self, size: int = 0) -> list[range]:
        """Divide the frames.

        Args:
            size: frames of a group; 0 for as many as fit into `GROUP_BYTES`.
        """
        count = self.shape[0]
        step = size or frames_for(self.shape[1:])
        return [range(start, min(start + step, count)) for start in range(0, count, step)]

    def parts(self) -> Iterator[Array]:
        """All frames, group by group."""
        return (self.read(group.start, group.stop) for group in self.groups())


def check_needed(name: str, needed: int, limit: int, why: str) -> None:
    """Refuse an input that needs more memory than a job is allowed, before its pixels are read.

    Args:
        name: the user's name for the file.
        needed: bytes that the job would need.
        limit: bytes that it is allowed.
        why: description of what takes them.

    Raises:
        InvalidImage: it needs more.
    """
    if needed > limit:
        raise InvalidImage(
            f"{name}: needs about {needed / 1e6:.0f} MB of memory, allowed are {limit / 1e6:.0f} MB (MAX_JOB_MB). "
            f"These are {why}; crop the image, give a smaller scale, name fewer channels in field channels, or give "
            "the worker more memory or fewer slots"
        )


def frames_for(shape: tuple[int, int, int], planned: Planned | None = None) -> int:
    """Return the number of frames in a group, 1 or more.

    Args:
        shape: (Y, X, C) of a frame.
        planned: the plan for one frame. If it is a single tile, a group fills the calls.
    """
    height, width, channels = shape
    count = max(1, GROUP_BYTES // (4 * height * width * channels))
    if planned is None or len(planned.plan) > 1 or count < planned.batch_size:
        return count
    return count // planned.batch_size * planned.batch_size


def joined(groups: Iterator[list[Array]], count: int) -> list[Array]:
    """Join the results of groups, (b, Y, X, C) each, to the result of all `count` frames."""
    first = next(groups)
    if len(first[0]) == count:
        return first
    results = [np.empty((count, *array.shape[1:]), array.dtype) for array in first]
    done = _put(first, results, 0)
    del first
    while done < count:
        # Bound to no name, since the next group would be computed beside it.
        done = _put(next(groups), results, done)
    return results


def _put(group: list[Array], results: list[Array], start: int) -> int:
    """Copy the results of a group to their place; return where the next group starts."""
    for result, array in zip(results, group, strict=True):
        result[start : start + len(array)] = array
    return start + len(group[0])


@contextmanager
def open_frames(
    path: Path,
    job: Job,
    limits: ImageLimits,
    *,
    takes_parts: bool,
    takes: int | None = None,
    is_required: bool = False,
    max_job_bytes: int = sys.maxsize,
) -> Iterator[Frames | None]:
    """Open an image as (B, Y, X, C) float32, with the channels for its model. Pixels are read when they are used.

    Args:
        path: the downloaded file, or the folder of an OME-Zarr.
        job: names the axes and channels.
        limits: largest size of a frame, and number of frames.
        takes_parts: whether an image larger than memory can be processed part by part.
        takes: number of channels that the model takes, see `redis_consumer.images.channels.choose`.
        is_required: as for `choose`.
        max_job_bytes: bytes that the job is allowed, for pixels that are looked at to choose a channel.

    Yields:
        None if the image must be processed part by part: it is too large but can be read in windows, or is an OME-Zarr.

    Raises:
        InvalidImage: as `redis_consumer.images.read_image`; or it can only be processed part by part, but `takes_parts`
            is False.
        InvalidJob: the job names channels or axes that don't exist.
    """
    named = channels_of(job)
    frames = None
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(
                _opened(path, job, limits, way_out=WAY_OUT if takes_parts else "", max_job_bytes=max_job_bytes)
            )
            frames = opened.frames(opened.choice(named, takes=takes, is_required=is_required), stack)
        except IsADirectoryError as error:
            if not takes_parts:
                raise InvalidImage(
                    f"{shown_name(job.original_name)}: is an OME-Zarr, which this consumer can't take; save it as TIFF"
                ) from error
        except InvalidImage:
            if not (takes_parts and is_large(path, limits, job.dimension_order, job.field_of_view)):
                raise
        yield frames


@contextmanager
def open_whole(path: Path, job: Job, limits: ImageLimits) -> Iterator[Frames]:
    """Open an image like `open_frames`, but never to be processed part by part; all channels if the job names none."""
    with _opened(path, job, limits) as opened, ExitStack() as stack:
        yield opened.frames(opened.choice(channels_of(job)), stack)


@contextmanager
def open_whole_frames(path: Path, job: Job, limits: ImageLimits, max_job_bytes: int) -> Iterator[Frames]:
    """Open an image like `open_frames`, for consumers that need each frame whole.

    Args:
        path: the downloaded file.
        job: names the axes and channels.
        limits: largest size of a frame, and number of frames.
        max_job_bytes: largest memory that a job can take.

    Raises:
        InvalidImage: as `open_frames`; or a frame is too large, or the file is an OME-Zarr.
        InvalidJob: as `open_frames`.
    """
    with open_frames(path, job, limits, takes_parts=True) as frames:
        if frames is None:
            raise InvalidImage(
                f"{shown_name(job.original_name)}: is an OME-Zarr or larger than {limits.max_height} x "
                f"{limits.max_width} px (MAX_IMAGE_HEIGHT, MAX_IMAGE_WIDTH); save parts of it as TIFF"
            )
        frames.check_memory(4 * prod(frames.shape[1:]), 0, max_job_bytes)
        yield frames


def _projected(frames: Frames, job: Job, limits: ImageLimits) -> Frames:
    """Return the frames that a job wants of an image, see `projection_of`."""
    projection = projection_of(job, frames.calibration, frames.shape[0], frames.name, frames.axes_read)
    if projection is None:
        return frames
    check_frames(len(projection.planes), limits.max_frames, frames.name, frames.axes_read)
    kept: list[Array] = []

    def plane(number: int) -> Array:
        if frames.nbytes > GROUP_BYTES:
            return frames.read(number, number + 1)
        if not kept:
            kept.append(frames.all())
        return kept[0][number : number + 1]

    def read(start: int, stop: int) -> Array:
        return np.concatenate([projection.frame(number, plane) for number in range(start, stop)])

    shape = (len(projection.planes), *frames.shape[1:])
    return replace(frames, shape=shape, read=read, calibration=projection.calibration)


@contextmanager
def _opened(
    path: Path, job: Job, limits: ImageLimits, *, way_out: str = "", max_job_bytes: int = sys.maxsize
) -> Iterator[_Opened]:
    with open_image(
        path,
        limits=limits_of_planes(job, limits),
        name=shown_name(job.original_name),
        dimension_order=job.dimension_order,
        field=job.field_of_view,
        way_out=way_out,
    ) as image:
        yield _Opened(image, path, job, limits, max_job_bytes)


@dataclass(frozen=True)
class _Opened:
    """An opened image, its file, the job and limits."""

    image: OpenedImage
    path: Path
    job: Job
    limits: ImageLimits
    max_job_bytes: int

    def choice(
        self, named: Sequence[int | str | None] | None, *, takes: int | None = None, is_required: bool = False
    ) -> Choice:
        """Choose the channels, see `redis_consumer.images.channels.choose`."""
        channels = self.image.source.all_channels
        return choose(named, channels, self.image.name, takes=takes, is_required=is_required)

    def frames(self, choice: Choice, stack: ExitStack) -> Frames:
        """Return the frames that the job wants, which are read in groups if there are many and the file allows it."""
        return _projected(self._planes(choice, stack), self.job, self.limits)

    def _planes(self, choice: Choice, stack: ExitStack) -> Frames:
        source, name = self.image.source, self.image.name
        count, height, width, channels = batch_shape(source.shape, source.axes, "", name)
        _check_held((count, height, width, channels), len(choice.picks), self.limits, name)
        shape, file_bytes = (count, height, width, len(choice.picks)), 4 * prod(source.shape)
        frames = Frames(
            shape,
            self._part(choice.picks),
            name,
            pixel_size_um=source.pixel_size_um,
            pixel_yx_um=source.pixel_yx_um,
            calibration=replace(calibration_of(source), channel=choice.names),
            axes_read=source.reading,
            channels_read=choice.text,
            notes=self.image.notes,
        )
        if len(frames.groups()) == 1 and file_bytes <= max(frames.nbytes, GROUP_BYTES):
            return self._looked(frames, choice) if choice.seen else frames
        windowed = self._windowed(stack)
        if windowed is None:
            frames = self._looked(frames, choice) if choice.seen else frames
            return replace(frames, read=_once(frames.read, count), kept_bytes=file_bytes)
        if choice.seen:
            choice = choice.decided(windowed.seen(choice.seen), name)
        read = partial(_read_frames, windowed.picked(choice.picks))
        calibration = replace(frames.calibration, channel=choice.names)
        return replace(frames, read=read, channels_read=choice.text, calibration=calibration, notes=windowed.notes)

    def _part(self, picks: Picks) -> Callable[[int, int], Array]:
        def read(start: int, stop: int) -> Array:
            return combine(to_batch(self.image.read()), picks)[start:stop]

        return read

    def _looked(self, frames: Frames, choice: Choice) -> Frames:
        """The same frames after a look at the pixels, which are kept for the first time that they are read."""
        held = 4 * prod(self.image.source.shape)
        check_needed(frames.name, 3 * held, self.max_job_bytes, f"3 x {held / 1e6:.1f} MB to look at all channels")
        batch = to_batch(self.image.read())
        choice = choice.decided(look([batch[..., list(choice.seen)]], len(choice.seen)), frames.name)
        kept = [combine(batch, choice.picks)]
        again = self._part(choice.picks)

        def read(start: int, stop: int) -> Array:
            return kept.pop()[start:stop] if kept else again(start, stop)

        calibration = replace(frames.calibration, channel=choice.names)
        return replace(frames, read=read, channels_read=choice.text, calibration=calibration)

    def _windowed(self, stack: ExitStack) -> WindowedImage | None:
        """Open the file to read frames one by one; None for a file that must be read at once."""
        try:
            order, field = self.job.dimension_order, self.job.field_of_view
            opened = open_windowed(self.path, name=self.image.name, dimension_order=order, field=field)
            return stack.enter_context(opened)
        except NotWindowedError:
            return None


def _read_frames(image: WindowedImage, start: int, stop: int) -> Array:
    everything = (slice(0, image.shape[1]), slice(0, image.shape[2]))
    if stop == start + 1:
        return image.read(start, everything)
    batch = np.empty((stop - start, *image.shape[1:]), np.float32)
    for place, number in enumerate(range(start, stop)):
        batch[place] = image.read(number, everything)[0]
    return batch


def _once(whole: Callable[[int, int], Array], count: int) -> Callable[[int, int], Array]:
    """Return the same function, but read the file only the first time."""
    kept: list[Array] = []

    def read(start: int, stop: int) -> Array:
        if not kept:
            kept.append(whole(0, count))
        return kept[0][start:stop]

    return read


def _check_held(shape: tuple[int, int, int, int], named: int, limits: ImageLimits, name: str) -> None:
    """Refuse an image that becomes too large by repeated channels."""
    frames, height, width, channels = shape
    held = frames * height * width * named * np.dtype(np.float32).itemsize
    if named > channels and held > limits.max_bytes:
        raise InvalidImage(
            f"{name}: field channels names {named} channels of {channels}, which take {held >> 20} MiB, allowed are "
            f"{limits.max_bytes >> 20} MiB; name each channel once"
        )


def channels_of(job: Job) -> tuple[int | str | None, ...] | None:
    """Return the channels that a job names, by index or name, with None for empty places; None if it names no field.

    Raises:
        InvalidJob: all places are empty.
    """
    if job.channels is not None and not any(each is not None for each in job.channels):
        raise InvalidJob(f"field channels: {job.get('channels')!r} names none; give an index, e.g. 0", job_id=job.id)
    return job.channels
