from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from redis_consumer.serving.bfloat16 import from_bfloat16, to_bfloat16


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)))
def test_each_number_becomes_the_nearest_of_16_bits(array: Any) -> None:
    bits = to_bfloat16(array)
    assert bits.dtype == np.uint16
    assert bits.shape == array.shape
    for value, near in zip(array.ravel().tolist(), from_bfloat16(bits).ravel().tolist(), strict=True):
        if math.isnan(value):
            assert math.isnan(near)
        elif math.isfinite(near):
            assert abs(value - near) <= max(abs(value) / 256, 2.0**-134)
        else:
            assert abs(value) > 3.38e38


@given(hnp.arrays(np.uint16, 5))
def test_what_was_bfloat16_comes_back_exactly(bits: Any) -> None:
    floats = from_bfloat16(bits)
    again = to_bfloat16(floats)
    np.testing.assert_array_equal(again[~np.isnan(floats)], bits[~np.isnan(floats)])


@pytest.mark.parametrize(("value", "bits"), [(1 + 2**-8, 0x3F80), (1 + 3 * 2**-8, 0x3F82), (np.inf, 0x7F80)])
def test_a_tie_goes_to_the_even_one(value: float, bits: int) -> None:
    assert to_bfloat16(np.array([value])).tolist() == [bits]
