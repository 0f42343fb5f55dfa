from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from redis_consumer.errors import InvalidImage
from redis_consumer.images import read_image
from redis_consumer.images.axes import advised, resolve
from redis_consumer.images.windows import open_windowed


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((256, 200), "YX"),
        ((2, 256, 200), "CYX"),
        ((4, 256, 200), "CYX"),
        ((5, 256, 200), "BYX"),
        ((30, 256, 200), "BYX"),
        ((300, 256, 200), "BYX"),
        ((256, 200, 2), "YXC"),
        ((512, 512, 3), "YXC"),
        ((512, 512, 16), "YXC"),
        ((500, 64, 64), "BYX"),
        ((256, 200, 1), "YXC"),
        ((1, 256, 200), "BYX"),
        ((1, 256, 200, 1), "BYXC"),
        ((7, 256, 200, 3), "BYXC"),
        ((7, 3, 256, 200), "BCYX"),
        ((3, 7, 256, 200), "CBYX"),
        ((6, 7, 256, 200), "BBYX"),
        ((2, 3, 4, 256, 200), "TCZYX"),
        ((4, 5, 2), "YXC"),
    ],
)
def test_the_rule_for_a_shape(shape: tuple[int, ...], axes: str) -> None:
    assert resolve(shape, "Q" * len(shape), "", "a") == (axes, "the shape")


def test_axes_that_the_file_names_are_not_guessed() -> None:
    assert resolve((2, 256, 256), "TYX", "", "a") == ("TYX", "the file")
    assert resolve((3, 2, 256, 256, 3), "QQYXS", "", "a") == ("BBYXS", "the shape")


@pytest.mark.parametrize(
    ("order", "shape", "axes"),
    [
        ("XYB", (60, 50, 20), "YXB"),
        ("YXB", (60, 50, 20), "YXB"),
        ("CXYB", (2, 60, 50, 9), "CYXB"),
        ("TCZYX", (5, 2, 7, 60, 50), "TCZYX"),
        ("ZXY", (3, 60, 50), "ZYX"),
        ("CXY", (1, 2, 1, 60, 50), "BCBYX"),
    ],
)
def test_the_order_of_the_job_has_more_authority(order: str, shape: tuple[int, ...], axes: str) -> None:
    assert resolve(shape, "Q" * len(shape), order, "a") == (axes, "dimension_order")


@pytest.mark.parametrize("order", ["XY", "BXY", "XYB", "BXYC", "TCZYX"])
@pytest.mark.parametrize("shape", [(60, 50), (1, 60, 50), (60, 50, 1), (1, 1, 1, 60, 50)])
def test_one_plane_fits_every_order(order: str, shape: tuple[int, ...]) -> None:
    axes, _ = resolve(shape, "Q" * len(shape), order, "a")
    assert (shape[axes.index("Y")], shape[axes.index("X")]) == (60, 50)


def test_rows_and_columns_of_the_file_are_kept() -> None:
    message = "a.tif: field dimension_order: XYB makes 256 image(s) of 9 x 256 px with 1 channel(s) of (9, 256, 256), "
    with pytest.raises(InvalidImage, match=re.escape(message) + ".*axes TYX; give TYX, or leave the field empty$"):
        resolve((9, 256, 256), "TYX", "XYB", "a.tif")


def test_an_order_of_another_rank_is_refused_with_both_shapes() -> None:
    message = (
        "field dimension_order: BXYC names 4 axes, but the image has 3: CYX (2, 256, 256), from the file; give CYX"
    )
    with pytest.raises(InvalidImage, match=re.escape(message)):
        resolve((2, 256, 256), "CYX", "BXYC", "a.tif")


@pytest.mark.parametrize("order", ["XYB", "XYC"])
def test_two_channels_are_never_two_rows(order: str) -> None:
    with pytest.raises(InvalidImage, match=f"{order} makes .* 2 x 256 px .*; give CYX, or leave the field empty"):
        resolve((2, 256, 256), "QQQ", order, "a.npy")
    assert advised("CYX") == "CYX"


def test_a_shape_that_holds_no_image_is_not_guessed() -> None:
    with pytest.raises(
        InvalidImage, match=r"its shape makes .* of \(50, 2, 50\), .*; name its axes in field dimension"
    ):
        resolve((50, 2, 50), "QQQ", "", "a.npy")


SMALL = np.random.default_rng(2).integers(0, 255, (2, 40, 36)).astype(np.uint8)
LAST = np.ascontiguousarray(np.moveaxis(SMALL, 0, -1))
#: The same two channels, as files say it or don't.
WRITERS: dict[str, Any] = {
    "npy-cyx": lambda path: np.save(path, SMALL),
    "npy-yxc": lambda path: np.save(path, LAST),
    "pages": lambda path: tifffile.imwrite(path, SMALL, photometric="minisblack"),
    "pages-without-metadata": lambda path: tifffile.imwrite(path, SMALL, photometric="minisblack", metadata=None),
    "yxc-by-imwrite": lambda path: tifffile.imwrite(path, LAST, photometric="minisblack"),
    "yxc-packed": lambda path: tifffile.imwrite(path, LAST, photometric="minisblack", compression="zlib"),
    "imagej": lambda path: tifffile.imwrite(path, SMALL, imagej=True, metadata={"axes": "CYX"}),
    "ome": lambda path: tifffile.imwrite(path, SMALL, ome=True, photometric="minisblack", metadata={"axes": "CYX"}),
    "samples": lambda path: tifffile.imwrite(path, LAST, photometric="minisblack", planarconfig="contig"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_two_channels_are_read_alike_whole_and_by_window(tmp_path: Path, writer: str) -> None:
    path = tmp_path / ("a.npy" if writer.startswith("npy") else "a.tif")
    WRITERS[writer](path)
    image = read_image(path)
    channels = np.moveaxis(image.array, image.axes.index("C"), 0)
    np.testing.assert_array_equal(channels, SMALL)
    with open_windowed(path, name="a") as opened:
        assert opened.shape == (1, 40, 36, 2)
        part = opened.read(0, (slice(3, 30), slice(5, 9)))
    np.testing.assert_array_equal(np.moveaxis(part[0], -1, 0), SMALL[:, 3:30, 5:9])
