"""Detects the scale and kind of an image with the detection models (contract, section 5.2)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from redis_consumer.job import ModelId
from redis_consumer.options import DetectionOptions
from redis_consumer.segmentation.frames import Frames
from redis_consumer.serving.base import Array

#: Scales this close to 1 count as 1, because resizing would only blur the image (contract, section 5.4).
SCALE_TOLERANCE = 0.01


def detect(options: DetectionOptions, image: Array | Frames, ask: Callable[[Array, ModelId], list[Array]]) -> Array:
    """Run a detection model on pieces of an image.

    Args:
        options: the model, and the choice of pieces.
        image: as for `crops`, or frames that are read in groups.
        ask: makes one call with a batch of 1.

    Returns:
        The first output for each piece.
    """
    parts = image.parts() if isinstance(image, Frames) else [image]
    model = ModelId.parse(options.model)
    pieces = crops_of(parts, options.side_px, every=options.every)
    return np.concatenate([ask(piece[np.newaxis], model)[0] for piece in pieces])


def crops(image: Array, size_px: int, *, every: int) -> Array:
    """Cut an image or a stack into squares for a detection model, and keep some of them.

    Args:
        image: (Y, X), (Y, X, C) with at most 4 channels, (T, Y, X) or (B, Y, X, C). Channels are averaged.
        size_px: side of the squares. A smaller image is not cut.
        every: keep every n-th square, starting with the first.

    Returns:
        (N, y, x, 1) float32. Squares at the far edge overlap their neighbours, so that none is padded.
    """
    return np.stack(list(crops_of([image], size_px, every=every)))


def crops_of(parts: Iterable[Array], size_px: int, *, every: int) -> Iterator[Array]:
    """Yield the squares of `crops` one by one, for an image that is read in groups of frames."""
    squares = (square for part in parts for square in _squares(_as_stack(part), size_px))
    return itertools.islice(squares, 0, None, max(every, 1))


def _squares(stack: Array, size_px: int) -> Iterator[Array]:
    height, width = stack.shape[1:3]
    if height < size_px or width < size_px:
        yield from stack
        return
    for plane, top, left in itertools.product(stack, _starts(height, size_px), _starts(width, size_px)):
        yield plane[top : top + size_px, left : left + size_px]


def _as_stack(image: Array) -> Array:
    array = np.asarray(image, dtype=np.float32)
    has_channels = array.ndim == 4 or (array.ndim == 3 and array.shape[-1] <= 4)
    if has_channels:
        array = array.mean(axis=-1)
    if array.ndim == 2:
        array = array[np.newaxis]
    return array[..., np.newaxis]


def _starts(side: int, size_px: int) -> list[int]:
    count = math.ceil(side / size_px)
    return [min(index * size_px, side - size_px) for index in range(count)]


def scale_of(outputs: Array) -> float:
    """Return the mean of the scales from the model, (N, …); 1 if it is within 0.01 of 1."""
    scale = float(np.mean(outputs))
    return 1.0 if abs(scale - 1.0) <= SCALE_TOLERANCE else scale


def label_of(outputs: Array) -> int:
    """Return the index of the class with the largest sum over the model's outputs, (N, …, classes)."""
    return int(np.argmax(outputs.reshape(-1, outputs.shape[-1]).sum(axis=0)))
