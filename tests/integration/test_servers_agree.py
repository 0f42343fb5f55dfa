"""One model gives the same pixels, whoever serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fixtures_serving import serve_models
from redis_consumer.job import ModelId
from redis_consumer.models import ModelStore, packaged_models
from redis_consumer.models.store import PACKAGED
from redis_consumer.serving import ModelServer, open_model_server

MODELS = [ModelId("Convolving", 1), ModelId("Scaling", 3), ModelId("Scaling"), ModelId("Scaling_f16", 1)]
SHAPES = {"Convolving": (3, 32, 32, 2)}


@pytest.fixture
def servers(tf_serving: str, find_model: Callable[[ModelId], Path]) -> Iterator[list[ModelServer]]:
    opened = [open_model_server(url, find_model=find_model) for url in (f"tfs://{tf_serving}", "onnx://")]
    yield opened
    for server in opened:
        server.close()


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_predictions_are_the_same_to_the_last_bit(servers: list[ModelServer], model: ModelId) -> None:
    image = np.random.default_rng(3).normal(size=SHAPES.get(model.name, (2, 40, 30, 1)))
    for server in servers:
        server.metadata(model)
    remote, local = (server.predict(model, {"image": image}) for server in servers)
    assert list(remote) == list(local)
    for name, prediction in remote.items():
        np.testing.assert_array_equal(prediction, local[name], strict=True)


@pytest.mark.parametrize("model", [*MODELS, ModelId("Adding"), ModelId("Echoing"), ModelId("AnyRank")], ids=str)
def test_metadata_are_the_same(servers: list[ModelServer], model: ModelId) -> None:
    remote, local = (server.metadata(model) for server in servers)
    assert remote == local


def test_the_packaged_models_give_the_same_from_both() -> None:
    models = ModelStore()
    with serve_models(PACKAGED) as address:
        remote, local = (open_model_server(url, find_model=models.find) for url in (f"tfs://{address}", "onnx://"))
        for model in packaged_models():
            (spec,) = local.metadata(model).inputs
            assert spec.shape is not None
            shape = (2, 64, 96, spec.shape[-1] or 1)
            image = np.random.default_rng(5).random(shape, dtype=np.float32)
            expected = local.predict(model, {spec.name: image})
            for name, prediction in remote.predict(model, {spec.name: image}).items():
                np.testing.assert_array_equal(prediction, expected[name], strict=True)
        remote.close()
        local.close()
