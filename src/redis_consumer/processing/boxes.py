"""Turns the objects that a model finds, boxes with a mask each, into label images.

Such models are built like those of T.-Y. Lin et al., "Focal loss for dense object detection", ICCV 2017 (RetinaNet),
and K. He et al., "Mask R-CNN", ICCV 2017. The rules for masks that overlap are those of the contract, section 5.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.processing.flooding import flood
from redis_consumer.processing.labels import connected, drop_small

Array = npt.NDArray[Any]
Labels = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

#: A mask that overlaps so many masks, itself included, is dropped.
MOST_OVERLAPS = 3


@dataclass(frozen=True)
class _Thresholds:
    score: float
    multi_iou: float
    binarize: float


@dataclass(frozen=True)
class _Placed:
    """The mask of an object: its pixels in a window of the image."""

    top: int
    left: int
    mask: Mask

    @property
    def window(self) -> tuple[slice, slice]:
        height, width = self.mask.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    @property
    def area(self) -> int:
        return int(self.mask.sum())

    def common(self, other: _Placed) -> int:
        """Return the number of pixels that both masks have."""
        spans = []
        for own, its in zip(self.window, other.window, strict=True):
            start, stop = max(own.start, its.start), min(own.stop, its.stop)
            if start >= stop:
                return 0
            spans.append((start, stop))
        (top, bottom), (left, right) = spans
        mine, theirs = (
            each.mask[top - each.top : bottom - each.top, left - each.left : right - each.left]
            for each in (self, other)
        )
        return int(np.count_nonzero(mine & theirs))


def retinanet_to_label_image(
    outputs: Sequence[Array],
    shape0: int,
    shape1: int,
    score_threshold: float = 0.5,
    multi_iou_threshold: float = 0.25,
    binarize_threshold: float = 0.5,
    small_objects_threshold: int = 100,
) -> Labels:
    """Make a label image of the objects that a model finds.

    An object that overlaps no other one keeps its mask. Objects that overlap share their common pixels by a random
    walker (L. Grady, "Random walks for image segmentation", IEEE TPAMI 28, 1768-1783, 2006). An object that overlaps
    too many others is dropped.

    Args:
        outputs: the last four are boxes (B, N, 4) with x and y of two corners in pixels, scores (B, N), classes (B, N)
            and masks (B, N, y, x, classes), of which the last class is used.
        shape0: rows of the image.
        shape1: columns of the image.
        score_threshold: an object has a larger score.
        multi_iou_threshold: two masks overlap if their intersection over union is larger than this.
        binarize_threshold: a pixel belongs to a mask if its value is larger than this.
        small_objects_threshold: labels with fewer pixels are removed.

    Returns:
        (B, shape0, shape1) int32; 0 is background, the labels of an image are 1..n.

    Raises:
        ValueError: number or shapes of the outputs are wrong, or a value isn't finite.
    """
    boxes, scores, _, masks = _checked(outputs, 4)
    thresholds = _Thresholds(score_threshold, multi_iou_threshold, binarize_threshold)
    found = [
        drop_small(_labels_of((shape0, shape1), its_boxes, its_scores, its_masks, thresholds), small_objects_threshold)
        for its_boxes, its_scores, its_masks in zip(boxes, scores, masks, strict=True)
    ]
    return np.stack(found) if found else np.zeros((0, shape0, shape1), np.int32)


def retinanet_semantic_to_label_image(
    outputs: Sequence[Array],
    score_threshold: float = 0.5,
    multi_iou_threshold: float = 0.25,
    binarize_threshold: float = 0.5,
    watershed_threshold: float = 0.5,
    perimeter_area_threshold: float = 2,
    small_objects_threshold: int = 100,
) -> Labels:
    """Make a label image of the objects that a model finds, and of the regions besides them.

    The objects are those of `retinanet_to_label_image`. Other pixels are labelled by a watershed of the classes of
    distance, and regions whose outline is too long for their area are dropped.

    Args:
        outputs: the last five are those of `retinanet_to_label_image` and (B, Y, X, C), the probabilities of classes of
            distance; class 0 is background, and the last class is the innermost part of a cell.
        score_threshold: as `retinanet_to_label_image`.
        multi_iou_threshold: as `retinanet_to_label_image`.
        binarize_threshold: as `retinanet_to_label_image`.
        watershed_threshold: pixels whose innermost class is more probable than this are the seeds of regions.
        perimeter_area_threshold: largest square of the perimeter by area, in multiples of that of a disk.
        small_objects_threshold: as `retinanet_to_label_image`.

    Returns:
        (B, Y, X) int32; 0 is background, the labels of an image are 1..n.

    Raises:
        ValueError: number or shapes of the outputs are wrong, or a value isn't finite.
    """
    boxes, scores, _, masks, semantic = _checked(outputs, 5)
    thresholds = _Thresholds(score_threshold, multi_iou_threshold, binarize_threshold)
    found = []
    for its_boxes, its_scores, its_masks, classes in zip(boxes, scores, masks, semantic, strict=True):
        labels = _labels_of(classes.shape[:2], its_boxes, its_scores, its_masks, thresholds)
        distance = np.where(labels > 0, 0, np.argmax(classes, axis=-1))
        seeds = connected((classes[..., -1] > watershed_threshold) & (labels == 0), connectivity=2)
        regions = _without_long_outlines(flood(distance, seeds, 0), perimeter_area_threshold)
        labels = np.where(regions > 0, regions + labels.max(initial=0), labels).astype(np.int32)
        found.append(drop_small(labels, small_objects_threshold))
    return np.stack(found) if found else np.zeros(semantic.shape[:3], np.int32)


def retinanet(outputs: Sequence[Array], shape0: int, shape1: int, **thresholds: float) -> Labels:
    """Do the same as `retinanet_to_label_image` for a job, with a last axis of 1."""
    return retinanet_to_label_image(outputs, shape0, shape1, **thresholds)[..., np.newaxis]  # type: ignore[arg-type]


def retinanet_semantic(outputs: Sequence[Array], **thresholds: float) -> Labels:
    """Do the same as `retinanet_semantic_to_label_image` for a job, whose last output isn't used."""
    return retinanet_semantic_to_label_image(outputs[:-1], **thresholds)[..., np.newaxis]  # type: ignore[arg-type]


