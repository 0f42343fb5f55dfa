"""Fixtures of model servers: small models, and a real TensorFlow Serving endpoint that runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from redis_consumer.errors import ModelNotFound
from redis_consumer.job import ModelId
from redis_consumer.serving.onnx.server import OnnxServer

TESTS = Path(__file__).resolve().parent


@contextmanager
def serve_models(folder: Path, *options: str) -> Iterator[str]:
    """Serve ``<folder>/<name>/<version>/model.onnx`` by TensorFlow Serving's gRPC; gives ``host:port``.

    Args:
        folder: the models.
        options: of `support.tf_serving_server`, e.g. ``"--fail-first", "2"``.
    """
    command = [sys.executable, "-m", "support.tf_serving_server", "--models", str(folder), "--until-stdin-closes"]
    process = subprocess.Popen(
        [*command, *options],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        word, _, port = process.stdout.readline().strip().partition(" ")
        assert word == "ready", "the model server didn't start; its error is above"
        yield f"127.0.0.1:{port}"
    finally:
        process.stdin.close()
        process.stdout.close()
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def onnx_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small models in the layout ``<name>/<version>/model.onnx``, see `support.onnx_models`."""
    from support import onnx_models as models

    folder = tmp_path_factory.mktemp("models")
    models.save(folder, "Scaling", 1, models.scaling(2.0))
    models.save(folder, "Scaling", 3, models.scaling(-1.5))
    models.save(folder, "Scaling_f16", 1, models.scaling(0.5, dtype="float16"))
    models.save(folder, "AnyRank", 1, models.scaling(3.0, shape=None))
    models.save(folder, "Convolving", 1, models.convolving())
    models.save(folder, "Adding", 1, models.adding())
    models.save(folder, "Echoing", 1, models.echoing())
    models.save(folder, "Distances", 1, models.blurring())
    models.save(folder, "Spots", 1, models.spotting())
    models.save(folder, "Multiplex", 1, models.multiplexing())
    models.save(folder, "Detecting", 1, models.detecting())
    return folder


@pytest.fixture(scope="session")
def tf_serving(onnx_model_dir: Path) -> Iterator[str]:
    """Address of a TensorFlow Serving endpoint that serves `onnx_model_dir`."""
    with serve_models(onnx_model_dir) as address:
        yield address


@pytest.fixture(scope="session")
def find_model(onnx_model_dir: Path) -> Callable[[ModelId], Path]:
    """Find a model of `onnx_model_dir`; version 0 is the highest."""

    def find(model: ModelId) -> Path:
        folder = onnx_model_dir / model.name
        versions = [int(path.name) for path in folder.iterdir()] if folder.is_dir() else []
        version = model.version or max(versions, default=0)
        if version not in versions:
            raise ModelNotFound(f"model {model}: there is none", model=str(model))
        return folder / str(version) / "model.onnx"

    return find


@pytest.fixture
def onnx_server(find_model: Callable[[ModelId], Path]) -> Iterator[OnnxServer]:
    """The models of `onnx_model_dir`, run in this process."""
    server = OnnxServer(find_model, threads=1)
    yield server
    server.close()
