from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_consumer.errors import InvalidJob, ModelMismatch
from redis_consumer.processing.cuts import plan_cuts
from redis_consumer.processing.tiled import TilePlan, fit_tile, plan_tiles

Array = npt.NDArray[Any]
SIDES = st.integers(1, 40)


def numbered(*shape: int) -> Array:
    """An image whose pixels are all different, with one channel."""
    return np.arange(np.prod(shape), dtype=np.int64).reshape(*shape, 1)


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    """Plans of one to three axes, with any overlap that fits."""
    axes = draw(st.integers(1, 3))
    shape = draw(st.tuples(*[st.integers(1, 30)] * axes))
    tile = draw(st.tuples(*[st.integers(1, 20)] * axes))
    overlap = tuple(draw(st.integers(0, side - 1)) for side in tile)
    return plan_tiles(shape, tile, overlap)


@given(plans())
@settings(max_examples=300)
def test_cores_cover_every_pixel_once(plan: TilePlan) -> None:
    covered = np.zeros(plan.shape, int)
    for tile in plan:
        covered[tuple(span.core for span in tile.spans)] += 1
    assert np.all(covered == 1)
    assert len(list(plan)) == len(plan)


@given(plans())
@settings(max_examples=300)
def test_along_an_axis_a_pixel_has_at_most_two_tiles_which_both_say_so(plan: TilePlan) -> None:
    for spans in plan.axes:
        assert spans[0].before == spans[-1].after == 0
        for span, following in pairwise(spans):
            assert span.after == following.before == span.target.stop - following.target.start
        for span, _, third in zip(spans, spans[1:], spans[2:], strict=False):
            assert span.target.stop <= third.target.start


@given(plans())
@settings(max_examples=300)
def test_a_tile_has_the_planned_size_and_holds_what_it_gives(plan: TilePlan) -> None:
    image = numbered(*plan.shape)
    for tile in plan:
        cut = tile.cut(image)
        given_ = tuple(span.within(span.target) for span in tile.spans)
        assert cut.shape == (*plan.tile, 1)
        assert np.array_equal(cut[given_], image[tuple(span.target for span in tile.spans)])


@given(side=st.integers(1, 200), tile=st.integers(1, 60), overlap=st.integers(0, 59))
@settings(max_examples=200)
def test_neighbours_share_the_overlap_and_lie_inside(side: int, tile: int, overlap: int) -> None:
    plan = plan_tiles((side,), (tile,), min(overlap, tile - 1))
    sources = [span.source for span in plan.axes[0]]
    assert all(source.stop - following.start >= min(overlap, tile - 1) for source, following in pairwise(sources))
    if side >= tile:
        assert (sources[0].start, sources[-1].stop) == (0, side)


@given(side=st.integers(50, 300), tile=st.integers(20, 49), quarter=st.integers(0, 6))
@settings(max_examples=200)
def test_nothing_is_given_near_an_edge_where_the_image_goes_on(side: int, tile: int, quarter: int) -> None:
    plan = plan_tiles((side,), (tile,), min(4 * quarter, tile // 2))
    margin = min(4 * quarter, tile // 2) // 4
    for span in plan.axes[0]:
        assert span.source.start == 0 or span.target.start >= span.source.start + margin
        assert span.source.stop == side or span.target.stop <= span.source.stop - margin


@given(plans())
@settings(max_examples=200)
def test_edges_are_reflected(plan: TilePlan) -> None:
    image = numbered(*plan.shape)
    padding = [(side, side) for side in plan.tile]
    padded = np.pad(image, [*padding, (0, 0)], mode="reflect")
    for tile in plan:
        moved = tuple(
            slice(span.source.start + side, span.source.stop + side)
            for span, side in zip(tile.spans, plan.tile, strict=True)
        )
        assert np.array_equal(tile.cut(image), padded[moved])


def test_a_tile_within_the_image_is_a_view() -> None:
    image = numbered(20, 30)
    assert all(np.shares_memory(tile.cut(image), image) for tile in plan_tiles((20, 30), (8, 8), 2))


def test_tiles_come_row_by_row() -> None:
    plan = plan_tiles((8, 12), (4, 4))
    assert [tuple(span.source.start for span in tile.spans) for tile in plan] == [
        (row, column) for row in (0, 4) for column in (0, 4, 8)
    ]


def test_the_middle_half_of_what_is_shared_is_given_by_both() -> None:
    plan = plan_tiles((100,), (40,), 20)
    assert [(span.source.start, span.target.start, span.target.stop) for span in plan.axes[0]] == [
        (0, 0, 35),
        (20, 25, 55),
        (40, 45, 75),
        (60, 65, 100),
    ]


@pytest.mark.parametrize(("shape", "is_whole"), [((8, 8), True), ((8, 7), False), ((8, 9), False), ((16, 8), False)])
def test_a_plan_of_the_image_itself_is_whole(shape: tuple[int, int], is_whole: bool) -> None:
    assert plan_tiles(shape, (8, 8)).is_whole == is_whole


@pytest.mark.parametrize(
    ("shape", "limit", "multiple", "expected"),
    [
        ((300, 2000), (512, 512), 16, (304, 512)),
        ((1, 1), (512, 512), 8, (8, 8)),
        ((600, 600), (500, 500), 1, (500, 500)),
        ((5, 60, 60), (8, 32, 32), 4, (8, 32, 32)),
    ],
)
def test_fit_tile(shape: tuple[int, ...], limit: tuple[int, ...], multiple: int, expected: tuple[int, ...]) -> None:
    assert fit_tile(shape, limit, multiple) == expected


def test_the_overlap_does_not_matter_where_one_tile_is_enough() -> None:
    assert len(plan_tiles((8, 5), (8, 8), 64)) == 1


@pytest.mark.parametrize("overlap", [8, 9, -1, (0, 8)])
def test_an_overlap_no_smaller_than_the_tile_is_refused(overlap: int | tuple[int, int]) -> None:
    with pytest.raises(ModelMismatch, match="overlap"):
        plan_tiles((16, 16), (8, 8), overlap)


@given(shape=st.tuples(SIDES, SIDES), cuts=st.integers(1, 9), field=st.integers(1, 61), multiple=st.integers(1, 32))
@settings(max_examples=200)
def test_cuts_cover_the_image_and_are_extended_by_reflection(
    shape: tuple[int, int], cuts: int, field: int, multiple: int
) -> None:
    plan = plan_cuts(shape, min(cuts, *shape), field, multiple_px=multiple)
    border = (field - 1) // 2
    image = numbered(*shape)
    padded = np.pad(image, [(border, border + max(plan.tile))] * 2 + [(0, 0)], mode="reflect")
    covered = np.zeros(shape, bool)
    for tile in plan:
        rows, columns = (slice(span.source.start + border, span.source.stop + border) for span in tile.spans)
        assert np.array_equal(tile.cut(image), padded[rows, columns])
        covered[tuple(span.target for span in tile.spans)] = True
    assert covered.all()
    assert {side % multiple for side in plan.tile} == {0}


def test_cuts_give_their_piece_alone() -> None:
    spans = plan_cuts((20, 31), 3, 11).axes[1]
    assert [(span.source.start, span.target, span.before, span.after) for span in spans] == [
        (-5, slice(0, 11), 0, 0),
        (6, slice(11, 22), 0, 0),
        (15, slice(20, 31), 0, 0),
    ]


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
    assert plan_cuts((5, 9), 1, 61).tile == (65, 69)
