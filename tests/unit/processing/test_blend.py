from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_consumer.processing.blend import paste
from redis_consumer.processing.tiles import TilePlan, plan_tiles

Array = npt.NDArray[Any]


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
@settings(max_examples=100, deadline=None)
def test_weights_sum_to_one_on_every_pixel(plan: TilePlan) -> None:
    np.testing.assert_allclose(sum(weights(plan)), 1, atol=1e-12)
    assert all((weight >= 0).all() for weight in weights(plan))


@given(plans(), st.floats(-1e6, 1e6, width=32))
@settings(max_examples=200, deadline=None)
def test_a_constant_stays_that_constant(plan: TilePlan, value: float) -> None:
    predictions = [np.full((*plan.tile, 2), value, np.float32) for _ in range(len(plan))]
    assert np.all(pasted(plan, predictions) == np.float32(value))


@given(plans(), st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
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
@settings(max_examples=100, deadline=None)
def test_whole_numbers_are_never_mixed(plan: TilePlan) -> None:
    output = pasted(plan, [np.full((*plan.tile, 1), 2 * index + 1, np.int16) for index in range(len(plan))])
    assert np.all(output % 2 == 1)


def test_infinite_predictions_stay_so_where_tiles_agree() -> None:
    plan = plan_tiles((30, 30), (16, 16), 8)
    output = pasted(plan, [np.full((16, 16, 1), -np.inf, np.float32) for _ in plan])
    assert np.all(output == -np.inf)
