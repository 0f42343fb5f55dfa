from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from redis_consumer.errors import InvalidJob, ModelMismatch
from redis_consumer.job import ModelId
from redis_consumer.models.card import Tile as CardTile
from redis_consumer.options import TilingOptions
from redis_consumer.segmentation.tiling import Tiling, measured_call

MODEL = ModelId("M", 1)
CARD = CardTile(size_px=64, overlap_px=16, multiple_px=8)


def image(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("tiling", "shape", "tile", "count"),
    [
        (Tiling(MODEL), (2, 100, 90, 3), (100, 90), 1),
        (Tiling(MODEL, (32, 48)), (1, 100, 48, 3), (32, 48), 4),
        (Tiling(MODEL, card=CARD), (1, 100, 30, 1), (64, 32), 2),
        (Tiling(MODEL, card=CARD), (1, 5, 200, 1), (8, 64), 4),
        (Tiling(MODEL, (32, None), card=CARD), (1, 32, 20, 1), (32, 24), 1),
        (Tiling(MODEL, (8, 32, 32)), (1, 20, 32, 32, 1), (8, 32, 32), 3),
        (Tiling(MODEL, (None, None, None), card=CARD), (1, 20, 64, 100, 1), (20, 64, 64), 2),
    ],
    ids=["whole", "fixed", "card", "thin", "half fixed", "fixed volume", "card for a volume"],
)
def test_tiles_are_as_the_model_fixes_else_as_its_card_says_else_the_image(
    tiling: Tiling, shape: tuple[int, ...], tile: tuple[int, ...], count: int
) -> None:
    plan = tiling.planned(image(*shape)).plan
    assert (plan.tile, len(plan)) == (tile, count)


@pytest.mark.parametrize(
    ("tiling", "shape", "pixels"),
    [
        (Tiling(MODEL), (2, 100, 90, 3), 2 * 100 * 90),
        (Tiling(MODEL, card=CARD, pixel_bytes=20), (1, 64, 64, 3), 64 * 64),
        (Tiling(MODEL, card=CARD, pixel_bytes=20), (1, 6400, 6400, 3), 64 * 64 * 64),
        (Tiling(MODEL, (8, 32, 32), items=2), (20, 32, 32, 3), 2 * 8 * 32 * 32),
    ],
    ids=["whole", "one tile", "a full call", "volumes"],
)
def test_a_call_that_nobody_has_measured_is_estimated(
    tiling: Tiling, shape: tuple[int, int, int, int], pixels: int
) -> None:
    outputs = tiling.pixel_bytes or 4
    assert tiling.estimated_call_bytes(shape, is_in_process=False) == pixels * 2 * (4 * 3 + outputs)
    assert tiling.estimated_call_bytes(shape, is_in_process=True) == pixels * (2 * (4 * 3 + outputs) + 4 * 64)


def test_a_measured_call_counts_at_least_what_goes_in_and_out_and_a_full_batch() -> None:
    tiling = Tiling(MODEL, card=CARD, channels=1)
    batch = image(2, 64, 64, 1)
    outputs, counted = measured_call(lambda: [batch], tiling, batch)
    assert outputs[0] is batch
    assert counted >= 64 // 2 * 2 * batch.nbytes


def test_planes_are_the_depth_of_one_volume() -> None:
    planned = Tiling(MODEL, (8, 16, 16)).planned(image(12, 16, 16, 1))
    assert planned.batch.shape == (1, 12, 16, 16, 1)
    assert planned.plan.shape == (12, 16, 16)


@pytest.mark.parametrize(
    ("side", "channels", "size"), [(128, 1, 64), (256, 1, 16), (256, 2, 8), (64, 1, 64), (2048, 4, 1)]
)
def test_the_batch_size_counts_tiles_of_the_smallest_model(side: int, channels: int, size: int) -> None:
    assert Tiling(MODEL, (side, side)).planned(image(1, side, side, channels)).batch_size == size


@pytest.mark.parametrize(("limit", "size"), [(10 * 128**2 * 4, 10), (1, 1)])
def test_a_call_has_no_more_bytes_than_allowed(limit: int, size: int) -> None:
    options = TilingOptions(max_call_bytes=limit)
    assert Tiling(MODEL, (128, 128), options=options).planned(image(1, 128, 128, 1)).batch_size == size


def test_a_reply_has_no_more_bytes_than_allowed() -> None:
    options = TilingOptions(max_call_bytes=128**2 * 4 * 10)
    assert Tiling(MODEL, (128, 128), pixel_bytes=20, options=options).planned(image(1, 128, 128, 1)).batch_size == 2


def test_another_number_of_channels_is_named() -> None:
    with pytest.raises(
        ModelMismatch, match=r"has 3 channel\(s\), model M:1 takes 2; name those to use in field channels, e.g. 0,1$"
    ):
        Tiling(MODEL, channels=2).planned(image(1, 8, 8, 3))


@pytest.mark.parametrize("shape", [(8, 8), (1, 2, 8, 8, 1), (1, 0, 8, 1)])
def test_arrays_that_are_no_images_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelMismatch, match=r"isn't \(batch, y, x, channel\)"):
        Tiling(MODEL).planned(image(*shape))


def test_cuts_are_as_the_job_says_in_the_multiples_of_the_card() -> None:
    planned = Tiling(MODEL, card=CARD).planned_cuts(image(1, 100, 90, 1), 2, 61)
    assert (planned.plan.tile, len(planned.plan), planned.batch_size) == ((112, 112), 4, 64)


def test_cuts_beyond_the_limits_are_refused() -> None:
    options = TilingOptions(max_tile_yx=(2048, 100))
    with pytest.raises(InvalidJob, match="pieces of 100 x 150 px, more than 2048 x 100"):
        Tiling(MODEL, options=options).planned_cuts(image(1, 40, 90, 1), 1, 61)


def test_a_model_without_channels_gets_planes_and_its_planes_get_channels() -> None:
    seen: list[tuple[int, ...]] = []

    def predict(tiles: Any) -> list[Any]:
        seen.append(tiles.shape)
        return [tiles]

    (output,) = Tiling(MODEL, has_channels=False).adapted(predict)(image(3, 8, 8, 1))
    assert seen == [(3, 8, 8)]
    assert output.shape == (3, 8, 8, 1)


def test_each_call_has_as_many_tiles_as_the_model_wants() -> None:
    asked: list[int] = []

    def predict(tiles: Any) -> list[Any]:
        asked.append(len(tiles))
        return [tiles * 2]

    filled = Tiling(MODEL, (16, 16), channels=1, items=4).filled(predict)
    for count in (4, 1):
        tiles = np.random.default_rng(1).random((count, 16, 16, 1), dtype=np.float32)
        np.testing.assert_array_equal(filled(tiles)[0], tiles * 2)
    assert asked == [4, 4]
