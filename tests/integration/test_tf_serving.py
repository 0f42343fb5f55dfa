from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from fixtures_serving import serve_models
from redis_consumer.errors import ModelMismatch, ModelNotFound, ModelServerUnavailable
from redis_consumer.job import ModelId
from redis_consumer.serving import TensorSpec
from redis_consumer.serving.tfs.server import TFServingServer

SCALING = ModelId("Scaling", 1)
IMAGE = np.arange(12, dtype=np.float32).reshape(1, 3, 4, 1)


@contextmanager
def client(address: str, **options: Any) -> Iterator[TFServingServer]:
    server = TFServingServer(address, **{"backoff_s": 0, **options})
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def server(tf_serving: str) -> Iterator[TFServingServer]:
    with client(tf_serving) as opened:
        yield opened


@pytest.fixture(scope="module")
def float_val_address(onnx_model_dir: Path) -> Iterator[str]:
    with serve_models(onnx_model_dir, "--reply", "float_val") as address:
        yield address


@pytest.fixture
def unused_address() -> Iterator[str]:
    """An address that refuses connections for as long as the test runs."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def test_a_prediction_comes_back(server: TFServingServer) -> None:
    outputs = server.predict(SCALING, {"image": IMAGE})
    assert list(outputs) == ["prediction"]
    np.testing.assert_array_equal(outputs["prediction"], IMAGE * 2, strict=True)


def test_version_0_is_the_latest(server: TFServingServer) -> None:
    np.testing.assert_array_equal(server.predict(ModelId("Scaling"), {"image": IMAGE})["prediction"], IMAGE * -1.5)


def test_a_label_names_a_version(server: TFServingServer) -> None:
    stable = ModelId("Scaling", label="stable")
    np.testing.assert_array_equal(server.predict(stable, {"image": IMAGE})["prediction"], IMAGE * 2)
    assert server.metadata(stable).inputs[0].name == "image"


def test_an_unknown_label_is_refused_by_name(server: TFServingServer) -> None:
    with pytest.raises(ModelNotFound, match="model Scaling:canary"):
        server.predict(ModelId("Scaling", label="canary"), {"image": IMAGE})


def test_all_outputs_come_back_sorted_by_name(server: TFServingServer) -> None:
    outputs = server.predict(ModelId("Convolving"), {"image": np.ones((2, 32, 32, 2), np.float32)})
    assert list(outputs) == ["features", "prediction_1", "prediction_3"]
    assert outputs["prediction_3"].shape == (2, 32, 32, 3)


def test_replies_in_the_fields_of_values_are_read(float_val_address: str, tf_serving: str) -> None:
    inputs = {
        f"in_{dtype}": np.array([[0, 1, 100]]).astype(dtype)
        for dtype in ("float32", "float64", "float16", "int8", "int16", "int32", "int64", "bool")
    } | {f"in_uint{bits}": np.array([[0, 1, 2**bits - 1]], f"uint{bits}") for bits in (8, 16, 32, 64)}
    for address in (float_val_address, tf_serving):
        with client(address) as server:
            outputs = server.predict(ModelId("Echoing"), inputs)
        for name, array in inputs.items():
            np.testing.assert_array_equal(outputs[f"out_{name[3:]}"], array, strict=True)


def test_half_floats_keep_their_values(float_val_address: str) -> None:
    image = np.array([0.5, -1.25, 65504], np.float16).reshape(1, 1, 3, 1)
    with client(float_val_address) as server:
        outputs = server.predict(ModelId("Scaling_f16"), {"image": image})
    np.testing.assert_array_equal(outputs["prediction"], image * np.float16(0.5), strict=True)


def test_a_megapixel_image_goes_both_ways(server: TFServingServer) -> None:
    image = np.random.default_rng(1).random((1, 1500, 1500, 1), dtype=np.float32)
    np.testing.assert_array_equal(server.predict(SCALING, {"image": image})["prediction"], image * 2)


def test_metadata_say_names_types_and_shapes(server: TFServingServer) -> None:
    spec = server.metadata(ModelId("Adding", 1))
    assert spec.inputs == tuple(TensorSpec(name, np.dtype(np.float32), (None, 4)) for name in ("left", "right"))
    assert spec.outputs == (TensorSpec("sum", np.dtype(np.float32), (None, 4)),)
    assert server.metadata(ModelId("AnyRank")).inputs[0].shape is None


def test_metadata_are_asked_for_once_while_they_are_believed(onnx_model_dir: Path) -> None:
    with serve_models(onnx_model_dir) as address, client(address, metadata_expire_s=3600) as server:
        first = server.metadata(SCALING)
        assert server.metadata(SCALING) is first


def test_expired_metadata_are_asked_for_again(tf_serving: str) -> None:
    with client(tf_serving, metadata_expire_s=0) as server:
        first = server.metadata(SCALING)
        assert server.metadata(SCALING) is not first


def test_known_metadata_cast_and_check_before_anything_is_sent(server: TFServingServer) -> None:
    server.metadata(SCALING)
    outputs = server.predict(SCALING, {"image": IMAGE.astype(np.uint8)})
    np.testing.assert_array_equal(outputs["prediction"], IMAGE * 2, strict=True)
    with pytest.raises(ModelMismatch, match=r"\[any, any, any, 1\]"):
        server.predict(SCALING, {"image": IMAGE[0]})


@pytest.mark.parametrize("model", [ModelId("Nothing"), ModelId("Scaling", 2)], ids=str)
def test_an_unknown_model_or_version_is_not_found(server: TFServingServer, model: ModelId) -> None:
    with pytest.raises(ModelNotFound, match=f"model {model}.*NOT_FOUND") as caught:
        server.predict(model, {"image": IMAGE})
    assert caught.value.model == str(model)
    assert isinstance(caught.value.__cause__, grpc.RpcError)
    with pytest.raises(ModelNotFound):
        server.metadata(model)


@pytest.mark.parametrize("inputs", [{"picture": IMAGE}, {"image": IMAGE[0]}, {"image": IMAGE.astype(np.int64)}, {}])
def test_inputs_that_the_server_refuses_are_a_mismatch(server: TFServingServer, inputs: dict[str, Any]) -> None:
    with pytest.raises(ModelMismatch, match="INVALID_ARGUMENT"):
        server.predict(SCALING, inputs)


@pytest.mark.parametrize("code", ["UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"])
def test_a_passing_failure_is_tried_again_and_told(onnx_model_dir: Path, code: str) -> None:
    told: list[tuple[int, str]] = []
    with serve_models(onnx_model_dir, "--fail-first", "2", "--code", code) as address, client(address) as server:
        outputs = server.predict(SCALING, {"image": IMAGE}, on_retry=lambda count, name: told.append((count, name)))
    np.testing.assert_array_equal(outputs["prediction"], IMAGE * 2)
    assert told == [(1, code), (2, code)]


def test_metadata_tell_their_retries_as_well(onnx_model_dir: Path) -> None:
    told: list[tuple[int, str]] = []
    with serve_models(onnx_model_dir, "--fail-first", "2") as address, client(address) as server:
        spec = server.metadata(SCALING, on_retry=lambda count, name: told.append((count, name)))
    assert spec.inputs[0].name == "image"
    assert told == [(1, "UNAVAILABLE"), (2, "UNAVAILABLE")]


def test_retries_are_bounded(onnx_model_dir: Path) -> None:
    told: list[int] = []
    with (
        serve_models(onnx_model_dir, "--fail-first", "100") as address,
        client(address, max_retries=3) as server,
        pytest.raises(ModelServerUnavailable, match=f"{address}: UNAVAILABLE: asked to fail"),
    ):
        server.predict(SCALING, {"image": IMAGE}, on_retry=lambda count, _: told.append(count))
    assert told == [1, 2, 3]


@pytest.mark.parametrize("code", ["INTERNAL", "PERMISSION_DENIED", "UNIMPLEMENTED", "UNKNOWN"])
def test_a_broken_server_is_unavailable_at_once(onnx_model_dir: Path, code: str) -> None:
    told: list[int] = []
    with (
        serve_models(onnx_model_dir, "--fail-first", "1", "--code", code) as address,
        client(address) as server,
        pytest.raises(ModelServerUnavailable, match=code),
    ):
        server.predict(SCALING, {"image": IMAGE}, on_retry=lambda count, _: told.append(count))
    assert not told


def test_a_message_larger_than_the_server_takes_is_a_mismatch(onnx_model_dir: Path) -> None:
    image = np.zeros((1, 100, 100, 1), np.float32)
    with (
        serve_models(onnx_model_dir, "--max-message-bytes", "10000") as address,
        client(address) as server,
        pytest.raises(ModelMismatch, match="larger than max"),
    ):
        server.predict(SCALING, {"image": image})


def test_a_slow_server_meets_the_deadline(onnx_model_dir: Path) -> None:
    with (
        serve_models(onnx_model_dir, "--delay-s", "30") as address,
        client(address, timeout_s=0.05, max_retries=1) as server,
        pytest.raises(ModelServerUnavailable, match="DEADLINE_EXCEEDED"),
    ):
        server.predict(SCALING, {"image": IMAGE})


def test_nobody_there_is_unavailable(unused_address: str) -> None:
    with client(unused_address, max_retries=1) as server:
        with pytest.raises(ModelServerUnavailable, match="UNAVAILABLE"):
            server.predict(SCALING, {"image": IMAGE})
        with pytest.raises(ModelServerUnavailable, match="check that it runs"):
            server.check()


def test_a_sign_of_life_is_given_in_words(server: TFServingServer, tf_serving: str) -> None:
    assert server.check() == f"TensorFlow Serving answers at {tf_serving}"


def test_another_grpc_service_is_no_sign_of_life() -> None:
    with ThreadPoolExecutor(1) as pool:
        other = grpc.server(pool)
        address = f"127.0.0.1:{other.add_insecure_port('127.0.0.1:0')}"
        other.start()
        with client(address) as server, pytest.raises(ModelServerUnavailable, match="no TensorFlow Serving"):
            server.check()
        other.stop(None).wait()


def test_threads_share_one_connection(server: TFServingServer) -> None:
    barrier = threading.Barrier(4)

    def predict(factor: int) -> Any:
        barrier.wait()
        return server.predict(SCALING, {"image": IMAGE * factor})["prediction"]

    with ThreadPoolExecutor(4) as pool:
        for factor, prediction in enumerate(pool.map(predict, range(4))):
            np.testing.assert_array_equal(prediction, IMAGE * factor * 2)


def test_a_closed_client_connects_again(server: TFServingServer) -> None:
    server.predict(SCALING, {"image": IMAGE})
    server.close()
    server.close()
    assert "prediction" in server.predict(SCALING, {"image": IMAGE})
