"""Resizes, pads and cuts images and label images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import InvalidJob

# scikit-image has no annotations.

Array = npt.NDArray[Any]


def rescale(image: Array, scale: float, channel_axis: int | None = -1) -> Array:
    """Resize the two spatial axes by a factor with nearest-neighbour sampling (contract, section 5.2).

    Use it for label images. Use `resize_image` for raw images.

    Args:
        image: rank 2 (Y, X) or higher. The last two axes except `channel_axis` are Y and X.
        scale: factor above 0. A side becomes round-half-even(side * scale), at least 1.
        channel_axis: for a rank above 2 the axis that is not spatial; None for no such axis.

    Returns:
        The resized image in its own dtype and range. If `scale` is 1, `image` itself.

    Raises:
        InvalidJob: `scale` isn't a number above 0.

    >>> rescale(np.array([[[1], [2]]]), 2)[..., 0].tolist()
    [[1, 1, 2, 2], [1, 1, 2, 2]]
    """
    if not 0 < scale < math.inf:
        raise InvalidJob(f"field scale: {scale} isn't a number above 0; give e.g. 0.5")
    if scale == 1:
        return image
    y_axis, x_axis = _plane_axes(image.ndim, channel_axis)
    shape = scaled_sides((image.shape[y_axis], image.shape[x_axis]), scale)
    return _nearest(image, (y_axis, x_axis), shape)


def scaled_sides(shape_yx: Sequence[int], scale: float) -> tuple[int, int]:
    """Return height and width in pixels after resizing by a factor: round-half-even(side * scale), at least 1."""
    height, width = shape_yx
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_image(batch: Array, shape_yx: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Resize raw images by linear interpolation. To shrink an image, average over all pixels.

    Args:
        batch: (B, Y, X, C) of any real dtype.
        shape_yx: wanted rows and columns, 1 or more.

    Returns:
        (B, *shape_yx, C) float32, within the range of the input.
    """
    from PIL import Image

    pixels = batch.astype(np.float32, copy=False)
    if pixels.shape[1:3] == tuple(shape_yx):
        return pixels
    items, _, _, channels = pixels.shape
    resized = np.empty((items, *shape_yx, channels), np.float32)
    for item in range(items):
        for channel in range(channels):
            plane = Image.fromarray(np.ascontiguousarray(pixels[item, ..., channel]))
            resized[item, ..., channel] = np.asarray(plane.resize(shape_yx[::-1], Image.Resampling.BILINEAR))
    return resized


def resize_labels(labels: Array, shape_yx: tuple[int, int]) -> Array:
    """Resize label images to an exact size. Labels are never mixed.

    Args:
        labels: (B, Y, X, C) of any dtype.
        shape_yx: wanted rows and columns, 1 or more.

    Returns:
        (B, *shape_yx, C) in the dtype of `labels`.
    """
    return labels if labels.shape[1:3] == tuple(shape_yx) else _nearest(labels, (1, 2), shape_yx)


def resize(
    data: Array, shape: tuple[int, int], data_format: str = "channels_last", labeled_image: bool = False
) -> Array:
    """Resize images like the function ``resize`` of the contract (section 5.3).

    One channel is resized with bilinear interpolation. Several channels are resized with order 1 and anti-aliasing,
    with 0 outside the image. Label images use the nearest pixel.

    Args:
        data: (Y, X, C) or (B, Y, X, C); with ``channels_first`` (C, Y, X) or (B, C, Y, X).
        shape: wanted rows and columns.
        data_format: ``channels_last`` or ``channels_first``.
        labeled_image: whether the values are labels.

    Returns:
        The resized array in the layout and dtype of `data`.

    Raises:
        ValueError: rank, `shape` or `data_format` is invalid.
    """
    if data_format not in {"channels_last", "channels_first"}:
        raise ValueError(f"data_format {data_format!r} is neither channels_last nor channels_first")
    if data.ndim not in {3, 4} or len(shape) != 2:
        raise ValueError(f"data of shape {data.shape} and target {shape}: need rank 3 or 4, and (rows, columns)")
    channel_axis = -1 if data_format == "channels_last" else -3
    batch = np.moveaxis(data if data.ndim == 4 else data[np.newaxis], channel_axis, -1)
    if labeled_image:
        resized = resize_labels(batch, shape)
    else:
        resized = np.stack([_interpolate(item, shape) for item in batch]).astype(data.dtype)
    restored = np.moveaxis(resized, -1, channel_axis)
    return restored if data.ndim == 4 else restored[0]


