"""Opens the image of a job, with the channels that the job names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from redis_consumer.consumers import defaults
from redis_consumer.consumers.frames import GROUP_BYTES, Frames
from redis_consumer.consumers.results import shown_name
from redis_consumer.errors import InvalidImage, InvalidJob
from redis_consumer.job import Job

if TYPE_CHECKING:
    from redis_consumer.images import ImageLimits
    from redis_consumer.images.reading import OpenedImage
    from redis_consumer.serving.base import Array


@contextmanager
def open_input(path: Path, job: Job, *, takes_parts: bool) -> Iterator[Frames | None]:
    """Open an image as (B, Y, X, C) float32, with the channels that its job names; pixels are read when asked for.

    Args:
        path: the downloaded file, or the folder of an OME-Zarr.
        job: says which axes and channels.
        takes_parts: whether an image that is too large for memory may be done part by part.

    Yields:
        None where the image is to be done part by part: it is too large, but can be read in windows, or an OME-Zarr.

    Raises:
        InvalidImage: as `redis_consumer.images.read_image`, or it can only be done part by part, and may not.
        InvalidJob: the job names channels or axes that aren't there.
    """
    from redis_consumer.images import ImageLimits, open_image
    from redis_consumer.images.windows import is_large

    name, order = shown_name(job.original_name), job.dimension_order
    limits = ImageLimits(
        max_height=int(defaults.get("MAX_IMAGE_HEIGHT")),
        max_width=int(defaults.get("MAX_IMAGE_WIDTH")),
        # Which axes are frames, the job's order decides where it gives one.
        max_frames=None if order else int(defaults.get("MAX_IMAGE_FRAMES")),
    )
    frames = None
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(open_image(path, limits=limits, name=name))
            frames = _frames(opened, path, job, limits, stack)
        except IsADirectoryError as error:
            if not takes_parts:
                raise InvalidImage(
                    f"{name}: is an OME-Zarr, which this consumer can't take; save it as TIFF"
                ) from error
        except InvalidImage:
            if not (takes_parts and is_large(path, limits)):
                raise
        yield frames


def _frames(opened: OpenedImage, path: Path, job: Job, limits: ImageLimits, stack: ExitStack) -> Frames:
    """The frames of an opened image: read in groups where there are many and the file lets that be done."""
    from redis_consumer.images import batch_shape, check_frames, check_indices, select_channels, to_batch

    source, name, order = opened.source, opened.name, job.dimension_order
    count, height, width, channels = batch_shape(source.shape, source.axes, order, name)
    check_frames(count, int(defaults.get("MAX_IMAGE_FRAMES")), name)
    indices = channels_of(job)
    _check_held((count, height, width, channels), len(indices or ()), limits, name)
    if indices is not None:
        check_indices(indices, channels, name)
        channels = len(indices)

    def whole(start: int, stop: int) -> Array:
        batch: Array = to_batch(opened.read(), order)
        return (batch if indices is None else select_channels(batch, indices, name))[start:stop]

    frames = Frames((count, height, width, channels), whole, name)
    file_bytes = 4 * prod(source.shape)
    if len(frames.groups()) == 1 and file_bytes <= max(frames.nbytes, GROUP_BYTES):
        return frames
    by_frame = _by_frame(path, name, order, indices, stack)
    if by_frame is not None:
        return replace(frames, read=by_frame)
    return replace(frames, read=_once(whole, count), kept_bytes=file_bytes)


def _by_frame(
    path: Path, name: str, order: str, indices: Sequence[int] | None, stack: ExitStack
) -> Callable[[int, int], Array] | None:
    """What reads frames one by one; None for a file that must be read at once."""
    from redis_consumer.images.planes import NotWindowedError
    from redis_consumer.images.windows import open_windowed

    try:
        image = stack.enter_context(open_windowed(path, name=name, dimension_order=order, channels=indices))
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
    """The same, reading the file only the first time."""
    kept: list[Array] = []

    def read(start: int, stop: int) -> Array:
        if not kept:
            kept.append(whole(0, count))
        return kept[0][start:stop]

    return read


def _check_held(shape: tuple[int, int, int, int], named: int, limits: ImageLimits, name: str) -> None:
    """Refuse what a job's fields make too large of an image that isn't: other sides, or channels over and over."""
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
    """The indices of the channels that a job names, None for all.

    Raises:
        InvalidJob: it names none.
    """
    if job.channels is None:
        return None
    indices = [index for index in job.channels if index is not None]
    if not indices:
        raise InvalidJob(f"field channels: {job.get('channels')!r} names none; give an index, e.g. 0", job_id=job.id)
    return indices


def role_of(job: Job) -> int | None:
    """Kind of image by the role whose channel is given (contract, section 1.3): ``",0"`` is cytoplasm only.

    Raises:
        InvalidJob: several are given.
    """
    roles = [role for role, index in enumerate(job.channels or ()) if index is not None]
    if len(roles) > 1:
        raise InvalidJob(
            f"field channels: {job.get('channels')!r} fills several roles, but the job names no model; give the "
            "channel of one role, or a model_name that takes them all",
            job_id=job.id,
        )
    return roles[0] if roles else None
