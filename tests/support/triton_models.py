"""Serves ONNX models by a real Triton.

::

    .tools/model-servers/triton/bin/python triton_models.py DIR

serves the highest version of each ``DIR/<name>/<version>/model.onnx`` on 127.0.0.1, prints ``ready PORT``, or
``skip REASON`` where Triton can't run here, and ends with its standard input. It runs in an environment of its own, so
it uses nothing of this repository.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from pytriton.decorators import batch  # type: ignore[import-not-found]
from pytriton.model_config import ModelConfig, Tensor  # type: ignore[import-not-found]
from pytriton.triton import Triton, TritonConfig  # type: ignore[import-not-found]

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

NUMPY = {"float": "float32", "double": "float64"}


def bind(triton: Triton, path: Path) -> None:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    @batch  # type: ignore[untyped-decorator]
    def infer(**feeds: Any) -> list[Any]:
        arrays: list[Any] = session.run(names, feeds)
        return arrays

    triton.bind(
        model_name=path.parent.parent.name,
        model_version=int(path.parent.name),
        infer_func=infer,
        inputs=[described(argument) for argument in session.get_inputs()],
        outputs=[described(argument) for argument in session.get_outputs()],
        config=ModelConfig(max_batch_size=16),
    )


def described(argument: Any) -> Tensor:
    # Triton knows of the batch, and puts its axis in front.
    runtime = argument.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else -1 for size in argument.shape[1:])
    return Tensor(name=argument.name, dtype=np.dtype(NUMPY.get(runtime, runtime)).type, shape=shape)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def serve(folder: Path, workspace: str, tell: Any) -> None:
    http_port, grpc_port = free_ports(2)
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=http_port,
        grpc_address="127.0.0.1",
        grpc_port=grpc_port,
        allow_metrics=False,
    )
    triton = Triton(config=config, workspace=workspace)
    paths = sorted(folder.glob("*/*/model.onnx"), key=lambda path: int(path.parent.name))
    for path in {path.parent.parent: path for path in paths}.values():
        bind(triton, path)
    try:
        triton.run()
    except Exception as error:  # noqa: BLE001 - whatever it is, Triton doesn't run here
        tell(f"skip Triton can't run with {sys.executable}: {' '.join(str(error).split())}")
        return
    tell(f"ready {grpc_port}")
    sys.stdin.read()
    triton.stop()


if __name__ == "__main__":
    # What the server prints goes where errors go; our caller reads one line only.
    first_line = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory() as folder:
        serve(Path(sys.argv[1]), f"{folder}/workspace", lambda text: print(text, file=first_line, flush=True))
