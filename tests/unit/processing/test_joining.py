from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from redis_consumer.processing.blocks import BlockGrid, LabelJoiner, plan_blocks

Labels = npt.NDArray[np.int64]
Circle = tuple[float, float, float]

SHAPE = (96, 96)
GRID = plan_blocks(SHAPE, 32, 12)


def draw(discs: Iterable[Circle], shape: tuple[int, int] = SHAPE) -> Labels:
    """A label image of discs (y, x, radius), later ones behind earlier ones."""
    rows, columns = np.indices(shape)
    truth = np.zeros(shape, np.int64)
    for number, (y, x, radius) in enumerate(discs, start=1):
        truth[((rows - y) ** 2 + (columns - x) ** 2 <= radius**2) & (truth == 0)] = number
    return truth


def join(grid: BlockGrid, label: Callable[[int, Labels], Labels], truth: Labels) -> tuple[Labels, int]:
    """Label each block by a function of its number and its part of the truth, join, and write the cores."""
    joiner = LabelJoiner(grid)
    cores = [joiner.add(block, label(block.index, truth[block.window])) for block in grid]
    numbering = joiner.finish()
    joined = np.zeros(grid.shape_yx, np.int64)
    for block, core in zip(grid, cores, strict=True):
        joined[block.core] = numbering.table(block.index)[core]
    return joined, numbering.count


def by_connection(_: int, window: Labels) -> Labels:
    """What a network sees that knows nothing of the other blocks."""
    return np.asarray(ndimage.label(window)[0], np.int64)


def shuffled(block: int, window: Labels) -> Labels:
    """The true labels under other names in every block."""
    names = np.random.default_rng(block).permutation(int(window.max()) + 1) + 1
    names[0], names[names == 1] = 0, names[0]
    return np.asarray(np.where(window > 0, names[window], 0), np.int64)


def assert_same_regions(joined: Labels, count: int, truth: Labels) -> None:
    """0 split, 0 merged, count exact, numbers 1..n."""
    pairs = np.unique(np.stack([truth[truth > 0], joined[truth > 0]]), axis=1)
    assert len(np.unique(pairs[0])) == pairs.shape[1], "split"
    assert len(np.unique(pairs[1])) == pairs.shape[1], "merged"
    assert not joined[truth == 0].any()
    assert count == pairs.shape[1]
    assert set(np.unique(joined)) - {0} == set(range(1, count + 1))


@pytest.mark.parametrize("radius", [1.0, 2.5, 6.0])
def test_a_disc_at_every_offset_to_a_border_is_one_region(radius: float) -> None:
    reach = int(radius) + 2
    for offset in range(-reach, reach + 1):
        for y, x in ((32 + offset, 16.5), (48.0, 32 + offset), (64 + offset, 64.0)):
            truth = draw([(y, x, radius)])
            assert_same_regions(*join(GRID, by_connection, truth), truth)


@pytest.mark.parametrize("radius", [1.0, 3.5, 6.0])
def test_a_disc_at_every_offset_to_a_corner_is_one_region(radius: float) -> None:
    reach = int(radius) + 1
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            truth = draw([(32 + dy, 32 + dx, radius)])
            assert_same_regions(*join(GRID, by_connection, truth), truth)


@pytest.mark.parametrize("angle", range(0, 180, 15))
def test_touching_discs_with_two_labels_on_both_sides_stay_two(angle: int) -> None:
    step = 5 * np.array([np.sin(np.radians(angle)), np.cos(np.radians(angle))])
    for offset in range(-7, 8):
        centre = np.array([48.0, 32.0 + offset])
        truth = draw([(*(centre - step), 5.2), (*(centre + step), 5.2)])
        assert_same_regions(*join(GRID, shuffled, truth), truth)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.floats(0, 95), st.floats(0, 95), st.floats(0.6, 6.0)), max_size=60),
    st.integers(8, 96),
    st.integers(12, 20),
)
def test_any_discs_in_any_blocks_are_split_and_merged_nowhere(
    discs: list[Circle], block_px: int, overlap_px: int
) -> None:
    truth = draw(discs)
    # What is left of a disc behind others may come apart; one label for several parts isn't what this is about.
    truth = np.where(truth > 0, ndimage.label(truth > 0)[0] * 100 + truth, 0)
    parts = [ndimage.label(truth == label)[1] for label in np.unique(truth[truth > 0])]
    if all(count == 1 for count in parts):
        grid = plan_blocks(SHAPE, block_px, overlap_px)
        compact = np.unique(truth, return_inverse=True)[1].reshape(SHAPE) + (truth.min() > 0)
        assert_same_regions(*join(grid, shuffled, compact), compact)


