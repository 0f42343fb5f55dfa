"""Runs model and functions over the frames of an image, group by group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from redis_consumer.consumers.frames import Frames, frames_for
from redis_consumer.consumers.results import count_objects, result_stem

if TYPE_CHECKING:
    from redis_consumer.consumers.stages import Plan
    from redis_consumer.consumers.tiling import Tiling
    from redis_consumer.serving.base import Array


@dataclass(frozen=True)
class Work:
    """What is done with an image.

    Attributes:
        plan: model and functions.
        scale: by which it is resized for the model.
        groups: of frames, which are processed one after the other.
    """

    plan: Plan
    scale: float
    groups: list[range]


def groups_of(frames: Frames, scaled_yx: tuple[int, int], tiling: Tiling | None, *, is_cut: bool) -> list[range]:
    """Divide frames so that a group is small, at its own size and at the model's, and fills the model's calls.

    Args:
        frames: what to divide.
        scaled_yx: sides of a frame as the model gets it.
        tiling: how the model takes images; None where nobody knows, so that a group may be of any size.
        is_cut: whether the job says how frames are cut, instead of the model.
    """
    height, width, channels = frames.shape[1:]
    largest = (height, width, channels)
    if scaled_yx[0] * scaled_yx[1] > height * width:
        largest = (*scaled_yx, channels)
    if tiling is not None:
        tiling.check_channels(channels)
    if tiling is None or is_cut:
        return frames.groups(frames_for(largest))
    planned = tiling.planned(np.broadcast_to(np.zeros((), np.float32), (1, *scaled_yx, channels)))
    return frames.groups(frames_for(largest, planned))


def largest_bytes(frames: Frames, scaled_yx: tuple[int, int], groups: list[range]) -> int:
    """Float32 bytes of the largest group, at the frames' own size or at the model's, whichever is larger."""
    pixels = max(frames.shape[1] * frames.shape[2], scaled_yx[0] * scaled_yx[1])
    return 4 * len(groups[0]) * pixels * frames.shape[3]


def write_groups(
    results: Iterator[list[Array]], frames: int, folder: Path, original_name: str
) -> tuple[list[Path], dict[str, Any]]:
    """Write results as they come, the files of `redis_consumer.consumers.analysis.write_analysis` for labels.

    Args:
        results: of each group, (b, Y, X, C) each.
        frames: of all groups, 2 or more.
        folder: for the files; made here.
        original_name: of the image.

    Returns:
        The files, and the fields: ``objects`` where the first result is a label image.

    Raises:
        PermanentError: labels that float32 can't tell apart.
    """
    from redis_consumer.images import StackFiles

    files = StackFiles(folder / result_stem(original_name), frames)
    counts = []
    for arrays in results:
        files.add(arrays)
        counts.append(count_objects(arrays))
    has_objects = all(counts)
    return files.paths, {"objects": sum(count["objects"] for count in counts)} if has_objects else {}
