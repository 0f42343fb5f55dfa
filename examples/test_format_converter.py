"""Tests that converted images have the same pixels, and axes that other programs can read."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tifffile

from format_converter import FormatConverter
from redis_consumer import testing


class TestFormatConverter(testing.ConsumerContract):
    """What every consumer must do."""

    consumer = FormatConverter


@pytest.mark.parametrize("target", ["ome.tif", "imagej.tif"])
def test_a_tiff_has_the_pixels_and_says_its_axes(target: str) -> None:
    """Two frames of two channels."""
    image = np.arange(2 * 20 * 30 * 2, dtype=np.uint16).reshape(2, 20, 30, 2)
    run = testing.run(FormatConverter, image, target=target)
    with tifffile.TiffFile(io.BytesIO(run.files[f"image_converted.{target}"])) as tiff:
        (series,) = tiff.series
        assert series.axes == "TCYX"
        assert series.dtype == np.uint16
        np.testing.assert_array_equal(np.moveaxis(series.asarray(), 1, -1), image)


def test_an_npy_is_as_small_as_its_pixels_allow() -> None:
    """They are whole numbers below 256."""
    image = np.full((8, 8, 1), 200, np.float32)
    run = testing.run(FormatConverter, image, target="npy")
    converted = np.load(io.BytesIO(run.files["image_converted.npy"]), allow_pickle=False)
    assert (converted.dtype, converted.shape) == (np.uint8, (1, 8, 8, 1))


def test_it_asks_no_model() -> None:
    """So none need be served."""
    run = testing.run(FormatConverter, testing.example_image())
    assert "predicting" not in run.statuses
    assert run.status == "done"
