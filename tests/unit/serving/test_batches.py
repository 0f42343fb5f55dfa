from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from redis_consumer.errors import ModelMismatch
from redis_consumer.serving.batches import batch_size_for, predict_in_batches


@pytest.mark.parametrize(
    ("shapes", "size"),
    [
        ([(-1, 128, 128, 1)], 64),
        ([(-1, 256, 256, 1)], 16),
        ([(-1, 256, 256, 2)], 8),
        ([(-1, 128, 128, 1), (-1, 128, 128, 4)], 16),
        ([(-1, -1, -1, 1)], 64),
        ([(-1, 4096, 4096, 3)], 1),
        ([(1, 128, 128, 1)], 1),
        ([(-1, 4096, 4096, 3), (4, 128, 128, 1)], 4),
    ],
)
def test_larger_inputs_make_smaller_batches(shapes: list[tuple[int, ...]], size: int) -> None:
    assert batch_size_for(shapes, 64, 128) == size


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_batches_come_together_in_order(batch_size: int) -> None:
    sizes = []

    def predict(inputs: Mapping[str, Any]) -> list[Any]:
        sizes.append(len(inputs["a"]))
        return [inputs["a"] * 2, inputs["b"]]

    items = np.arange(7)
    doubled, same = predict_in_batches(predict, {"a": items, "b": -items}, batch_size)
    np.testing.assert_array_equal(doubled, items * 2)
    np.testing.assert_array_equal(same, -items)
    assert max(sizes) == min(batch_size, 7)


@pytest.mark.parametrize("inputs", [{}, {"a": np.zeros(0)}, {"a": np.zeros(2), "b": np.zeros(3)}])
def test_no_items_or_unequal_numbers_of_them_are_refused(inputs: dict[str, Any]) -> None:
    with pytest.raises(ModelMismatch, match="the same number"):
        predict_in_batches(lambda batch: list(batch.values()), inputs, 2)
