from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_consumer.errors import InvalidJob, ModelMismatch
from redis_consumer.processing.tiles import Predict, fit_tile, plan_cuts, plan_tiles, run_plan, run_tiled

Array = npt.NDArray[Any]
SIDES = st.integers(1, 40)


def same(tiles: Array) -> list[Array]:
    return [tiles]


class Recorder:
    """A model that gives back its tiles and remembers them."""

    def __init__(self) -> None:
        self.seen: list[Array] = []

    def __call__(self, tiles: Array) -> list[Array]:
        self.seen.append(tiles)
        return [tiles]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [tiles.shape for tiles in self.seen]


def run_cuts(batch: Array, predict: Predict, cuts: int, field: int, *, batch_size: int = 8) -> list[Array]:
    plan = plan_cuts((batch.shape[1], batch.shape[2]), cuts, field)
    return run_plan(batch, predict, plan, batch_size=batch_size)


def ramp(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@given(
    shape=st.tuples(st.integers(1, 3), SIDES, SIDES, st.integers(1, 2)),
    tile=st.tuples(SIDES, SIDES),
    overlap=st.integers(0, 39),
    batch_size=st.integers(1, 5),
)
@settings(max_examples=300, deadline=None)
def test_stitched_tiles_are_the_image(
    shape: tuple[int, int, int, int], tile: tuple[int, int], overlap: int, batch_size: int
) -> None:
    image = ramp(*shape)
    overlap = min(overlap, *(side - 1 for side in tile))
    (output,) = run_tiled(image, same, tile_yx=tile, overlap_px=overlap, batch_size=batch_size)
    assert np.array_equal(output, image)


@given(shape=st.tuples(st.integers(1, 2), SIDES, SIDES, st.just(1)), cuts=st.integers(1, 45), field=st.integers(1, 31))
@settings(max_examples=200, deadline=None)
def test_stitched_cuts_are_the_image(shape: tuple[int, int, int, int], cuts: int, field: int) -> None:
    image = ramp(*shape)
    (output,) = run_cuts(image, same, min(cuts, *shape[1:3]), field)
    assert np.array_equal(output, image)


@given(shape=st.tuples(SIDES, SIDES), tile=st.tuples(SIDES, SIDES), overlap=st.integers(0, 39))
@settings(max_examples=200, deadline=None)
def test_targets_cover_every_pixel_once(shape: tuple[int, int], tile: tuple[int, int], overlap: int) -> None:
    overlap = min(overlap, *(side - 1 for side in tile))
    covered = np.zeros(shape, int)
    for part in plan_tiles(shape, tile, overlap).tiles:
        covered[part.target] += 1
    assert np.all(covered == 1)


@given(side=st.integers(1, 200), tile=st.integers(1, 60), overlap=st.integers(0, 59))
@settings(max_examples=200, deadline=None)
def test_neighbours_share_the_overlap_and_lie_inside(side: int, tile: int, overlap: int) -> None:
    overlap = min(overlap, tile - 1)
    plan = plan_tiles((side, 1), (tile, 1), overlap)
    starts = [part.source[0].start for part in plan.tiles]
    assert all(start + tile - following >= overlap for start, following in pairwise(starts))
    assert starts[0] == 0
    assert starts[-1] + tile == max(side, tile)


def test_pixels_far_from_a_tile_s_border_are_kept_where_tiles_overlap() -> None:
    plan = plan_tiles((100, 1), (40, 1), 20)
    assert [(part.source[0].start, part.target[0].start) for part in plan.tiles] == [
        (0, 0),
        (20, 30),
        (40, 50),
        (60, 70),
    ]


def test_an_image_of_the_tile_s_size_is_one_call_on_a_view() -> None:
    image = ramp(1, 16, 16, 1)
    model = Recorder()
    run_tiled(image, model, tile_yx=(16, 16), overlap_px=8, batch_size=4)
    assert len(model.seen) == 1
    assert np.shares_memory(model.seen[0], image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (5, 7)])
def test_small_images_are_reflected_to_the_tile(shape: tuple[int, int]) -> None:
    model = Recorder()
    image = ramp(1, *shape, 1)
    run_tiled(image, model, tile_yx=(16, 16), overlap_px=4)
    assert set(model.shapes) == {(1, 16, 16, 1)}
    assert all(np.isin(tiles, image).all() for tiles in model.seen)


def test_outputs_may_differ_in_number_channels_and_dtype() -> None:
    image = ramp(2, 20, 30, 3)

    def predict(tiles: Array) -> list[Array]:
        return [tiles.sum(axis=-1, keepdims=True), (tiles > 5), tiles[..., [0, 1, 2, 0]].astype(np.int16)]

    total, mask, four = run_tiled(image, predict, tile_yx=(8, 8), overlap_px=2, batch_size=3)
    assert np.array_equal(total, image.sum(axis=-1, keepdims=True))
    assert np.array_equal(mask, image > 5)
    assert four.shape == (2, 20, 30, 4)
    assert (mask.dtype, four.dtype) == (np.dtype(bool), np.dtype(np.int16))


def test_batches_are_filled_across_images_and_progress_is_told() -> None:
    model = Recorder()
    steps: list[tuple[int, int]] = []
    run_tiled(
        ramp(3, 8, 16, 1),
        model,
        tile_yx=(8, 8),
        batch_size=4,
        on_progress=lambda done, total: steps.append((done, total)),
    )
    assert [len(tiles) for tiles in model.seen] == [4, 2]
    assert steps == [(4, 6), (6, 6)]