def reshape_matrix(
    X: Array,  # noqa: N803
    y: Array,
    reshape_size: int = 256,
    is_channels_first: bool = False,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Cut images and labels into squares. The last square of each row and column ends at the edge (section 5.2).

    Args:
        X: (B, Y, X, C), or (B, C, Y, X) with `is_channels_first`.
        y: labels of the same layout; the number of channels can differ.
        reshape_size: side of a square in pixels.
        is_channels_first: whether channels come before the spatial axes.

    Returns:
        X as float32 and y as int32, each with B * rows * columns squares, image by image and row by row.

    Raises:
        ValueError: the rank isn't 4, or a square doesn't fit into the image.
    """
    if X.ndim != 4 or y.ndim != 4:
        raise ValueError(f"arrays of rank {X.ndim} and {y.ndim}: need rank 4")
    first = 2 if is_channels_first else 1
    rows, columns = (_square_starts(side, reshape_size) for side in X.shape[first : first + 2])
    corners = [(row, column) for row in rows for column in columns]
    return _squares(X, corners, reshape_size, first, np.float32), _squares(y, corners, reshape_size, first, np.int32)


def pad_image(image: Array, field: int) -> Array:
    """Extend an image by reflection, so that a model with receptive field `field` gets the surroundings of each pixel.

    Args:
        image: (..., Y, X, C), or (Y, X).
        field: receptive field in pixels. (field - 1) // 2 pixels are added on each side.

    Returns:
        The padded image; leading axes and channels keep their size.
    """
    border = max((field - 1) // 2, 0)
    axes = _plane_axes(image.ndim, -1)
    return np.pad(image, [(border, border) if axis in axes else (0, 0) for axis in range(image.ndim)], mode="reflect")


def _plane_axes(rank: int, channel_axis: int | None) -> tuple[int, int]:
    if rank < 2:
        raise ValueError(f"image: an array of rank {rank} is not an image; wanted rank 2 or more")
    if rank == 2 or channel_axis is None:
        return rank - 2, rank - 1
    y_axis, x_axis = [axis for axis in range(rank) if axis != channel_axis % rank][-2:]
    return y_axis, x_axis


def _nearest(image: Array, axes: tuple[int, int], shape: Sequence[int]) -> Array:
    for axis, side in zip(axes, shape, strict=True):
        # The centre of a new pixel is at (i + 1/2) * old / new. The integer part is the index of the old pixel.
        # Integer arithmetic is used because floats can round to the wrong pixel.
        indices = (2 * np.arange(side) + 1) * image.shape[axis] // (2 * side)
        image = image.take(indices, axis=axis)
    return image


def _interpolate(item: Array, shape: tuple[int, int]) -> Array:
    """Resize (Y, X, C) to (*shape, C) in float64."""
    from skimage.transform import resize as interpolate

    several = item.shape[-1] > 1
    resized: Array = interpolate(
        item.astype(np.float64),
        (*shape, item.shape[-1]),
        order=1,
        mode="constant" if several else "edge",
        anti_aliasing=several,
        preserve_range=True,
    )
    return resized


def _square_starts(side: int, size: int) -> list[int]:
    if not 0 < size <= side:
        raise ValueError(f"squares of {size} px don't fit into a side of {side} px")
    return [min(index * size, side - size) for index in range(math.ceil(side / size))]


def _squares(images: Array, corners: list[tuple[int, int]], size: int, first: int, dtype: npt.DTypeLike) -> Array:
    planes = np.moveaxis(images, (first, first + 1), (1, 2))
    cut = [image[row : row + size, column : column + size] for image in planes for row, column in corners]
    return np.moveaxis(np.stack(cut), (1, 2), (first, first + 1)).astype(dtype)
