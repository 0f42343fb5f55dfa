"""Tests that each cell gets the class that the second model gives its crop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cell_classes import CellClasses
from redis_consumer import testing


def by_width(crops: NDArray[Any]) -> NDArray[Any]:
    """Act as a network that separates small and large cells: scores of two classes for each crop."""
    is_large = (crops > 0.5).mean(axis=(1, 2, 3)) > 0.3
    return np.stack([~is_large, is_large], axis=-1).astype(np.float32)


def inside(batch: NDArray[Any]) -> NDArray[Any]:
    """Act as a network that finds cells: scores of inside and outside for each pixel."""
    foreground = batch > 100
    return np.concatenate([foreground, ~foreground], axis=-1).astype(np.float32)


def nothing(batch: NDArray[Any]) -> NDArray[Any]:
    """Act as a network that finds no cells."""
    return np.zeros((*batch.shape[:-1], 2), np.float32)


MODELS = {"Cells": inside, "CellClasses": by_width}


def classify(image: NDArray[Any], find: Callable[[NDArray[Any]], NDArray[Any]] = inside) -> testing.JobRun:
    """Run a job."""
    return testing.run(CellClasses, image, model={**MODELS, "Cells": find}, postprocess_function="pixelwise")


def two_sizes() -> NDArray[Any]:
    """A large square and two small ones, (96, 96, 1)."""
    image = np.zeros((96, 96, 1), np.uint16)
    image[5:35, 5:35] = 900
    image[60:70, 10:20] = image[60:70, 60:70] = 1000
    return image


class TestCellClasses(testing.ConsumerContract):
    """What every consumer must do."""

    consumer = CellClasses
    model = MODELS
    image = two_sizes()
    job_fields = {"postprocess_function": "pixelwise"}  # noqa: RUF012 - it is read only


def test_cells_are_painted_and_counted_by_class() -> None:
    """One is large, two are small."""
    run = classify(two_sizes())
    classes = run.outputs["image_classes_0.tif"]
    assert (run.fields["class_1"], run.fields["class_2"]) == ("2", "1")
    assert (classes[20, 20], classes[65, 15], classes[65, 65], classes[50, 50]) == (2, 1, 1, 0)
    assert run.fields["objects"] == "3"


def test_an_image_without_cells_asks_no_second_model() -> None:
    """There is nothing to cut."""
    run = classify(two_sizes(), nothing)
    assert (run.status, run.fields["objects"], run.fields["class_1"]) == ("done", "0", "0"), run.reason


def test_each_frame_has_cells_of_its_own() -> None:
    """Labels start again in each frame."""
    movie = np.stack([two_sizes(), two_sizes()[::-1]])
    run = classify(movie)
    assert (run.fields["class_1"], run.fields["class_2"]) == ("4", "2")
