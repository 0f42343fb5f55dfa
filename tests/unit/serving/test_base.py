from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from redis_consumer.errors import ModelMismatch
from redis_consumer.job import ModelId
from redis_consumer.serving import ModelSpec, TensorSpec, check_inputs

MODEL = ModelId("Nuclei", 3)


def spec(shape: tuple[int | None, ...] | None = (None, None, None, 1), dtype: Any = np.float32) -> ModelSpec:
    return ModelSpec(inputs=(TensorSpec("image", np.dtype(dtype), shape),), outputs=())


def test_an_array_that_fits_is_passed_on_as_it_is() -> None:
    image = np.zeros((1, 4, 5, 1), np.float32)
    assert check_inputs(spec(), {"image": image}, MODEL)["image"] is image


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.uint8, np.int64, bool, ">f4"])
def test_an_array_is_cast_where_its_kind_of_number_allows(dtype: Any) -> None:
    checked = check_inputs(spec(), {"image": np.ones((1, 2, 2, 1), dtype)}, MODEL)
    assert checked["image"].dtype == np.float32
    assert checked["image"].dtype.isnative


def test_a_cast_that_would_drop_fractions_is_refused() -> None:
    with pytest.raises(ModelMismatch, match=r"model Nuclei:3, input 'image'.*float32.*uint8"):
        check_inputs(spec(dtype=np.uint8), {"image": np.zeros((1, 2, 2, 1), np.float32)}, MODEL)


@pytest.mark.parametrize("shape", [(1, 4, 5, 2), (4, 5, 1), (1, 1, 4, 5, 1)])
def test_a_shape_that_does_not_fit_is_refused_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelMismatch) as caught:
        check_inputs(spec(), {"image": np.zeros(shape, np.float32)}, MODEL)
    assert str(list(shape)) in str(caught.value)
    assert "[any, any, any, 1]" in str(caught.value)
    assert caught.value.model == "Nuclei:3"


def test_an_unknown_rank_takes_any_shape() -> None:
    assert check_inputs(spec(shape=None), {"image": np.zeros((2, 3), np.float32)}, MODEL)["image"].shape == (2, 3)


@pytest.mark.parametrize("names", [[], ["picture"], ["image", "extra"]])
def test_missing_and_unknown_names_are_refused_with_the_wanted_ones(names: list[str]) -> None:
    with pytest.raises(ModelMismatch, match="it takes 'image'"):
        check_inputs(spec(), {name: np.zeros((1, 1, 1, 1), np.float32) for name in names}, MODEL)
