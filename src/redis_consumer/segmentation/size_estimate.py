"""Estimates how large the objects of an image are, by three coarse passes of the model over its middle."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from redis_consumer.job import ModelId
from redis_consumer.models.card import Card
from redis_consumer.processing.measure import object_areas
from redis_consumer.processing.registry import Functions
from redis_consumer.processing.resize import resize_image, scaled_sides
from redis_consumer.segmentation.frames import Frames
from redis_consumer.segmentation.predictor import Predictor
from redis_consumer.serving.base import Array

#: Diameters in the image, in pixels, that have the card's diameter in one of the passes.
PASSES_PX = (30.0, 60.0, 150.0)
#: Side of a pass at the model's scale, in diameters of the card: 256 px for objects of 30 px.
PASS_DIAMETERS = 8.5
#: A pass counts more the more objects it finds, up to so many, and how much more.
ENOUGH_OBJECTS, COUNT_WEIGHT = 10, 0.3
#: A pass counts more, by so much, if another one finds objects of the same size within this factor.
AGREEMENT, AGREEMENT_WEIGHT = 1.5, 0.3
#: How much wider than on masks objects come out in coarse passes: the median of real images.
TOO_WIDE = 1.06
#: Objects that are cut by the border of a pass count only if fewer than so many are complete.
LEAST_COMPLETE = 3


def estimate_diameter(
    frames: Frames, wanted_px: float, prepare: Callable[[Array], Array], label: Callable[[Array], Array]
) -> float | None:
    """Estimate the usual diameter of the objects in the middle of the middle frame.

    Each pass shows objects of another size as large as the model is made for. The pass whose objects come closest to
    that size decides: the one with the highest ``0.3 * log(min(n, 10)) - abs(log(seen / wanted))``, and 0.3 more for
    each other pass that finds the same size. Passes and weights were chosen on real images, see
    `training.evaluate_scale`. The work is bounded: three passes of `PASS_DIAMETERS` each, whatever the size of the
    image.

    Args:
        frames: the image. One frame is read.
        wanted_px: diameter of the objects that the model is made for.
        prepare: runs the functions before the model over (1, Y, X, C).
        label: runs the model and the functions after it over (1, y, x, C); returns labels (1, y, x, 1).

    Returns:
        The diameter in pixels of the image; None if no pass finds an object.
    """
    middle = frames.shape[0] // 2
    side_px = round(PASS_DIAMETERS * wanted_px)
    image = _centre(frames.read(middle, middle + 1), math.ceil(side_px * max(PASSES_PX) / wanted_px))
    prepared = np.asarray(prepare(image), np.float32)
    found: list[tuple[float, float]] = []
    for pass_px in PASSES_PX:
        scale = wanted_px / pass_px
        piece = _centre(prepared, math.ceil(side_px / scale))
        areas = _areas(label(resize_image(piece, scaled_sides(piece.shape[1:3], scale)))[0, ..., 0])
        if len(areas):
            seen_px = 2 * math.sqrt(float(np.median(areas)) / math.pi)
            many = COUNT_WEIGHT * math.log(min(len(areas), ENOUGH_OBJECTS))
            found.append((many - abs(math.log(seen_px / wanted_px)), seen_px / scale / TOO_WIDE))
    return max((fit + _agreement(found, number), px) for number, (fit, px) in enumerate(found))[1] if found else None


def _agreement(found: Sequence[tuple[float, float]], number: int) -> float:
    """Bonus for a pass whose diameter another pass finds, too."""
    others = [px for other, (_, px) in enumerate(found) if other != number]
    ratios = [max(px, found[number][1]) / min(px, found[number][1]) for px in others]
    return AGREEMENT_WEIGHT * sum(ratio < AGREEMENT for ratio in ratios)


def estimated_diameter(
    frames: Frames, card: Card, model: ModelId, predictor: Predictor, functions: Functions
) -> float | None:
    """Estimate the diameter of the objects in an image with a model and the functions of its card.

    Returns:
        As `estimate_diameter`; None also if the model doesn't make label images of planes.
    """
    if card.object_diameter_px is None or not card.postprocess or len(predictor.tiling(model).sides) != 2:
        return None
    silent = replace(predictor, report=lambda *_: None)

    def prepare(image: Array) -> Array:
        return np.asarray(functions.run("pre", card.preprocess, image, card.functions))

    def label(image: Array) -> Array:
        with silent.state.by_card():
            outputs = silent.predict(image, model)
        labels = np.asarray(functions.run("post", card.postprocess, outputs, card.functions))
        return labels if labels.dtype.kind in "iu" else np.zeros(labels.shape, np.int32)

    return estimate_diameter(frames, card.object_diameter_px, prepare, label)


def _areas(labels: Array) -> Array:
    """Areas of the objects of (Y, X) labels that the border does not cut, or of all if it cuts nearly all."""
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    complete = object_areas(np.where(np.isin(labels, border[border > 0]), 0, labels))
    return complete if len(complete) >= LEAST_COMPLETE else object_areas(labels)


def _centre(image: Array, most_px: int) -> Array:
    """The middle of (B, Y, X, C), at most `most_px` high and wide."""
    rows, columns = (
        slice((side - min(side, most_px)) // 2, (side + min(side, most_px)) // 2) for side in image.shape[1:3]
    )
    return image[:, rows, columns]
