"""Draws the outlines of cells over their image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from redis_consumer.outputs.cells import LabelImages, Read
from redis_consumer.outputs.label_files import thinned
from redis_consumer.processing.render import overlay_outlines, to_png_bytes

#: Longest side of the picture. Of a larger image, every n-th pixel is shown.
MOST_PX = 4096


def write_overlay(images: LabelImages, picture_of: Read, path: Path) -> list[Path]:
    """Write a PNG of the first frame: its image in grey with a yellow outline of each cell.

    Args:
        images: the labels.
        picture_of: returns the grey values of a window, see `LabelImages.picture`.
        path: of the file.

    Raises:
        OSError: it can't be written.
    """
    step = -(-max(images.shape[1:]) // MOST_PX)
    everything = (slice(0, images.shape[1]), slice(0, images.shape[2]))
    below = LabelImages(images.shape, picture_of, tile_px=images.tile_px)
    picture = thinned(below, 0, everything, step).astype(np.float32)
    labels = thinned(images, 0, everything, step)
    path.write_bytes(to_png_bytes(overlay_outlines(picture, labels, thickness=1 if step > 1 else _thickness(picture))))
    return [path]


def _thickness(picture: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> int:
    """Lines of two pixels can be seen in a picture that a screen shows smaller."""
    return 2 if max(picture.shape) > 1024 else 1
