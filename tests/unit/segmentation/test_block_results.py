from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from redis_consumer.errors import ModelMismatch
from redis_consumer.images.calibration import Calibration
from redis_consumer.images.scratch import TileScratch
from redis_consumer.images.window_writing import TiledPlane
from redis_consumer.processing.blocks import plan_blocks
from redis_consumer.segmentation.block_results import BlockResults

Array = npt.NDArray[Any]

GRID = plan_blocks((40, 70), 32, 8, 16)


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[TileScratch]:
    with TileScratch(tmp_path / "tiles", tile_px=16) as scratch:
        yield scratch


def whole(plane: TiledPlane, frame: int) -> Array:
    result = np.zeros(plane.shape[1:], plane.dtype)
    for at, row, column in plane.places():
        if at == frame:
            tile = plane.tile(frame, row, column)
            result[row * 16 :, column * 16 :][: tile.shape[0], : tile.shape[1]] = tile
    return result


def test_values_stay_and_labels_are_joined_frame_by_frame(scratch: TileScratch) -> None:
    values = np.random.default_rng(1).random((2, 40, 70), dtype=np.float32)
    labels = np.zeros((2, 40, 70), np.int32)
    labels[0, 10:20, 20:50], labels[1, 2:4, 2:4], labels[1, 30:39, 60:69] = 7, 8, 9
    results = BlockResults(2, GRID, scratch)
    for frame in range(2):
        for block in GRID:
            parts = [array[frame][block.window][np.newaxis, ..., np.newaxis] for array in (values, labels)]
            results.add(frame, block, parts)
    first, second = results.planes(Calibration((), (0.5, 0.5)))
    assert (first.dtype, first.max_label) == (np.dtype(np.float32), 0)
    assert (second.dtype, second.max_label) == (np.dtype(np.uint32), 2)
    assert first.calibration.pixel_yx_um == (0.5, 0.5)
    for frame, names in enumerate(({7: 1}, {8: 1, 9: 2})):
        np.testing.assert_array_equal(whole(first, frame), values[frame])
        expected = sum((labels[frame] == old) * new for old, new in names.items())
        np.testing.assert_array_equal(whole(second, frame), expected)


@pytest.mark.parametrize("shape", [(1, 40, 69, 1), (2, 40, 32, 1), (40, 40)])
def test_a_result_of_another_shape_is_refused(scratch: TileScratch, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelMismatch, match="^result: has the shape"):
        BlockResults(1, GRID, scratch).add(0, next(iter(GRID)), [np.zeros(shape)])


@pytest.mark.parametrize(("channels", "dtype"), [(2, np.int32), (1, np.float32)])
def test_results_that_change_from_block_to_block_are_refused(scratch: TileScratch, channels: int, dtype: type) -> None:
    results = BlockResults(1, GRID, scratch)
    first, second, *_ = GRID
    results.add(0, first, [np.zeros((1, *first.shape_yx, 1), np.int32)])
    with pytest.raises(ModelMismatch, match="^result: . channels for one part"):
        results.add(0, second, [np.zeros((1, *second.shape_yx, channels), dtype)])


def test_numbers_that_are_no_labels_stay(scratch: TileScratch) -> None:
    classes = np.random.default_rng(1).integers(-2, 3, (40, 70))
    results = BlockResults(1, GRID, scratch, has_labels=False)
    for block in GRID:
        results.add(0, block, [classes[block.window][np.newaxis, ..., np.newaxis]])
    (plane,) = results.planes(Calibration())
    np.testing.assert_array_equal(whole(plane, 0), classes)


def test_a_label_below_0_is_refused(scratch: TileScratch) -> None:
    block = next(iter(GRID))
    labels = np.full((1, 40, 70, 1), -1)[:, block.window[0], block.window[1]]
    with pytest.raises(ModelMismatch, match="has the label -1"):
        BlockResults(1, GRID, scratch).add(0, block, [labels])
