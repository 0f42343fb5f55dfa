"""Computes the inputs of the contract's linking models for each cell (section 5.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

#: Half of the side of a neighbourhood, in image pixels.
NEIGHBORHOOD_PX = 100


@dataclass(frozen=True)
class Cells:
    """The cells of one frame, in rising order of their labels.

    Attributes:
        labels: (n,) labels in the label image.
        areas_px: (n,) numbers of pixels.
        centroids_px: (n, 2) rows and columns.
        appearances: (n, side, side, 1) a picture of each cell.
        morphologies: (n, 3) area, perimeter and eccentricity.
        at_border: (n,) whether a cell touches the border of the image.
    """

    labels: Array
    areas_px: Array
    centroids_px: Floats
    appearances: Floats
    morphologies: Floats
    at_border: Array

    def __len__(self) -> int:
        return len(self.labels)


def describe(labels: Array, image: Array, *, side_px: int, is_fixed: bool = False, normalize: bool = False) -> Cells:
    """Describe the cells of a frame.

    Args:
        labels: (Y, X) integers, 0 is background.
        image: (Y, X) real image of the same field of view.
        side_px: side of the pictures.
        is_fixed: cut a square of this side around the centroid, with 0 outside the image. By default, the bounding box
            of the cell is resized.
        normalize: give each such square a mean of 0 and a standard deviation of 1.
    """
    from skimage.measure import regionprops
    from skimage.transform import resize

    regions = regionprops(labels.astype(np.int64))
    height, width = labels.shape
    pictures = np.zeros((len(regions), side_px, side_px, 1), np.float32)
    for picture, region in zip(pictures, regions, strict=True):
        if is_fixed:
            cut = cut_square(image, region.centroid, side_px)
            picture[..., 0] = (cut - cut.mean()) / (cut.std() + 1e-7) if normalize else cut
        else:
            cut = image[region.slice].astype(np.float32)
            picture[..., 0] = resize(cut, (side_px, side_px), order=1, preserve_range=True)
    boxes = np.array([region.bbox for region in regions]).reshape(-1, 4)
    shapes = [(region.area, region.perimeter, region.eccentricity) for region in regions]
    return Cells(
        labels=np.array([region.label for region in regions], np.int64),
        areas_px=np.array([region.area for region in regions], np.float64),
        centroids_px=np.array([region.centroid for region in regions], np.float32).reshape(-1, 2),
        appearances=pictures,
        morphologies=np.array(shapes, np.float32).reshape(-1, 3),
        at_border=(boxes[:, :2] == 0).any(axis=1) | (boxes[:, 2:] == (height, width)).any(axis=1),
    )


def adjacency(centroids_px: Array, distance_px: float) -> Floats:
    """Return the (n, n) matrix of neighbours, scaled on both sides by the root of the number of neighbours."""
    away = centroids_px[:, np.newaxis] - centroids_px[np.newaxis]
    near = (np.hypot(away[..., 0], away[..., 1]) < distance_px).astype(np.float32)
    root = 1 / np.sqrt(near.sum(axis=0) + 1e-5)
    scaled: Floats = (root[:, np.newaxis] * near * root).astype(np.float32)
    return scaled


def neighborhood(image: Array, centroid_px: Array, side_px: int) -> Floats:
    """Return the surroundings of a place, (side, side), resized from 201 x 201 pixels, with 0 outside the image."""
    from skimage.transform import resize

    cut = cut_square(image, centroid_px, 2 * NEIGHBORHOOD_PX + 1)
    resized: Floats = resize(cut, (side_px, side_px), order=1, preserve_range=True).astype(np.float32)
    return resized


def cut_square(image: Array, center_px: Array | tuple[float, float], side_px: int) -> Floats:
    """Return a square around a place, with 0 outside the image."""
    top, left = (int(place) - side_px // 2 for place in center_px)
    cut = np.zeros((side_px, side_px), np.float32)
    inside = image[max(top, 0) : max(top + side_px, 0), max(left, 0) : max(left + side_px, 0)]
    row, column = max(-top, 0), max(-left, 0)
    cut[row : row + inside.shape[0], column : column + inside.shape[1]] = inside
    return cut
