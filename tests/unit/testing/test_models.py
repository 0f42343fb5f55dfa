"""A function can replace a model on a server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from redis_consumer.errors import ModelMismatch, ModelNotFound
from redis_consumer.job import ModelId
from redis_consumer.models import ModelStore
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.testing.images import example_image, fake_model
from redis_consumer.testing.models import FakeServer, Function, fields_of, named

FAKE = ModelId("Fake", 1)
BATCH = np.arange(8, dtype=np.float64).reshape(2, 2, 2, 1)


def server(function: Function) -> FakeServer:
    return FakeServer({"Fake": function}, OnnxServer(ModelStore().find))


def test_it_gets_float32_and_its_answer_has_a_name() -> None:
    seen: list[Any] = []

    def function(batch: Any) -> Any:
        seen.append(batch.dtype)
        return batch[..., 0]

    outputs = server(function).predict(FAKE, {"image": BATCH})
    assert seen == [np.float32]
    np.testing.assert_array_equal(outputs["prediction"], BATCH[..., 0])


def test_several_outputs_come_sorted() -> None:
    assert list(server(lambda batch: {"b": batch, "a": batch}).predict(FAKE, {"image": BATCH})) == ["a", "b"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (
            np.zeros((3, 2)),
            r"it returned \(3, 2\) for \(2, 2, 2, 1\); return .* whose first axis is 2",
        ),
        ([1, 2], "it returned list for"),
        (np.full((2, 2), np.nan), "NaN values"),
    ],
)
def test_a_wrong_answer_is_told(answer: Any, text: str) -> None:
    with pytest.raises(ModelMismatch, match=text):
        server(lambda _batch: answer).predict(FAKE, {"image": BATCH})


def test_a_wrong_rank_is_refused_as_by_a_server() -> None:
    with pytest.raises(ModelMismatch, match="shape is"):
        server(fake_model).predict(FAKE, {"image": BATCH[0]})


def test_other_models_are_asked_elsewhere() -> None:
    fake = server(fake_model)
    assert fake.check() == "functions are used for Fake"
    assert fake.metadata(FAKE).inputs[0].name == "image"
    packaged = fake.metadata(ModelId("NuclearSegmentation", 1))
    assert packaged.outputs
    with pytest.raises(ModelNotFound):
        fake.predict(ModelId("Nothing", 1), {"image": BATCH})
    fake.close()


def test_names() -> None:
    assert fields_of(named(fake_model)) == {"model_name": "Fake", "model_version": "1"}
    assert fields_of(named({"Own": fake_model})) == {"model_name": "Own", "model_version": "1"}
    assert fields_of(named(None)) == {"model_name": "NuclearSegmentation", "model_version": "1"}


def test_the_example_is_the_same_each_time_and_has_nine_nuclei() -> None:
    from scipy import ndimage

    image = example_image()
    assert image.shape == (128, 128, 1)
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image, example_image())
    assert ndimage.label(fake_model(image[np.newaxis].astype(np.float32))[0, ..., 0])[1] == 9
