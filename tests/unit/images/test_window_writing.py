from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorstore
import tifffile

from redis_consumer.errors import PermanentError
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.scratch import TileScratch
from redis_consumer.images.window_writing import TiledPlane, write_ome_zarr, write_tiled_tiff
from redis_consumer.images.windows import open_windowed

Array = npt.NDArray[Any]


def plane_of(array: Array, tile_px: int = 32, **options: Any) -> TiledPlane:
    """An array (B, Y, X) as tiles."""

    def tile(frame: int, row: int, column: int) -> Array:
        return array[frame, row * tile_px :, column * tile_px :][:tile_px, :tile_px]

    return TiledPlane((len(array), *array.shape[1:]), tile_px, array.dtype, tile, **options)


SHAPES = [(1, 100, 70), (1, 32, 32), (1, 1, 1), (1, 5, 1), (3, 40, 33)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.uint32, np.float32])
def test_a_tiff_holds_the_plane_as_float32(tmp_path: Path, shape: tuple[int, int, int], dtype: type) -> None:
    array: Array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    write_tiled_tiff(plane_of(array), tmp_path / "new" / "a_feature_0.tif")
    with tifffile.TiffFile(tmp_path / "new" / "a_feature_0.tif") as tif:
        assert (tif.pages.first.is_tiled, tif.is_bigtiff) == (True, False)
        read = tif.asarray()
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read.reshape(shape), array)


def test_a_tiff_that_may_exceed_4_gib_is_a_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_consumer.images.window_writing._CLASSIC_BYTES", 4000)
    write_tiled_tiff(plane_of(np.ones((1, 40, 40), np.uint32)), tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff


@pytest.mark.parametrize("shape", SHAPES)
def test_an_ome_zarr_holds_the_plane_as_it_is(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    array = (np.arange(np.prod(shape)).reshape(shape) + (1 << 24)).astype(np.uint32)
    files = write_ome_zarr(plane_of(array, calibration=Calibration((), (0.5, 0.5))), tmp_path / "new" / "a.zarr")
    assert all(path.is_file() for path in files)
    with open_windowed(tmp_path / "new" / "a.zarr", name="a.zarr") as image:
        assert (image.shape, image.pixel_size_um) == ((*shape, 1), 0.5)
        for frame in range(shape[0]):
            part = image.read(frame, (slice(0, shape[1]), slice(0, shape[2])))[0, ..., 0]
            # Without the offset that float32 could not hold.
            np.testing.assert_array_equal(part - part.flat[0], array[frame] - array[frame].flat[0])


def test_labels_that_float32_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    array = np.ones((1, 2, 2), np.uint32)
    write_tiled_tiff(plane_of(array, max_label=1 << 24), tmp_path / "a.tif")
    with pytest.raises(PermanentError, match="^result: holds labels up to 16777217, .* OME-Zarr"):
        write_tiled_tiff(plane_of(array, max_label=(1 << 24) + 1), tmp_path / "b.tif")
    write_ome_zarr(plane_of(array, max_label=(1 << 24) + 1), tmp_path / "b.zarr")


def test_tiles_come_back_from_the_scratch_file_which_goes_at_the_end(tmp_path: Path) -> None:
    part = np.random.default_rng(1).integers(0, 9, (50, 40)).astype(np.uint32)
    with TileScratch(tmp_path / "scratch", tile_px=32) as scratch:
        scratch.write(1, 2, (64, 32), part)
        np.testing.assert_array_equal(scratch.read((1, 2, 2, 1), (32, 32), part.dtype), part[:32, :32])
        np.testing.assert_array_equal(scratch.read((1, 2, 3, 2), (18, 8), part.dtype), part[32:, 32:])
    assert not (tmp_path / "scratch").exists()


def test_an_ome_zarr_has_axes_sizes_labels_and_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_consumer.images.window_writing._LAST_LEVEL_PX", 30)
    array = np.arange(6 * 50 * 70).reshape(6, 50, 70).astype(np.uint32)
    calibration = Calibration((("T", 2), ("Z", 3)), (0.5, 0.25), 2.0, 60.0)
    write_ome_zarr(plane_of(array, calibration=calibration), tmp_path / "a.zarr")
    with open_windowed(tmp_path / "a.zarr", name="a.zarr") as image:
        assert image.calibration == calibration
    attributes = json.loads((tmp_path / "a.zarr" / ".zattrs").read_text())
    (multiscale,) = attributes["multiscales"]
    assert "image-label" in attributes
    assert [(axis["name"], axis["unit"]) for axis in multiscale["axes"]] == [
        ("t", "second"), ("z", "micrometer"), ("y", "micrometer"), ("x", "micrometer"),
    ]  # fmt: skip
    scales = [level["coordinateTransformations"][0]["scale"] for level in multiscale["datasets"]]
    assert scales == [[60.0, 2.0, 0.5, 0.25], [60.0, 2.0, 1.0, 0.5], [60.0, 2.0, 2.0, 1.0]]
    for level, path in enumerate(each["path"] for each in multiscale["datasets"]):
        spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{tmp_path}/a.zarr/{path}/"}}
        pixels = tensorstore.open(spec).result().read().result()
        step = 1 << level
        np.testing.assert_array_equal(pixels.reshape(6, *pixels.shape[-2:]), array[:, ::step, ::step])


def test_a_tiled_tiff_keeps_axes_and_sizes(tmp_path: Path) -> None:
    calibration = Calibration((("T", 2), ("Z", 3)), (0.5, 0.5), 2.0, 60.0)
    write_tiled_tiff(plane_of(np.ones((6, 50, 70), np.uint32), calibration=calibration), tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert (tif.series[0].axes, tif.series[0].shape) == ("TZYX", (2, 3, 50, 70))
    with open_windowed(tmp_path / "a.tif", name="a.tif") as image:
        assert image.calibration == calibration
