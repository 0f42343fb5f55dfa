"""Our client against servers of the Open Inference Protocol that others wrote."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from redis_consumer.errors import ModelMismatch, ModelNotFound
from redis_consumer.job import ModelId
from redis_consumer.serving.oip.server import OpenInferenceServer
from support import onnx_models as models
from support.open_inference import serve_by

pytestmark = pytest.mark.slow

IMAGE = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
DTYPES = list(models.ELEMENT_TYPES)


@pytest.fixture(scope="module", params=["mlserver", "triton"])
def address(
    request: pytest.FixtureRequest, onnx_model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    for name in ("Scaling", "Convolving"):
        shutil.copytree(onnx_model_dir / name, folder / name)
    models.save(folder, "Echoing", 1, models.echoing(DTYPES))
    with serve_by(request.param, folder) as found:
        yield found


@pytest.fixture
def server(address: str) -> Iterator[OpenInferenceServer]:
    opened = OpenInferenceServer(address, timeout_s=60, backoff_s=0, max_retries=0)
    yield opened
    opened.close()


def test_it_answers(server: OpenInferenceServer, address: str) -> None:
    assert server.check() == f"Open Inference server answers at {address}"


@pytest.mark.parametrize("version", [0, 3])
def test_a_prediction_comes_back(server: OpenInferenceServer, version: int) -> None:
    outputs = server.predict(ModelId("Scaling", version), {"image": IMAGE})
    np.testing.assert_array_equal(outputs["prediction"], IMAGE * np.float32(-1.5), strict=True)


def test_metadata_hold_the_axis_of_the_batch(server: OpenInferenceServer) -> None:
    spec = server.metadata(ModelId("Convolving"))
    assert [tensor.shape for tensor in spec.inputs] == [(None, 32, 32, 2)]
    assert [tensor.shape for tensor in spec.outputs] == [(None, 2, 1, 1), (None, 32, 32, 1), (None, 32, 32, 3)]


def test_each_element_type_goes_through(server: OpenInferenceServer) -> None:
    inputs = {f"in_{dtype}": np.array([[0, 1, 1]], dtype) for dtype in DTYPES}
    outputs = server.predict(ModelId("Echoing"), inputs)
    for dtype in DTYPES:
        np.testing.assert_array_equal(outputs[f"out_{dtype}"], inputs[f"in_{dtype}"], strict=True)


def test_an_image_above_the_usual_limit_of_grpc_goes_through(server: OpenInferenceServer) -> None:
    image = np.random.default_rng(1).random((1, 1500, 1500, 1), dtype=np.float32)
    outputs = server.predict(ModelId("Scaling"), {"image": image})
    np.testing.assert_array_equal(outputs["prediction"], image * np.float32(-1.5), strict=True)


@pytest.mark.parametrize("model", [ModelId("Nothing"), ModelId("Scaling", 9)], ids=str)
def test_an_unknown_model_is_not_found(server: OpenInferenceServer, model: ModelId) -> None:
    with pytest.raises(ModelNotFound):
        server.metadata(model)
    with pytest.raises(ModelNotFound):
        server.predict(model, {"image": IMAGE})


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [("image", (3, 4, 1), "f4"), ("picture", (1, 3, 4, 1), "f4"), ("image", (1, 3, 4, 1), "f8")],
)
def test_what_the_server_refuses_is_a_mismatch(
    server: OpenInferenceServer, name: str, shape: tuple[int, ...], dtype: str
) -> None:
    with pytest.raises(ModelMismatch, match="INVALID_ARGUMENT"):
        server.predict(ModelId("Scaling", 3), {name: np.ones(shape, dtype)})
