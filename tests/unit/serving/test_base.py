from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redis_consumer.errors import ModelMismatch
from redis_consumer.job import ModelId
from redis_consumer.serving import ModelSpec, TensorSpec, check_inputs, check_outputs, identify
from redis_consumer.serving.base import FILE, METADATA, batch_size_for, predict_in_batches, spec_digest
from redis_consumer.serving.onnx.server import OnnxServer
from support import onnx_models

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


OUTPUTS = ModelSpec(
    inputs=(),
    outputs=(
        TensorSpec("prediction", np.dtype(np.float32), (None, 2)),
        TensorSpec("quantised", np.dtype(object), None),
    ),
)


def test_outputs_that_fit_come_back_sorted_by_name() -> None:
    outputs: dict[str, Any] = {"quantised": np.zeros(3, np.uint8), "prediction": np.zeros((5, 2), np.float32)}
    checked = check_outputs(OUTPUTS, outputs, MODEL)
    assert list(checked) == ["prediction", "quantised"]
    assert all(checked[name] is outputs[name] for name in outputs)


@pytest.mark.parametrize(
    ("prediction", "problem"),
    [
        (np.zeros((5, 3), np.float32), r"shape \[5, 3\], but the metadata say float32 and \[any, 2\]"),
        (np.zeros((5, 2), np.float64), "dtype float64"),
        (np.full((5, 2), np.nan, np.float32), "NaN values"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(prediction: Any, problem: str) -> None:
    with pytest.raises(ModelMismatch, match=f"model Nuclei:3, output 'prediction': .*{problem}"):
        check_outputs(OUTPUTS, {"prediction": prediction, "quantised": np.zeros(1)}, MODEL)


@pytest.mark.parametrize("names", [[], ["prediction"], ["prediction", "quantised", "extra"]])
def test_missing_and_unknown_outputs_are_refused(names: list[str]) -> None:
    with pytest.raises(ModelMismatch, match="its metadata say 'prediction', 'quantised'"):
        check_outputs(OUTPUTS, {name: np.zeros((1, 2), np.float32) for name in names}, MODEL)


def test_of_an_unknown_model_only_the_values_are_looked_at() -> None:
    outputs = {"a": np.zeros((0, 2)), "b": np.array([b"text"], object), "c": np.array([np.inf, 1])}
    assert check_outputs(None, outputs, MODEL) == outputs
    with pytest.raises(ModelMismatch, match="NaN values"):
        check_outputs(None, {"a": np.array([1, np.nan], np.float16)}, MODEL)


SHOWN = ModelSpec((TensorSpec("image", np.dtype(np.float32), (None, 8)),), ())


class Remote:
    """A server that shows metadata only."""

    def metadata(self, model: ModelId) -> ModelSpec:
        return SHOWN


def test_a_server_that_shows_metadata_only_is_told_by_them() -> None:
    server: Any = Remote()
    found = identify(server, ModelId("Nuclei", 3))
    assert (found.version, found.sha256, found.digest_of) == (3, spec_digest(SHOWN), METADATA)
    assert identify(server, ModelId("Nuclei")).version is None


def test_other_tensors_have_another_digest() -> None:
    other = ModelSpec((TensorSpec("image", np.dtype(np.float16), (None, 8)),), ())
    assert spec_digest(other) != spec_digest(SHOWN)


def test_a_model_in_this_process_is_told_by_its_file(tmp_path: Path) -> None:
    paths = [onnx_models.save(tmp_path, "Scaling", version, onnx_models.scaling(version)) for version in (1, 2)]
    server = OnnxServer(lambda model: paths[(model.version or 2) - 1])
    one, latest = identify(server, ModelId("Scaling", 1)), identify(server, ModelId("Scaling"))
    assert (one.version, latest.version, one.digest_of) == (1, 2, FILE)
    assert one.sha256 != latest.sha256
    server.close()


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
