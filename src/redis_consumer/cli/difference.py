"""Draws the difference between two label images."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.cli.comparison import read_member
from redis_consumer.errors import InvalidImage

Array = npt.NDArray[Any]


def draw_difference(name: str, before: Path, after: Path, image: Path | None) -> bytes:
    """Draw as PNG where a label image differs in two result zips. For a stack, draw the first image that differs.

    Args:
        name: name of the file in both zips.
        before: the earlier zip; its outlines are yellow.
        after: the later zip; its outlines are blue. Pixels that differ are red.
        image: the segmented image. It is the background if it can be read and has the same size.
    """
    from redis_consumer.processing.render import show_difference, to_png_bytes

    with zipfile.ZipFile(before) as old, zipfile.ZipFile(after) as new:
        planes = [_planes(read_member(each, name)) for each in (old, new)]
    index = next(number for number, pair in enumerate(zip(*planes, strict=True)) if not np.array_equal(*pair))
    ground = _ground(image, len(planes[0]), index, planes[0].shape[1:])
    return to_png_bytes(show_difference(ground, planes[0][index], planes[1][index]))


def _planes(labels: Array) -> Array:
    return labels.reshape(-1, *labels.shape[-2:])


def _ground(path: Path | None, count: int, index: int, shape: tuple[int, ...]) -> Array:
    from redis_consumer.cli.gallery import read_planes

    if path is not None:
        try:
            planes = read_planes(path)
        except (InvalidImage, OSError):
            return np.zeros(shape, np.float32)
        if planes.shape == (count, *shape):
            plane: Array = planes[index]
            return plane
    return np.zeros(shape, np.float32)
