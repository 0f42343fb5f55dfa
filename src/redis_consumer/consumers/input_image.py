"""Which pixels does a job ask about? Its image as an array, with the channels that it names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from redis_consumer.consumers import defaults
from redis_consumer.consumers.results import shown_name
from redis_consumer.errors import InvalidImage, InvalidJob
from redis_consumer.job import Job

if TYPE_CHECKING:
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
    from redis_consumer.images import ImageLimits, check_frames, read_image, select_channels, to_batch
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
    batch: Array = to_batch(image, order)
    check_frames(len(batch), max_frames, name)
    indices = channels_of(job)
    return batch if indices is None else select_channels(batch, indices, name)


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
