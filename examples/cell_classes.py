"""Classifies cells with two models: one finds the cells, the other classifies a crop of each cell."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from redis_consumer.consumers import Analysis, ConsumerOptions, ImageFileConsumer, per_job
from redis_consumer.job import Job
from redis_consumer.processing import measure_labels


class CellClasses(ImageFileConsumer):
    """Finds cells, and classifies each with a second model."""

    class Options(ConsumerOptions):
        """Set by variables of the operator. A job can also set a `per_job` option."""

        class_model: str = Field(default="CellClasses:1", description="Model that says the class of a crop")
        crop_px: Annotated[int, per_job] = Field(
            default=32, ge=8, le=512, description="Side of the crop around a cell, in pixels"
        )

    def analyze(self, image: NDArray[Any], job: Job) -> Analysis:
        """Find the cells, cut one crop for each, and paint each cell with its class, counted from 1."""
        labels, options = self.segment(image, job), self.options
        crops, places = cut_crops(image, labels, options.crop_px)
        (scores,) = self.predict_batch(crops, options.class_model) if places else (np.zeros((0, 1)),)
        classes = scores.argmax(axis=-1) + 1
        counts = np.bincount(classes, minlength=scores.shape[-1] + 1)[1:]
        painted = paint(labels, places, classes)
        return {"labels": labels, "classes": painted, **{f"class_{n}": int(count) for n, count in enumerate(counts, 1)}}


def cut_crops(image: NDArray[Any], labels: NDArray[Any], side_px: int) -> tuple[NDArray[Any], list[tuple[int, int]]]:
    """Cut the surroundings of each cell.

    Args:
        image: (B, Y, X, C).
        labels: (B, Y, X, 1) integers.
        side_px: of the crops.

    Returns:
        (N, side, side, C) float32, zero beyond the image and stretched to 0..1; frame and label of each.
    """
    half = side_px // 2
    padded = np.pad(image, [(0, 0), (half, side_px), (half, side_px), (0, 0)])
    crops, places = [], []
    for frame, label_image in enumerate(labels[..., 0]):
        table = measure_labels(label_image)
        for label, y, x in zip(table["label"], table["centroid_y_px"], table["centroid_x_px"], strict=True):
            crops.append(padded[frame, int(y) :, int(x) :][:side_px, :side_px])
            places.append((frame, int(label)))
    stacked = np.asarray(crops, np.float32).reshape(-1, side_px, side_px, image.shape[-1])
    peaks = stacked.max(axis=(1, 2, 3), keepdims=True, initial=1e-6)
    return stacked / peaks, places


def paint(labels: NDArray[Any], places: list[tuple[int, int]], classes: NDArray[Any]) -> NDArray[Any]:
    """Give each cell its class as its value; (B, Y, X, 1) like `labels`."""
    painted = np.zeros_like(labels)
    for (frame, label), value in zip(places, classes, strict=True):
        painted[frame][labels[frame] == label] = value
    return painted