def _checked(outputs: Sequence[Array], count: int) -> list[Array]:
    arrays = [np.asarray(output) for output in outputs[-count:]]
    shapes = [array.shape for array in arrays]
    ranks = (3, 2, 2, 5, 4)[:count]
    is_usual = len(arrays) == count and tuple(map(len, shapes)) == ranks
    if not is_usual or shapes[0][2] != 4 or len({shape[:2] for shape in shapes[:4]}) != 1:
        wanted = "boxes (B, N, 4), scores (B, N), classes (B, N), masks (B, N, y, x, classes)"
        more = ", classes of pixels (B, Y, X, C)" if count == 5 else ""
        raise ValueError(f"outputs end with the shapes {shapes}; wanted {wanted}{more}")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("outputs hold NaN or infinity; wanted finite numbers")
    return arrays


def _labels_of(shape: tuple[int, ...], boxes: Array, scores: Array, masks: Array, thresholds: _Thresholds) -> Labels:
    """Label the objects of one image: those that overlap no other first, then those that share pixels."""
    labels = np.zeros(shape, np.int32)
    objects = [
        placed
        for index in np.nonzero(scores > thresholds.score)[0]
        if (placed := _placed(boxes[index], masks[index, ..., -1], shape, thresholds.binarize)) is not None
    ]
    overlaps = _overlaps(objects)
    isolated = [each for each, row in zip(objects, overlaps, strict=True) if row.sum() == 1]
    contested = [
        each
        for each, row in zip(objects, overlaps, strict=True)
        if row.sum() > 1 and np.count_nonzero(row > thresholds.multi_iou) < MOST_OVERLAPS
    ]
    for label, each in enumerate(isolated, start=1):
        labels[each.window][each.mask] = label
    return _shared(labels, contested, first=len(isolated) + 1)


def _placed(box: Array, mask: Array, shape: tuple[int, ...], threshold: float) -> _Placed | None:
    """Resize the mask of an object to its box, and cut off what is outside of the image; None if nothing is left."""
    from skimage.transform import resize

    # A box far outside must not become an array.
    left, top, right, bottom = np.clip(box, -4 * max(shape), 4 * max(shape)).astype(int).tolist()
    if right <= left or bottom <= top:
        return None
    resized = resize(
        mask.astype(np.float64), (bottom - top, right - left), order=1, mode="edge", anti_aliasing=False, clip=False
    )
    inside = (resized > threshold)[max(-top, 0) : shape[0] - top, max(-left, 0) : shape[1] - left]
    return _Placed(max(top, 0), max(left, 0), inside) if inside.size else None


def _overlaps(objects: Sequence[_Placed]) -> Array:
    """Return the intersection over union of each pair of masks; 1 for a mask with itself."""
    overlaps = np.eye(len(objects))
    for first, one in enumerate(objects):
        for second in range(first):
            common = one.common(objects[second])
            union = one.area + objects[second].area - common
            overlaps[first, second] = overlaps[second, first] = common / union if union else 0
    return overlaps


def _shared(labels: Labels, objects: Sequence[_Placed], first: int) -> Labels:
    """Add objects that overlap to a label image. Pixels of one mask are its own, a random walker divides the others."""
    from skimage.segmentation import random_walker

    count, owner = np.zeros(labels.shape, np.int32), np.zeros(labels.shape, np.int32)
    for label, each in reversed(list(enumerate(objects, start=1))):
        count[each.window] += each.mask
        owner[each.window][each.mask] = label
    seeds = np.unique(owner[count == 1])  # the walker wants numbers without gaps
    if (count > 1).any() and seeds.size:
        rows, columns = (np.nonzero(count.any(axis=axis))[0] for axis in (1, 0))
        window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        markers = np.where(count == 1, np.searchsorted(seeds, owner) + 1, np.where(count > 1, 0, -1))[window]
        # Each step of the walker is as likely as any other: the masks decide, and not the brightness of pixels.
        divided = random_walker(count[window].astype(np.float64), markers, beta=0, mode="cg_j")
        # The first mask gets pixels that no seed can reach.
        owner[window] = np.where(divided > 0, seeds[divided - 1], owner[window])
    return np.where(count > 0, owner + first - 1, labels).astype(np.int32)


def _without_long_outlines(labels: Labels, limit: float) -> Labels:
    from skimage.measure import regionprops

    kept = np.zeros(labels.max(initial=0) + 1, np.int32)
    for region in regionprops(labels):
        if region.perimeter**2 / region.area <= limit * 4 * pi:
            kept[region.label] = region.label
    return kept[labels]