def test_a_region_longer_than_blocks_and_overlap_is_one() -> None:
    truth = np.zeros(SHAPE, np.int64)
    truth[20:24, :] = truth[:, 40:43] = 1
    assert_same_regions(*join(GRID, by_connection, truth), truth)


def test_blocks_that_disagree_by_a_pixel_still_join() -> None:
    truth = draw([(48, 30, 6), (48, 64, 6), (66, 31, 5), (10, 80, 4)])

    def eroded(block: int, window: Labels) -> Labels:
        return np.where(ndimage.binary_erosion(window > 0, border_value=1), window, 0) if block % 2 else window

    joined, count = join(GRID, eroded, truth)
    assert count == 4
    for label in range(1, 5):
        assert len(np.unique(joined[(truth == label) & (joined > 0)])) == 1


def test_two_labels_of_one_block_stay_two_where_its_neighbour_sees_one() -> None:
    truth = draw([(42, 33, 5), (52.5, 33, 5)])

    def merging(block: int, window: Labels) -> Labels:
        return window if block % 2 else np.asarray(window > 0, np.int64)

    joined, _ = join(GRID, merging, truth)
    left = joined[:, :32]
    assert set(left[truth[:, :32] == 1]).isdisjoint(left[truth[:, :32] == 2])


def test_a_chain_of_neighbours_cannot_merge_two_labels_of_one_block() -> None:
    truth = draw([(29, 27, 4), (29, 36, 4)])

    def labels(block: int, window: Labels) -> Labels:
        # The block above at the left sees two regions; the three others see one.
        return window if block == 0 else np.asarray(window > 0, np.int64)

    joined, _ = join(GRID, labels, truth)
    above = joined[:32, :32]
    assert len(np.unique(above[above > 0])) == len(np.unique(truth[:32, :32][truth[:32, :32] > 0]))


def test_gaps_and_huge_numbers_in_a_block_do_not_matter() -> None:
    truth = draw([(10, 10, 4), (32, 50, 5), (70, 70, 6)])
    joined, count = join(GRID, lambda block, window: window * (10**12 + block), truth)
    assert_same_regions(joined, count, truth)


def test_numbers_follow_the_blocks_and_do_not_change() -> None:
    truth = draw([(80, 80, 5), (10, 10, 5), (10, 31, 5), (50, 10, 5)])
    joined, _ = join(GRID, by_connection, truth)
    assert [int(joined[y, x]) for y, x in ((10, 10), (10, 31), (50, 10), (80, 80))] == [1, 2, 3, 4]
    np.testing.assert_array_equal(joined, join(GRID, by_connection, truth)[0])


def test_an_image_without_labels_has_none() -> None:
    joined, count = join(GRID, by_connection, np.zeros(SHAPE, np.int64))
    assert (count, int(joined.max())) == (0, 0)


def test_an_image_of_one_block_keeps_its_labels_without_gaps() -> None:
    truth = draw([(10, 10, 4), (60, 60, 9)])
    joined, count = join(plan_blocks(SHAPE, 96, 12), lambda _, window: window * 3, truth)
    assert count == 2
    np.testing.assert_array_equal(joined, truth)


@pytest.mark.parametrize("labels", [np.zeros((3, 3), np.int32), np.full((44, 44), -1)])
def test_what_is_no_label_image_of_the_block_is_refused(labels: Labels) -> None:
    with pytest.raises(ValueError, match="wanted"):
        LabelJoiner(GRID).add(next(iter(GRID)), labels)


def test_blocks_out_of_order_are_refused() -> None:
    _, second, *_ = GRID
    with pytest.raises(ValueError, match="wanted block 0"):
        LabelJoiner(GRID).add(second, np.zeros(second.shape_yx, np.int32))


def test_memory_is_that_of_one_row_of_blocks() -> None:
    grid = plan_blocks((4096, 512), 128, 16)
    joiner = LabelJoiner(grid)
    tracemalloc.start()
    for block in grid:
        joiner.add(block, np.zeros(block.shape_yx, np.int32))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2 * 6 * 160 * 32 * 4 + 20_000 < 4 * 4096 * 512 / 10