@given(shape=st.tuples(SIDES, SIDES), cuts=st.integers(1, 9), field=st.integers(1, 61), multiple=st.integers(1, 32))
@settings(max_examples=200, deadline=None)
def test_cuts_in_multiples_of_a_size_are_the_image(
    shape: tuple[int, int], cuts: int, field: int, multiple: int
) -> None:
    image, model = ramp(1, *shape, 1), Recorder()
    plan = plan_cuts(shape, min(cuts, *shape), field, multiple_px=multiple)
    (output,) = run_plan(image, model, plan, batch_size=4)
    assert np.array_equal(output, image)
    assert {side % multiple for seen in model.shapes for side in seen[1:3]} == {0}


@pytest.mark.parametrize(
    ("shape", "limit", "multiple", "expected"),
    [
        ((300, 2000), (512, 512), 16, (304, 512)),
        ((1, 1), (512, 512), 8, (8, 8)),
        ((600, 600), (500, 500), 1, (500, 500)),
    ],
)
def test_fit_tile(shape: tuple[int, int], limit: tuple[int, int], multiple: int, expected: tuple[int, int]) -> None:
    assert fit_tile(shape, limit, multiple) == expected


@pytest.mark.parametrize(
    "reply",
    [
        lambda tiles: [],
        lambda tiles: [tiles[..., 0]],
        lambda tiles: [tiles[:, ::2, ::2]],
        lambda tiles: [tiles[:1]],
        lambda tiles: [np.zeros((len(tiles), 3))],
    ],
    ids=["none", "rank", "half size", "batch", "classes"],
)
def test_replies_of_another_shape_are_a_mismatch(reply: Callable[[Array], list[Array]]) -> None:
    with pytest.raises(ModelMismatch, match=r"^model: .*; "):
        run_tiled(ramp(1, 16, 16, 1), reply, tile_yx=(8, 8), batch_size=2)


@pytest.mark.parametrize(
    "later", [lambda tiles: [tiles, tiles], lambda tiles: [tiles[..., [0, 0]]]], ids=["number", "channels"]
)
def test_replies_that_change_are_a_mismatch(later: Callable[[Array], list[Array]]) -> None:
    replies = iter([same, later])
    with pytest.raises(ModelMismatch):
        run_tiled(ramp(1, 8, 16, 1), lambda tiles: next(replies)(tiles), tile_yx=(8, 8))


def test_the_overlap_does_not_matter_where_one_tile_is_enough() -> None:
    assert len(plan_tiles((8, 5), (8, 8), 64).tiles) == 1


@pytest.mark.parametrize("overlap", [8, 9, -1])
def test_an_overlap_no_smaller_than_the_tile_is_refused(overlap: int) -> None:
    with pytest.raises(ModelMismatch, match="overlap"):
        run_tiled(ramp(1, 16, 16, 1), same, tile_yx=(8, 8), overlap_px=overlap)


@pytest.mark.parametrize("shape", [(16, 16, 1), (1, 0, 16, 1)])
def test_arrays_that_are_no_batch_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelMismatch, match=r"batch, y, x, channel"):
        run_tiled(ramp(*shape), same, tile_yx=(8, 8))


def test_cuts_are_extended_by_the_field_and_batched() -> None:
    model = Recorder()
    run_cuts(ramp(1, 20, 31, 1), model, 3, 11, batch_size=4)
    assert model.shapes == [(4, 17, 21, 1), (4, 17, 21, 1), (1, 17, 21, 1)]


def test_cuts_give_what_the_whole_image_gives_for_a_model_of_that_field() -> None:
    from scipy.ndimage import uniform_filter

    image = np.random.default_rng(0).random((1, 37, 23, 1)).astype(np.float32)

    def blur(tiles: Array) -> list[Array]:
        return [uniform_filter(tiles, size=(1, 7, 7, 1), mode="mirror")]

    (cut,) = run_cuts(image, blur, 4, 7)
    assert np.allclose(cut, blur(image)[0], atol=1e-5)


def test_cuts_with_several_outputs() -> None:
    first, second = run_cuts(ramp(1, 9, 9, 1), lambda t: [t, t[..., [0, 0]]], 2, 1)
    assert (first.shape, second.shape) == ((1, 9, 9, 1), (1, 9, 9, 2))


@pytest.mark.parametrize(
    ("cuts", "field", "text"),
    [
        (0, 61, "cuts and field_size"),
        (2, 0, "cuts and field_size"),
        (41, 61, "field cuts: 41 .*40 px"),
        (1, 16_001, "field_size: 16001 px is too much for an image of 40 x 90 px; give at most 181"),
        (1, 181, "make pieces of 220 x 270 px, more than 128 x 128 .*; give more cuts or a smaller field_size"),
    ],
)
def test_impossible_cuts_name_the_fields(cuts: int, field: int, text: str) -> None:
    with pytest.raises(InvalidJob, match=f"{text}.*"):
        plan_cuts((40, 90), cuts, field, max_tile_yx=(128, 128))


def test_the_usual_field_fits_images_of_any_size() -> None:
    assert plan_cuts((5, 9), 1, 61).tile_yx == (65, 69)
