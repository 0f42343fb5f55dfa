"""One model gives the same pixels from every model server."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures_serving import serve_models
from redis_consumer.job import ModelId
from redis_consumer.models import ModelStore, packaged_models
from redis_consumer.models.store import PACKAGED
from redis_consumer.serving import ModelServer, open_model_server
from support.open_inference import ENVIRONMENTS, serve_by, serve_open_inference

MODELS = [ModelId("Convolving", 1), ModelId("Scaling", 3), ModelId("Scaling"), ModelId("Scaling_f16", 1)]
SHAPES = {"Convolving": (3, 32, 32, 2)}
SOURCE = PACKAGED.parents[1]
# Other releases of the runtime may add in another order.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def servers(
    tf_serving: str, onnx_model_dir: Path, find_model: Callable[[ModelId], Path]
) -> Iterator[dict[str, ModelServer]]:
    """All kinds of servers by their schemes, with the same models."""
    with ExitStack() as stack:
        open_inference = stack.enter_context(serve_open_inference(onnx_model_dir))
        opened = opened_servers([f"tfs://{tf_serving}", f"oip://{open_inference}", "onnx://"], find_model)
        for server in opened.values():
            stack.callback(server.close)
        yield opened


def opened_servers(urls: list[str], find_model: Callable[[ModelId], Path]) -> dict[str, ModelServer]:
    return {url.partition(":")[0]: open_model_server(url, find_model=find_model) for url in urls}


def image_for(server: ModelServer, model: ModelId) -> dict[str, Any]:
    """A random batch for a model of one input, whose metadata the server knows by then."""
    (spec,) = server.metadata(model).inputs
    assert spec.shape is not None
    shape = [size or free for size, free in zip(spec.shape, (2, 64, 96, 1), strict=True)]
    return {spec.name: np.random.default_rng(3).normal(size=shape)}


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_predictions_are_the_same_to_the_last_bit(servers: dict[str, ModelServer], model: ModelId) -> None:
    image = np.random.default_rng(3).normal(size=SHAPES.get(model.name, (2, 40, 30, 1)))
    for server in servers.values():
        server.metadata(model)
    expected = servers["onnx"].predict(model, {"image": image})
    for server in servers.values():
        outputs = server.predict(model, {"image": image})
        assert list(outputs) == list(expected)
        for name, prediction in outputs.items():
            np.testing.assert_array_equal(prediction, expected[name], strict=True)


@pytest.mark.parametrize("model", [*MODELS, ModelId("Adding"), ModelId("Echoing"), ModelId("AnyRank")], ids=str)
def test_metadata_are_the_same(servers: dict[str, ModelServer], model: ModelId) -> None:
    expected = servers["onnx"].metadata(model)
    assert {scheme: server.metadata(model) for scheme, server in servers.items()} == dict.fromkeys(servers, expected)


@pytest.mark.parametrize("model", packaged_models(), ids=str)
def test_the_packaged_models_give_the_same_from_all(model: ModelId) -> None:
    with serve_models(PACKAGED) as tf_serving, serve_open_inference(PACKAGED) as open_inference:
        opened = opened_servers([f"tfs://{tf_serving}", f"oip://{open_inference}", "onnx://"], ModelStore().find)
        for server in opened.values():
            server.metadata(model)
        image = image_for(opened["onnx"], model)
        expected = opened["onnx"].predict(model, image)
        for server in opened.values():
            for name, prediction in server.predict(model, image).items():
                np.testing.assert_allclose(prediction, expected[name], rtol=0, atol=TOLERANCE, strict=True)
            server.close()


BY_OPENVINO = """
import logging, sys
from pathlib import Path
import numpy as np
from redis_consumer.job import ModelId
from redis_consumer.serving.onnx.server import OnnxServer

logging.basicConfig(level="INFO", format="%(message)s")
path, image, outputs = map(Path, sys.argv[1:])
np.savez(outputs, **OnnxServer(lambda model: path).predict(ModelId("Model"), dict(np.load(image))))
"""


@pytest.mark.slow
def test_the_kernels_of_openvino_give_the_same(tmp_path: Path) -> None:
    python = ENVIRONMENTS / "openvino" / "bin" / "python"
    if not python.exists():
        pytest.skip("openvino isn't installed; `make model-servers` brings it")
    local = open_model_server("onnx://", find_model=ModelStore().find)
    for model in packaged_models():
        image = {name: array.astype(np.float32) for name, array in image_for(local, model).items()}
        np.savez(tmp_path / "image.npz", **image)
        paths = [ModelStore().find(model), tmp_path / "image.npz", tmp_path / "outputs.npz"]
        environment = {"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"]}
        done = subprocess.run(
            [python, "-c", BY_OPENVINO, *paths], capture_output=True, text=True, env=environment, check=True
        )
        assert "onnxruntime runs it by OpenVINO and CPU on" in done.stderr
        for name, prediction in np.load(tmp_path / "outputs.npz").items():
            expected = local.predict(model, image)[name]
            np.testing.assert_allclose(prediction, expected, rtol=0, atol=TOLERANCE, strict=True)
    local.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlserver", "triton"])
def test_servers_that_others_wrote_give_the_same(kind: str) -> None:
    with serve_by(kind, PACKAGED) as address:
        remote = open_model_server(f"oip://{address}", find_model=ModelStore().find)
        local = open_model_server("onnx://", find_model=ModelStore().find)
        for model in packaged_models():
            assert remote.metadata(model) == local.metadata(model)
            image = image_for(local, model)
            expected = local.predict(model, image)
            for name, prediction in remote.predict(model, image).items():
                np.testing.assert_allclose(prediction, expected[name], rtol=0, atol=TOLERANCE, strict=True)
        remote.close()
        local.close()
