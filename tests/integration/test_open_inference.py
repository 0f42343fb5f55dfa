from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest

from redis_consumer.errors import ModelMismatch, ModelNotFound, ModelServerUnavailable
from redis_consumer.job import ModelId
from redis_consumer.serving import TensorSpec
from redis_consumer.serving.oip.server import OpenInferenceServer
from support import onnx_models as models
from support.open_inference import serve_open_inference

SCALING = ModelId("Scaling", 1)
IMAGE = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)
NO_PAUSE: dict[str, Any] = {"timeout_s": 20, "backoff_s": 0, "max_retries": 2}


@pytest.fixture(scope="module")
def address(onnx_model_dir: Path) -> Iterator[str]:
    with serve_open_inference(onnx_model_dir) as found:
        yield found


@pytest.fixture
def server(address: str) -> Iterator[OpenInferenceServer]:
    opened = OpenInferenceServer(address, **NO_PAUSE)
    yield opened
    opened.close()


def test_a_prediction_comes_back(server: OpenInferenceServer) -> None:
    outputs = server.predict(SCALING, {"image": IMAGE})
    np.testing.assert_array_equal(outputs["prediction"], IMAGE * 2, strict=True)


def test_without_a_version_the_server_chooses(server: OpenInferenceServer) -> None:
    outputs = server.predict(ModelId("Scaling"), {"image": IMAGE})
    np.testing.assert_array_equal(outputs["prediction"], IMAGE * np.float32(-1.5), strict=True)


def test_metadata_say_names_types_and_shapes(server: OpenInferenceServer) -> None:
    spec = server.metadata(ModelId("Adding", 1))
    assert spec.inputs == tuple(TensorSpec(name, np.dtype(np.float32), (None, 4)) for name in ("left", "right"))
    assert spec.outputs == (TensorSpec("sum", np.dtype(np.float32), (None, 4)),)
    assert server.metadata(ModelId("AnyRank")).inputs[0].shape is None
    assert server.metadata(ModelId("Scaling_f16")).inputs[0].dtype == np.float16


def test_several_outputs_come_back_sorted_by_name(server: OpenInferenceServer) -> None:
    outputs = server.predict(ModelId("Convolving"), {"image": np.ones((2, 32, 32, 2), np.float32)})
    assert {name: array.shape for name, array in outputs.items()} == {
        "features": (2, 2, 1, 1),
        "prediction_1": (2, 32, 32, 1),
        "prediction_3": (2, 32, 32, 3),
    }
    assert list(outputs) == sorted(outputs)


@pytest.mark.parametrize("reply", ["raw", "typed"])
def test_each_element_type_goes_through(onnx_model_dir: Path, tmp_path: Path, reply: str) -> None:
    dtypes = [dtype for dtype in models.ELEMENT_TYPES if reply == "raw" or dtype != "float16"]
    models.save(tmp_path, "Echoing", 1, models.echoing(dtypes))
    inputs = {f"in_{dtype}": np.array([[0, 1, 1]], dtype) for dtype in dtypes}
    with serve_open_inference(tmp_path, "--reply", reply) as address:
        server = OpenInferenceServer(address, **NO_PAUSE)
        outputs = server.predict(ModelId("Echoing"), inputs)
        server.close()
    for dtype in dtypes:
        np.testing.assert_array_equal(outputs[f"out_{dtype}"], inputs[f"in_{dtype}"], strict=True)


def test_an_image_of_64_mib_goes_through(server: OpenInferenceServer) -> None:
    image = np.random.default_rng(1).random((1, 4096, 4096, 1), dtype=np.float32)
    outputs = server.predict(SCALING, {"image": image})
    np.testing.assert_array_equal(outputs["prediction"], image * 2, strict=True)


def test_inputs_are_cast_to_what_the_metadata_say(server: OpenInferenceServer) -> None:
    server.metadata(SCALING)
    outputs = server.predict(SCALING, {"image": IMAGE.astype(np.uint8)})
    np.testing.assert_array_equal(outputs["prediction"], IMAGE * 2, strict=True)


@pytest.mark.parametrize("is_known", [True, False], ids=["by us", "by the server"])
@pytest.mark.parametrize("inputs", [{"picture": IMAGE}, {"image": IMAGE[0]}], ids=["name", "shape"])
def test_inputs_that_do_not_fit_are_a_mismatch(
    server: OpenInferenceServer, inputs: dict[str, Any], is_known: bool
) -> None:
    if is_known:
        server.metadata(SCALING)
    with pytest.raises(ModelMismatch, match="Scaling:1") as caught:
        server.predict(SCALING, inputs)
    assert caught.value.model == "Scaling:1"


@pytest.mark.parametrize("model", [ModelId("Nothing"), ModelId("Scaling", 9)], ids=str)
def test_an_unknown_model_is_not_found(server: OpenInferenceServer, model: ModelId) -> None:
    with pytest.raises(ModelNotFound, match="check model_name"):
        server.predict(model, {"image": IMAGE})
    with pytest.raises(ModelNotFound):
        server.metadata(model)


