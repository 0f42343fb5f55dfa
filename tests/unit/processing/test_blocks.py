from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_consumer.processing.blocks import plan_blocks

SIDES = st.integers(1, 100)


@given(SIDES, SIDES, st.integers(1, 8), st.integers(1, 16), st.integers(0, 40))
def test_cores_cover_every_pixel_once(height: int, width: int, units: int, unit_px: int, overlap_px: int) -> None:
    grid = plan_blocks((height, width), units * unit_px, overlap_px, unit_px)
    seen = np.zeros((height, width), np.int32)
    for index, block in enumerate(grid):
        assert block.index == index
        rows, columns = block.core
        assert grid.block_at(rows.start, columns.start) == grid.block_at(rows.stop - 1, columns.stop - 1) == index
        seen[block.core] += 1
        assert all(core.start % unit_px == 0 for core in block.core)
        assert all(core.stop - core.start <= units * unit_px for core in block.core)
    assert (seen == 1).all()
    assert len(grid) == index + 1


def test_a_window_is_its_core_and_the_overlap_as_far_as_the_image_goes() -> None:
    first, second = plan_blocks((40, 200), 128, 16)
    assert (first.core, first.window) == ((slice(0, 40), slice(0, 100)), (slice(0, 40), slice(0, 116)))
    assert (second.core, second.window) == ((slice(0, 40), slice(100, 200)), (slice(0, 40), slice(84, 200)))
    assert second.inner == (slice(0, 40), slice(16, 116))
    assert second.shape_yx == (40, 116)


@pytest.mark.parametrize("numbers", [((0, 5), 4, 1, 1), ((5, 5), 4, -1, 1), ((5, 5), 4, 1, 8), ((5, 5), 4, 1, 0)])
def test_numbers_out_of_range_are_refused(numbers: tuple[tuple[int, int], int, int, int]) -> None:
    with pytest.raises(ValueError, match="can't be cut into blocks"):
        plan_blocks(*numbers)
