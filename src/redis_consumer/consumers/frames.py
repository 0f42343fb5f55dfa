"""Reads and processes the frames of one image in groups, so that memory doesn't grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from redis_consumer.errors import InvalidImage

if TYPE_CHECKING:
    from redis_consumer.processing.tiled import Planned
    from redis_consumer.serving.base import Array

#: A job holds at most so many times the float32 bytes of a group of frames, with all channels, besides a model's call.
HELD_TIMES = 12
#: Frames of a group have at most so many bytes as float32; a larger frame is a group by itself.
GROUP_BYTES = 16 << 20


@dataclass(frozen=True)
class Frames:
    """Images of one shape, read when they are asked for.

    Attributes:
        shape: (B, Y, X, C) of all.
        read: takes the first frame and the one behind the last, gives them as (b, Y, X, C) float32.
        name: the scientist's name of the file, for messages.
        kept_bytes: what is held besides, of a file that must be read at once.
    """

    shape: tuple[int, int, int, int]
    read: Callable[[int, int], Array]
    name: str = "image"
    kept_bytes: int = 0

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
        """Refuse an image that needs more memory than a job may, before its pixels are read.

        Args:
            held: float32 bytes of the frames that are processed at once.
            call: bytes that one call of the model takes.
            limit: bytes that the job may need.

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
            size: frames of a group; 0 for as many as `GROUP_BYTES` hold.
        """
        count = self.shape[0]
        step = size or frames_for(self.shape[1:])
        return [range(start, min(start + step, count)) for start in range(0, count, step)]

    def parts(self) -> Iterator[Array]:
        """All frames, group by group."""
        return (self.read(group.start, group.stop) for group in self.groups())


def check_needed(name: str, needed: int, limit: int, why: str) -> None:
    """Refuse an input that needs more memory than a job may, before its pixels are read.

    Args:
        name: the scientist's name of the file.
        needed: bytes that the job would hold.
        limit: bytes that it may hold.
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
    """Say how many frames make a group, 1 or more.

    Args:
        shape: (Y, X, C) of a frame.
        planned: how one frame goes through the model. Where it is a single tile, calls are filled.
    """
    height, width, channels = shape
    count = max(1, GROUP_BYTES // (4 * height * width * channels))
    if planned is None or len(planned.plan) > 1 or count < planned.batch_size:
        return count
    return count // planned.batch_size * planned.batch_size


def joined(groups: Iterator[list[Array]], count: int) -> list[Array]:
    """Join the results of groups, (b, Y, X, C) each, to those of all `count` frames."""
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
