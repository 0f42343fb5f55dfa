"""Opens the image of a job, and reads its frames in groups, so that memory doesn't grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path

import numpy as np

from redis_consumer.errors import InvalidImage, InvalidJob
from redis_consumer.images import batch_shape, check_frames, check_indices, open_image, select_channels, to_batch
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.image import calibration_of
from redis_consumer.images.planes import NotWindowedError
from redis_consumer.images.reading import OpenedImage
from redis_consumer.images.windows import is_large, open_windowed
from redis_consumer.job import Job
from redis_consumer.options import ImageLimits
from redis_consumer.processing.tiled import Planned
from redis_consumer.serving.base import Array
from redis_consumer.text import shown_name

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
    """

    shape: tuple[int, int, int, int]
    read: Callable[[int, int], Array]
    name: str = "image"
    kept_bytes: int = 0
    pixel_size_um: float | None = None
    pixel_yx_um: tuple[float, float] | None = None
    calibration: Calibration = field(default_factory=Calibration)

    @classmethod
    def of(cls, batch: Array) -> Frames:
        """The frames of an array (B, Y, X, C)."""
        frames, height, width, channels = batch.shape
        return cls((frames, height, width, channels), lambda start, stop: batch[start:stop])

    def all(self) -> Array:
        """All frames."""
        return self.read(0, self.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of all frames as float32."""
        return 4 * prod(self.shape)

    def check_memory(self, held: int, call: int, limit: int) -> None:
        """Refuse an image that needs more memory than a job is allowed, before its pixels are read.

        Args:
            held: float32 bytes of the frames that are processed at once.
            call: bytes that one call of the model takes.
            limit: bytes that the job is allowed.

        Raises:
            InvalidImage: it needs more.
        """
        height, width, channels = self.shape[1:]
        check_needed(
            self.name,
            HELD_TIMES * held + call + self.kept_bytes,
            limit,
            f"{HELD_TIMES} x {held / 1e6:.1f} MB for frames of {height} x {width} px with {channels} channel(s), "
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
            f"These are {why}; crop the image, name fewer channels in field channels, or give the worker more memory "
            "or fewer slots"
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
    done, group = 0, first
    while True:
        for result, array in zip(results, group, strict=True):
            result[done : done + len(array)] = array
        done += len(group[0])
        if done >= count:
            return results
        group = next(groups)


@contextmanager
def open_frames(path: Path, job: Job, limits: ImageLimits, *, takes_parts: bool) -> Iterator[Frames | None]:
    """Open an image as (B, Y, X, C) float32, with the channels that its job names. Pixels are read when they are used.

    Args:
        path: the downloaded file, or the folder of an OME-Zarr.
        job: names the axes and channels.
        limits: largest size of a frame, and number of frames.
        takes_parts: whether an image larger than memory can be processed part by part.

    Yields:
        None if the image must be processed part by part: it is too large but can be read in windows, or is an OME-Zarr.

    Raises:
        InvalidImage: as `redis_consumer.images.read_image`; or it can only be processed part by part, but `takes_parts`
            is False.
        InvalidJob: the job names channels or axes that don't exist.
    """
    name = shown_name(job.original_name)
    frames = None
    with ExitStack() as stack:
        try:
            frames = stack.enter_context(open_whole(path, job, limits))
        except IsADirectoryError as error:
            if not takes_parts:
                raise InvalidImage(
                    f"{name}: is an OME-Zarr, which this consumer can't take; save it as TIFF"
                ) from error
        except InvalidImage:
            if not (takes_parts and is_large(path, _header_limits(job, limits), job.field_of_view)):
                raise
        yield frames


@contextmanager
def open_whole(path: Path, job: Job, limits: ImageLimits) -> Iterator[Frames]:
    """Open an image like `open_frames`, but never to be processed part by part."""
    name = shown_name(job.original_name)
    with ExitStack() as stack:
        limited = _header_limits(job, limits)
        opened = stack.enter_context(open_image(path, limits=limited, name=name, field=job.field_of_view))
        yield _frames(opened, path, job, limits, stack)


def _header_limits(job: Job, limits: ImageLimits) -> ImageLimits:
    # If the job gives an order of axes, it decides which axes are frames.
    return replace(limits, max_frames=None if job.dimension_order else limits.max_frames)


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


def _frames(opened: OpenedImage, path: Path, job: Job, limits: ImageLimits, stack: ExitStack) -> Frames:
    """Return the frames of an opened image, which are read in groups if there are many and the file allows it."""
    source, name, order = opened.source, opened.name, job.dimension_order
    count, height, width, channels = batch_shape(source.shape, source.axes, order, name)
    check_frames(count, limits.max_frames, name)
    indices = channels_of(job)
    _check_held((count, height, width, channels), len(indices or ()), limits, name)
    if indices is not None:
        check_indices(indices, channels, name)
        channels = len(indices)

    def whole(start: int, stop: int) -> Array:
        batch: Array = to_batch(opened.read(), order)
        return (batch if indices is None else select_channels(batch, indices, name))[start:stop]

    frames = Frames(
        (count, height, width, channels),
        whole,
        name,
        pixel_size_um=source.pixel_size_um,
        pixel_yx_um=source.pixel_yx_um,
        calibration=calibration_of(source, order, name),
    )
    file_bytes = 4 * prod(source.shape)
    if len(frames.groups()) == 1 and file_bytes <= max(frames.nbytes, GROUP_BYTES):
        return frames
    by_frame = _by_frame(path, name, job, indices, stack)
    if by_frame is not None:
        return replace(frames, read=by_frame)
    return replace(frames, read=_once(whole, count), kept_bytes=file_bytes)


def _by_frame(
    path: Path, name: str, job: Job, indices: Sequence[int] | None, stack: ExitStack
) -> Callable[[int, int], Array] | None:
    """Return a function that reads frames one by one; None for a file that must be read at once."""
    try:
        opened = open_windowed(
            path, name=name, dimension_order=job.dimension_order, channels=indices, field=job.field_of_view
        )
        image = stack.enter_context(opened)
    except NotWindowedError:
        return None
    everything = (slice(0, image.shape[1]), slice(0, image.shape[2]))

    def read(start: int, stop: int) -> Array:
        if stop == start + 1:
            return image.read(start, everything)
        batch = np.empty((stop - start, *image.shape[1:]), np.float32)
        for place, number in enumerate(range(start, stop)):
            batch[place] = image.read(number, everything)[0]
        return batch

    return read


def _once(whole: Callable[[int, int], Array], count: int) -> Callable[[int, int], Array]:
    """Return the same function, but read the file only the first time."""
    kept: list[Array] = []

    def read(start: int, stop: int) -> Array:
        if not kept:
            kept.append(whole(0, count))
        return kept[0][start:stop]

    return read


def _check_held(shape: tuple[int, int, int, int], named: int, limits: ImageLimits, name: str) -> None:
    """Refuse an image that becomes too large by the job's fields: by other sides or repeated channels."""
    frames, height, width, channels = shape
    if height > (limits.max_height or height) or width > (limits.max_width or width):
        raise InvalidImage(
            f"{name}: field dimension_order makes frames of {height} x {width} px of it, allowed are "
            f"{limits.max_height} x {limits.max_width} px (MAX_IMAGE_HEIGHT, MAX_IMAGE_WIDTH); correct the field"
        )
    held = frames * height * width * named * np.dtype(np.float32).itemsize
    if named > channels and held > limits.max_bytes:
        raise InvalidImage(
            f"{name}: field channels names {named} channels of {channels}, which take {held >> 20} MiB, allowed are "
            f"{limits.max_bytes >> 20} MiB; name each channel once"
        )


def channels_of(job: Job) -> list[int] | None:
    """Return the indices of the channels that a job names; None for all.

    Raises:
        InvalidJob: it names none.
    """
    if job.channels is None:
        return None
    indices = [index for index in job.channels if index is not None]
    if not indices:
        raise InvalidJob(f"field channels: {job.get('channels')!r} names none; give an index, e.g. 0", job_id=job.id)
    return indices
