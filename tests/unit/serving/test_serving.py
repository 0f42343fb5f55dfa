from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from redis_consumer.errors import SettingsError
from redis_consumer.job import ModelId
from redis_consumer.serving import ModelServer, open_model_server
from redis_consumer.serving.oip.server import OpenInferenceServer
from redis_consumer.serving.onnx.server import OnnxServer
from redis_consumer.serving.tfs.server import TFServingServer


def nowhere(model: ModelId) -> Path:
    return Path(model.name)


def open_url(url: str) -> ModelServer:
    return open_model_server(url, find_model=nowhere)


@pytest.mark.parametrize("scheme", ["tfs", "tfss"])
@pytest.mark.parametrize("address", ["tf-serving:8500", "127.0.0.1:1", "[::1]:8500", "a:8500,b:8500"])
def test_tfs_opens_tensorflow_serving(scheme: str, address: str) -> None:
    server = open_url(f"{scheme}://{address}")
    assert isinstance(server, TFServingServer)
    assert server.address == address


@pytest.mark.parametrize("url", ["oip://triton:8001", "oips://a:8001,b:8001"])
def test_oip_opens_an_open_inference_server(url: str) -> None:
    assert isinstance(open_url(url), OpenInferenceServer)


def test_onnx_runs_models_in_process() -> None:
    assert isinstance(open_url("onnx://"), OnnxServer)


@pytest.mark.parametrize(
    "url",
    [
        "tfs://",
        "tfs://host",
        "tfs://host:0",
        "tfs://host:http",
        "tfs://host:99999",
        "tfs://a@host:1",
        "tfs://h:1/x",
        "tfs://[",
        "tfs://a:1,",
        "oips://a:1,b",
        "oip://",
    ],
)
def test_an_address_without_host_and_port_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="MODEL_SERVER"):
        open_url(url)


@pytest.mark.parametrize("url", ["", "host:8500", "http://host:8500", "onnx://host", "x"])
def test_an_unknown_kind_of_server_is_refused_with_what_is_allowed(url: str) -> None:
    with pytest.raises(SettingsError, match="onnx://"):
        open_url(url)


def test_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="MODEL_SERVER: holds a name or password") as caught:
        open_url("tfs://user:geheim@host:port")
    assert "geheim" not in str(caught.value)


def test_importing_loads_neither_grpc_nor_the_runtime_nor_protobuf() -> None:
    code = (
        "import sys, redis_consumer.serving, redis_consumer.models;"
        "print(sorted({'grpc', 'onnxruntime', 'google.protobuf', 'tenacity'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_opening_a_tensorflow_server_does_not_load_grpc() -> None:
    code = (
        "import sys; from redis_consumer.serving import open_model_server;"
        "open_model_server('tfs://localhost:1', find_model=None); print('grpc' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