def test_a_server_that_recovers_is_asked_again(onnx_model_dir: Path) -> None:
    told: list[tuple[int, str]] = []
    with serve_open_inference(onnx_model_dir, "--fail-first", "2") as address:
        server = OpenInferenceServer(address, **NO_PAUSE)
        outputs = server.predict(SCALING, {"image": IMAGE}, on_retry=lambda *failed: told.append(failed))
        server.close()
    np.testing.assert_array_equal(outputs["prediction"], IMAGE * 2)
    assert told == [(1, "UNAVAILABLE"), (2, "UNAVAILABLE")]


def test_a_server_that_does_not_recover_is_unavailable(onnx_model_dir: Path) -> None:
    with serve_open_inference(onnx_model_dir, "--fail-first", "9", "--code", "INTERNAL") as address:
        server = OpenInferenceServer(address, **NO_PAUSE)
        with pytest.raises(ModelServerUnavailable, match="Open Inference server at 127.0.0.1.*INTERNAL: asked to fail"):
            server.predict(SCALING, {"image": IMAGE})
        server.close()


def test_a_model_that_is_not_ready_is_unavailable_until_it_is(onnx_model_dir: Path) -> None:
    with serve_open_inference(onnx_model_dir, "--loading", "1") as address:
        server = OpenInferenceServer(address, **NO_PAUSE)
        with pytest.raises(ModelServerUnavailable, match="it isn't ready"):
            server.metadata(SCALING)
        assert server.metadata(SCALING).inputs[0].name == "image"
        server.close()


def test_a_prediction_waits_for_a_model_that_is_not_ready(onnx_model_dir: Path) -> None:
    told: list[tuple[int, str]] = []
    with serve_open_inference(onnx_model_dir, "--loading", "1") as address:
        server = OpenInferenceServer(address, **NO_PAUSE)
        server.predict(SCALING, {"image": IMAGE}, on_retry=lambda *failed: told.append(failed))
        server.close()
    assert told == [(1, "INVALID_ARGUMENT")]


def test_outputs_of_other_names_than_the_metadata_say_are_a_mismatch(onnx_model_dir: Path) -> None:
    with serve_open_inference(onnx_model_dir, "--reply", "misnamed") as address:
        server = OpenInferenceServer(address, **NO_PAUSE)
        server.metadata(SCALING)
        with pytest.raises(ModelMismatch, match="gave the outputs 'prediction_of_another_model'"):
            server.predict(SCALING, {"image": IMAGE})
        server.close()


def test_metadata_without_tensors_are_a_mismatch(tmp_path: Path) -> None:
    constant = models.scaling(1.0)
    del constant.graph.node[:], constant.graph.input[:]
    constant.graph.node.append(onnx.helper.make_node("Identity", ["factor"], ["prediction"]))
    constant.graph.output[0].type.tensor_type.ClearField("shape")
    models.save(tmp_path, "Constant", 1, constant)
    with serve_open_inference(tmp_path) as address:
        server = OpenInferenceServer(address, **NO_PAUSE)
        with pytest.raises(ModelMismatch, match="its metadata name no inputs or no outputs; declare them"):
            server.metadata(ModelId("Constant"))
        server.close()


def test_a_server_that_answers_something_else_is_unavailable() -> None:
    methods = {"ModelMetadata": grpc.unary_unary_rpc_method_handler(lambda request, context: b"no message")}
    handler = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)
    other = grpc.server(ThreadPoolExecutor(1), handlers=[handler])
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    server = OpenInferenceServer(f"127.0.0.1:{port}", **NO_PAUSE)
    with pytest.raises(ModelServerUnavailable, match="metadata can't be read"):
        server.metadata(SCALING)
    server.close()
    other.stop(grace=None).wait()


def test_metadata_are_asked_for_once(server: OpenInferenceServer) -> None:
    assert server.metadata(SCALING) is server.metadata(SCALING)


def test_metadata_expire(address: str) -> None:
    server = OpenInferenceServer(address, metadata_expire_s=0)
    assert server.metadata(SCALING) is not server.metadata(SCALING)
    server.close()


def test_calls_go_past_a_server_that_is_away(address: str) -> None:
    server = OpenInferenceServer(f"127.0.0.1:1,{address}", **NO_PAUSE)
    outputs = server.predict(SCALING, {"image": IMAGE})
    np.testing.assert_array_equal(outputs["prediction"], IMAGE * 2)
    server.close()


def test_the_check_says_what_answers_and_what_does_not(address: str) -> None:
    server = OpenInferenceServer(f"{address},127.0.0.1:1")
    expected = f"Open Inference server answers at {address}, but not at 127.0.0.1:1 (UNAVAILABLE)"
    assert server.check() == expected
    server.close()


def test_another_kind_of_server_is_told_apart(tf_serving: str) -> None:
    server = OpenInferenceServer(tf_serving, **NO_PAUSE)
    with pytest.raises(ModelServerUnavailable, match=r"no Open Inference server answers at .*\(UNIMPLEMENTED\)"):
        server.check()
    with pytest.raises(ModelServerUnavailable, match="UNIMPLEMENTED"):
        server.predict(SCALING, {"image": IMAGE})
    server.close()
