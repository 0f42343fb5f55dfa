from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_consumer.errors import ModelMismatch
from redis_consumer.processing.cuts import plan_cuts
from redis_consumer.processing.tiled import Planned, Predict, TilePlan, paste, plan_tiles, run_each, run_tiled

Array = npt.NDArray[Any]


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
    (outputs,) = run_each([Planned(batch, plan, batch_size)], predict)
    return outputs


def ramp(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def blurring(sigma: float, radius: int, axes: int = 2) -> Predict:
    """A model whose output depends on `radius` pixels around each, and that sees zeros beyond its tile."""
    from scipy.ndimage import gaussian_filter

    def blur(tiles: Array) -> list[Array]:
        return [gaussian_filter(tiles, sigma, mode="constant", radius=radius, axes=tuple(range(1, 1 + axes)))]

    return blur


@st.composite
def tilings(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Shape of a batch of one or two axes, or three; tile; overlaps."""
    axes = draw(st.integers(2, 3))
    sides = draw(st.tuples(*[st.integers(1, 24)] * axes))
    tile = draw(st.tuples(*[st.integers(1, 16)] * axes))
    overlaps = tuple(draw(st.integers(0, side - 1)) for side in tile)
    return (draw(st.integers(1, 3)), *sides, draw(st.integers(1, 3))), tile, overlaps


@given(tilings(), st.integers(1, 5))
@settings(max_examples=300)
def test_a_model_of_single_pixels_gives_exactly_what_it_gives_for_the_whole_image(
    tiling: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], batch_size: int
) -> None:
    shape, tile, overlaps = tiling
    image = ramp(*shape)

    def predict(tiles: Array) -> list[Array]:
        return [np.sqrt(tiles) - 1, tiles[..., :1] > 7]

    outputs = run_tiled(image, predict, tile=tile, overlap_px=overlaps, batch_size=batch_size)
    for output, expected in zip(outputs, predict(image), strict=True):
        assert output.dtype == expected.dtype
        assert np.array_equal(output, expected)


@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 40), st.integers(1, 40), st.just(1)),
    cuts=st.integers(1, 45),
    field=st.integers(1, 31),
)
@settings(max_examples=200)
def test_stitched_cuts_are_the_image(shape: tuple[int, int, int, int], cuts: int, field: int) -> None:
    image = ramp(*shape)
    (output,) = run_cuts(image, same, min(cuts, *shape[1:3]), field)
    assert np.array_equal(output, image)


def test_a_smooth_output_has_no_larger_error_at_seams_than_inside() -> None:
    """The model sees 8 px to each side: a field of 17 px, about half of the overlap."""
    y, x = np.mgrid[0:200, 0:170] / 20
    image = (np.sin(y) * np.cos(x) + 2).astype(np.float32)[np.newaxis, ..., np.newaxis]
    blur = blurring(3.0, 8)
    (tiled,) = run_tiled(image, blur, tile=(64, 64), overlap_px=34, batch_size=3)
    error = np.abs(tiled - blur(image)[0])
    # A convolution's rounding differs with where a tile begins; nothing else does.
    assert error.max() < 2e-6
    at_seams = np.zeros(image.shape, bool)
    for axis, spans in enumerate(plan_tiles((200, 170), (64, 64), 34).axes):
        for span in spans[1:]:
            np.moveaxis(at_seams, axis + 1, 0)[span.target.start : span.target.start + span.before] = True
    assert error[at_seams].max() <= error[~at_seams].max() + 1e-6


def test_a_model_that_sees_further_than_the_overlap_leaves_no_step() -> None:
    image = np.ones((1, 200, 200, 1), np.float32)
    blur = blurring(8.0, 24)
    (tiled,) = run_tiled(image, blur, tile=(64, 64), overlap_px=24)
    (cut,) = run_cuts(image, blur, 5, 24)
    inside = slice(30, 170)
    steps, cut_steps = (np.abs(np.diff(output[0, inside, inside, 0], axis=1)).max() for output in (tiled, cut))
    assert steps < cut_steps


def test_volumes_are_blended_along_depth_too() -> None:
    z, y, x = np.mgrid[0:40, 0:50, 0:45] / 10
    image = np.sin(z + y * x / 4).astype(np.float32)[np.newaxis, ..., np.newaxis]
    blur = blurring(1.0, 3, axes=3)
    (tiled,) = run_tiled(image, blur, tile=(20, 24, 22), overlap_px=(12, 14, 13), batch_size=2)
    np.testing.assert_allclose(tiled, blur(image)[0], atol=2e-6)


def test_a_constant_of_half_precision_stays_that_constant() -> None:
    value = np.float16(1 / 3)
    (output,) = run_tiled(
        np.zeros((1, 50, 50, 1), np.float32),
        lambda tiles: [np.full_like(tiles, value, np.float16)],
        tile=(16, 16),
        overlap_px=8,
    )
    assert output.dtype == np.float32
    assert np.all(output == np.float32(value))


def test_an_image_of_the_tile_s_size_is_one_call_on_a_view_and_its_reply_the_output() -> None:
    image = ramp(1, 16, 16, 1)
    model = Recorder()
    (output,) = run_tiled(image, model, tile=(16, 16), overlap_px=8, batch_size=4)
    assert len(model.seen) == 1
    assert np.shares_memory(model.seen[0], image)
    assert np.shares_memory(output, model.seen[0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (5, 7)])
def test_small_images_are_reflected_to_the_tile(shape: tuple[int, int]) -> None:
    model = Recorder()
    image = ramp(1, *shape, 1)
    run_tiled(image, model, tile=(16, 16), overlap_px=4)
    assert set(model.shapes) == {(1, 16, 16, 1)}
    assert all(np.isin(tiles, image).all() for tiles in model.seen)


def test_outputs_may_differ_in_number_channels_and_dtype() -> None:
    image = ramp(2, 20, 30, 3)

    def predict(tiles: Array) -> list[Array]:
        return [tiles.sum(axis=-1, keepdims=True), (tiles > 5), tiles[..., [0, 1, 2, 0]].astype(np.int16)]

    total, mask, four = run_tiled(image, predict, tile=(8, 8), overlap_px=2, batch_size=3)
    assert np.array_equal(total, image.sum(axis=-1, keepdims=True))
    assert np.array_equal(mask, image > 5)
    assert four.shape == (2, 20, 30, 4)
    assert (mask.dtype, four.dtype) == (np.dtype(bool), np.dtype(np.int16))


def test_batches_are_filled_across_images_and_progress_is_told() -> None:
    model = Recorder()
    steps: list[tuple[int, int]] = []
    run_tiled(
        ramp(3, 8, 16, 1), model, tile=(8, 8), batch_size=4, on_progress=lambda done, total: steps.append((done, total))
    )
    assert [len(tiles) for tiles in model.seen] == [4, 2]
    assert steps == [(4, 6), (6, 6)]


def test_many_images_are_one_stream_of_calls() -> None:
    images = [ramp(1, 20, 30, 1), ramp(1, 8, 8, 1), ramp(2, 9, 17, 1)]
    planned = [Planned(image, plan_tiles(image.shape[1:3], (8, 8), 2), 4) for image in images]
    done: list[int] = []
    streams: list[object] = []

    def mapped(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        streams.append(function)
        return map(function, items)

    outputs = list(run_each(planned, same, map_batches=mapped, on_tiles=done.append))
    assert all(np.array_equal(output, image) for (output,), image in zip(outputs, images, strict=True))
    assert len(streams) == 1
    assert done[-1] == sum(plan.tiles for plan in planned)


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
        run_tiled(ramp(1, 16, 16, 1), reply, tile=(8, 8), batch_size=2)


@pytest.mark.parametrize(
    "later", [lambda tiles: [tiles, tiles], lambda tiles: [tiles[..., [0, 0]]]], ids=["number", "channels"]
)
def test_replies_that_change_are_a_mismatch(later: Callable[[Array], list[Array]]) -> None:
    replies = iter([same, later])
    with pytest.raises(ModelMismatch):
        run_tiled(ramp(1, 8, 16, 1), lambda tiles: next(replies)(tiles), tile=(8, 8))


@pytest.mark.parametrize(
    ("shape", "tile", "text"),
    [
        ((16, 16, 1), (8, 8), "batch, y, x, channel"),
        ((1, 0, 16, 1), (8, 8), "batch, y, x, channel"),
        ((1, 1, 0, 1, 1), (1, 1, 1), "z, y, x"),
    ],
)
def test_arrays_that_are_no_batch_are_refused(shape: tuple[int, ...], tile: tuple[int, ...], text: str) -> None:
    with pytest.raises(ModelMismatch, match=text):
        run_tiled(ramp(*shape), same, tile=tile)


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


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    """Plans of one to three axes, with any overlap that fits."""
    axes = draw(st.integers(1, 3))
    shape = draw(st.tuples(*[st.integers(1, 24)] * axes))
    tile = draw(st.tuples(*[st.integers(1, 12)] * axes))
    return plan_tiles(shape, tile, tuple(draw(st.integers(0, side - 1)) for side in tile))


def pasted(plan: TilePlan, predictions: list[Array]) -> Array:
    """The blended output; what no tile gives stays NaN, or 99."""
    dtype = predictions[0].dtype
    output = np.full((*plan.shape, predictions[0].shape[-1]), np.nan if dtype.kind in "fc" else 99, dtype)
    for tile, prediction in zip(plan, predictions, strict=True):
        paste(output, tile, prediction)
    return output


def weights(plan: TilePlan) -> list[Array]:
    """The weight of each tile on each pixel: the output where it says 1 and all others 0."""
    return [
        pasted(plan, [np.full((*plan.tile, 1), float(other == one)) for other in range(len(plan))])
        for one in range(min(len(plan), 40))
    ]


@given(plans().filter(lambda plan: len(plan) <= 40))
@settings(max_examples=100)
def test_weights_sum_to_one_on_every_pixel(plan: TilePlan) -> None:
    np.testing.assert_allclose(sum(weights(plan)), 1, atol=1e-12)
    assert all((weight >= 0).all() for weight in weights(plan))


@given(plans(), st.floats(-1e6, 1e6, width=32))
@settings(max_examples=200)
def test_a_constant_stays_that_constant(plan: TilePlan, value: float) -> None:
    predictions = [np.full((*plan.tile, 2), value, np.float32) for _ in range(len(plan))]
    assert np.all(pasted(plan, predictions) == np.float32(value))


@given(plans(), st.integers(0, 2**32 - 1))
@settings(max_examples=200)
def test_the_output_lies_between_what_the_tiles_say(plan: TilePlan, seed: int) -> None:
    rng = np.random.default_rng(seed)
    output = pasted(plan, [rng.random((*plan.tile, 1), np.float32) for _ in range(len(plan))])
    assert output.min() >= 0
    assert output.max() <= 1


@pytest.mark.parametrize("overlap", [8, 20, 32, 45])
def test_between_two_tiles_the_output_rises_without_a_step(overlap: int) -> None:
    plan = plan_tiles((100, 1), (60, 1), (overlap, 0))
    output = pasted(plan, [np.full((60, 1, 1), float(index)) for index in range(len(plan))])[:, 0, 0]
    assert np.all(np.diff(output) >= 0)
    width = plan.axes[0][0].after
    assert np.abs(np.diff(output)).max() <= 2 / width


def test_weights_are_products_of_those_along_the_axes() -> None:
    plan = plan_tiles((50, 44), (20, 16), (8, 6))
    along = [
        weights(TilePlan((side,), (tile,), (spans,)))
        for side, tile, spans in zip(plan.shape, plan.tile, plan.axes, strict=True)
    ]
    expected = [row[:, np.newaxis] * column[np.newaxis] for row in along[0] for column in along[1]]
    np.testing.assert_allclose(weights(plan), expected, atol=1e-12)


@given(plans())
@settings(max_examples=100)
def test_whole_numbers_are_never_mixed(plan: TilePlan) -> None:
    output = pasted(plan, [np.full((*plan.tile, 1), 2 * index + 1, np.int16) for index in range(len(plan))])
    assert np.all(output % 2 == 1)


def test_infinite_predictions_stay_so_where_tiles_agree() -> None:
    plan = plan_tiles((30, 30), (16, 16), 8)
    output = pasted(plan, [np.full((16, 16, 1), -np.inf, np.float32) for _ in plan])
    assert np.all(output == -np.inf)
