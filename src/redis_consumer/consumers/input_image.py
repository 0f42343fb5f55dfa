"""Which pixels does a job ask about? Its image as an array, with the channels that it names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from redis_consumer.consumers import defaults
from redis_consumer.consumers.results import shown_name
from redis_consumer.errors import InvalidImage, InvalidJob
from redis_consumer.job import Job

if TYPE_CHECKING:
    from redis_consumer.images import ImageLimits
    from redis_consumer.serving.base import Array


def load_input(path: Path, job: Job, *, takes_parts: bool) -> Array | None:
    """Read an image as (B, Y, X, C) float32, with the channels that its job names.

    Args:
        path: the downloaded file, or the folder of an OME-Zarr.
        job: says which axes and channels.
        takes_parts: whether an image that is too large for memory may be done part by part.

    Returns:
        None where the image is to be done part by part: it is too large, but can be read by region, or an OME-Zarr.

    Raises:
        InvalidImage: as `redis_consumer.images.read_image`, or it can only be done part by part, and may not.
        InvalidJob: the job names channels or axes that aren't there.
    """
    from redis_consumer.images import ImageLimits, batch_shape, check_frames, read_image, select_channels, to_batch
    from redis_consumer.images.regions import is_large

    name, order = shown_name(job.original_name), job.get("dimension_order").strip()
    max_frames = int(defaults.get("MAX_IMAGE_FRAMES"))
    limits = ImageLimits(
        max_height=int(defaults.get("MAX_IMAGE_HEIGHT")),
        max_width=int(defaults.get("MAX_IMAGE_WIDTH")),
        # Which axes are frames, the job's order decides where it gives one.
        max_frames=None if order else max_frames,
    )
    try:
        image = read_image(path, limits=limits, name=name)
    except IsADirectoryError as error:
        if takes_parts:
            return None
        raise InvalidImage(f"{name}: is an OME-Zarr, which this consumer can't take; save it as TIFF") from error
    except InvalidImage:
        if takes_parts and is_large(path, limits):
            return None
        raise
    indices = channels_of(job)
    shape = batch_shape(image.array.shape, image.axes, order, name)
    check_frames(shape[0], max_frames, name)
    _check_held(shape, len(indices or ()), limits, name)
    batch: Array = to_batch(image, order)
    return batch if indices is None else select_channels(batch, indices, name)


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
