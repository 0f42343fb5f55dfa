"""What a broken model server does, and as which error it arrives, always in bounded time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures_serving import serve_models
from redis_consumer.errors import ModelMismatch, ModelServerUnavailable
from redis_consumer.job import ModelId
from redis_consumer.serving.tfs.server import TFServingServer
from redis_consumer.serving.transport.connection import ConnectionOptions
from support.grpc_server import GET_MODEL_METADATA, PREDICT, Answer, answering, cutting
from support.tf_protos import official_class

MODEL = ModelId("Nuclei", 1)
IMAGE = np.ones((1, 4, 4, 1), np.float32)
OUTPUTS = {"prediction": IMAGE}
FLOAT, DOUBLE = 1, 2


@contextmanager
def client(address: str, **options: Any) -> Iterator[TFServingServer]:
    server = TFServingServer(address, **{"backoff_s": 0, "max_retries": 1, "timeout_s": 0.3, **options})
    try:
        yield server
    finally:
        server.close()


def reply(outputs: Mapping[str, Any]) -> bytes:
    message = official_class("tensorflow.serving.PredictResponse")()
    for name, array in outputs.items():
        tensor = message.outputs[name]
        tensor.dtype = FLOAT if array.dtype == np.float32 else DOUBLE
        tensor.tensor_content = array.tobytes()
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
    return bytes(message.SerializeToString())


def metadata(*_: object) -> bytes:
    """A model of one input and one output, each float32 of shape [any, 4, 4, 1]."""
    signatures = official_class("tensorflow.serving.SignatureDefMap")()
    signature = signatures.signature_def["serving_default"]
    for tensor in (signature.inputs["image"], signature.outputs["prediction"]):
        tensor.dtype = FLOAT
        for size in (-1, 4, 4, 1):
            tensor.tensor_shape.dim.add(size=size)
    response = official_class("tensorflow.serving.GetModelMetadataResponse")()
    response.metadata["signature_def"].Pack(signatures)
    return bytes(response.SerializeToString())


def predicting(content: bytes) -> dict[str, Answer]:
    return {PREDICT: lambda *_: content, GET_MODEL_METADATA: metadata}


def test_a_sound_reply_is_taken() -> None:
    with answering(predicting(reply(OUTPUTS))) as address, client(address) as server:
        server.metadata(MODEL)
        np.testing.assert_array_equal(server.predict(MODEL, {"image": IMAGE})["prediction"], IMAGE, strict=True)


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        ({"prediction": IMAGE[0]}, r"shape \[4, 4, 1\], but the metadata say float32 and \[any, 4, 4, 1\]"),
        ({"prediction": IMAGE.astype(np.float64)}, "dtype float64"),
        ({"segmentation": IMAGE}, "gave the outputs 'segmentation', but its metadata say 'prediction'"),
        ({}, "gave the outputs none"),
        ({"prediction": IMAGE * np.float32("nan")}, "it holds NaN values"),
    ],
    ids=["shape", "dtype", "name", "nothing", "nan"],
)
def test_outputs_that_are_not_those_of_the_metadata_are_a_mismatch(outputs: dict[str, Any], problem: str) -> None:
    with answering(predicting(reply(outputs))) as address, client(address) as server:
        server.metadata(MODEL)
        with pytest.raises(ModelMismatch, match=problem) as caught:
            server.predict(MODEL, {"image": IMAGE})
        assert caught.value.model == "Nuclei:1"


def test_no_numbers_are_refused_even_of_an_unknown_model() -> None:
    outputs = {"prediction": IMAGE * np.float32("nan")}
    with answering(predicting(reply(outputs))) as address, client(address) as server, pytest.raises(ModelMismatch):
        server.predict(MODEL, {"image": IMAGE})


@pytest.mark.parametrize("content", [b"\xff\xff", reply(OUTPUTS)[:-3]], ids=["noise", "cut off"])
def test_a_reply_that_is_none_blames_the_server(content: bytes) -> None:
    with (
        answering(predicting(content)) as address,
        client(address) as server,
        pytest.raises(ModelServerUnavailable, match="can't be read"),
    ):
        server.predict(MODEL, {"image": IMAGE})


def test_metadata_that_are_none_blame_the_server() -> None:
    with (
        answering({GET_MODEL_METADATA: lambda *_: b"\xff"}) as address,
        client(address) as server,
        pytest.raises(ModelServerUnavailable, match="metadata can't be read"),
    ):
        server.metadata(MODEL)


def test_a_reply_larger_than_allowed_is_a_mismatch() -> None:
    options = ConnectionOptions(max_message_bytes=10_000)
    with (
        answering(predicting(bytes(20_000))) as address,
        client(address, connection=options) as server,
        pytest.raises(ModelMismatch, match="larger than max .*smaller tiles"),
    ):
        server.predict(MODEL, {"image": IMAGE})


def test_a_server_that_hangs_meets_the_deadline() -> None:
    is_over = threading.Event()
    told: list[str] = []

    def hang(*_: object) -> bytes:
        is_over.wait()
        return b""

    with answering({PREDICT: hang}) as address, client(address) as server:
        with pytest.raises(ModelServerUnavailable, match="DEADLINE_EXCEEDED.*overloaded"):
            server.predict(MODEL, {"image": IMAGE}, on_retry=lambda _, code: told.append(code))
        is_over.set()
    assert told == ["DEADLINE_EXCEEDED"]


def test_a_port_that_never_speaks_meets_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with client(address) as server, pytest.raises(ModelServerUnavailable, match="DEADLINE_EXCEEDED"):
            server.predict(MODEL, {"image": IMAGE})


def test_a_port_that_speaks_something_else_is_unavailable() -> None:
    def chatter(listener: socket.socket) -> None:
        for _ in range(20):
            try:
                connection, _peer = listener.accept()
            except OSError:
                return
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=chatter, args=[listener], daemon=True)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with client(address) as server, pytest.raises(ModelServerUnavailable):
            server.predict(MODEL, {"image": IMAGE})
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_server_that_dies_amid_a_call_is_unavailable_after_retries(onnx_model_dir: Path) -> None:
    told: list[str] = []
    with (
        serve_models(onnx_model_dir, "--fatal-pixel", "1") as address,
        client(address, timeout_s=30, max_retries=2) as server,
        pytest.raises(ModelServerUnavailable, match="UNAVAILABLE"),
    ):
        server.predict(ModelId("Scaling", 1), {"image": IMAGE}, on_retry=lambda _, code: told.append(code))
    assert told == ["UNAVAILABLE"] * 2


def test_a_connection_that_is_cut_off_amid_the_answer_is_unavailable_after_retries() -> None:
    told: list[str] = []
    answer = reply({"prediction": np.zeros((1, 1024, 1024, 1), np.float32)})
    with (
        answering(predicting(answer)) as far,
        cutting(far, 1_000_000) as address,
        client(address, timeout_s=30) as server,
        pytest.raises(ModelServerUnavailable, match="UNAVAILABLE"),
    ):
        server.predict(MODEL, {"image": IMAGE}, on_retry=lambda _, code: told.append(code))
    assert told == ["UNAVAILABLE"]


def test_another_server_takes_over_from_one_that_dies_amid_a_call(onnx_model_dir: Path, tf_serving: str) -> None:
    told: list[str] = []
    with (
        serve_models(onnx_model_dir, "--fatal-pixel", "1") as dying,
        client(f"{dying},{tf_serving}", timeout_s=30, backoff_s=3600) as server,
    ):
        outputs = server.predict(ModelId("Scaling", 1), {"image": IMAGE}, on_retry=lambda _, code: told.append(code))
    np.testing.assert_array_equal(outputs["prediction"], IMAGE * 2)
    assert told == ["UNAVAILABLE"]


def test_larger_requests_may_take_longer() -> None:
    seen_s: list[float] = []

    def note(_: bytes, context: Any) -> bytes:
        seen_s.append(context.time_remaining())
        return reply(OUTPUTS)

    large = np.zeros((1, 2048, 4096, 1), np.float32)
    with answering({PREDICT: note}) as address, client(address, timeout_s=100) as server:
        server.predict(MODEL, {"image": IMAGE})
        server.predict(MODEL, {"image": large})
        server.predict(MODEL, {"image": large}, timeout_s=50)
    assert [round(seconds, -1) for seconds in seen_s] == [100, 200, 50]
