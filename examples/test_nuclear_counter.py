"""Tests that the counter finds, lists and filters nuclei."""

from __future__ import annotations

import csv

import numpy as np

from nuclear_counter import NuclearCounter
from redis_consumer import testing


class TestNuclearCounter(testing.ConsumerContract):
    """What every consumer must do."""

    consumer = NuclearCounter
    model = None  # the model that comes with the package


def test_every_nucleus_is_counted_and_listed() -> None:
    """The example image has nine nuclei."""
    run = testing.run(NuclearCounter, testing.example_image())
    rows = list(csv.DictReader(run.files["image_nuclei.csv"].decode().splitlines()))
    assert run.fields["objects"] == "9"
    assert len(rows) == 9
    assert np.unique(run.outputs["image_feature_0.tif"]).tolist() == [0, *(int(row["label"]) for row in rows)]
    assert float(run.fields["mean_area"]) == np.mean([float(row["area_px"]) for row in rows])


def test_small_nuclei_do_not_count() -> None:
    """All nuclei of the example are smaller than this."""
    run = testing.run(NuclearCounter, testing.example_image(), min_area=5000)
    assert (run.fields["objects"], float(run.fields["mean_area"])) == ("0", 0.0)


def test_frames_are_counted_one_by_one() -> None:
    """Labels of different frames are not related."""
    movie = np.stack([testing.example_image(), testing.example_image()])
    run = testing.run(NuclearCounter, movie)
    rows = list(csv.DictReader(run.files["image_nuclei.csv"].decode().splitlines()))
    assert [row["frame"] for row in rows] == ["0"] * 9 + ["1"] * 9
