"""Serves ONNX models by a real MLServer.

::

    .tools/model-servers/mlserver/bin/python mlserver_models.py DIR

serves ``DIR/<name>/<version>/model.onnx`` on 127.0.0.1, prints ``ready PORT`` and ends with its standard input. It
runs in an environment of its own, so it uses nothing of this repository.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.errors import InferenceError  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor  # type: ignore[import-not-found]

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

DATATYPES = {"float": "FP32", "double": "FP64", "float16": "FP16", "bool": "BOOL"}
NO_LIMIT = -1


class OnnxModel(MLModel):  # type: ignore[misc]
    """A model that onnxruntime runs."""

    async def load(self) -> bool:
        self._session = session_of(Path(self.settings.parameters.uri))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        names = [output.name for output in self._session.get_outputs()]
        try:
            arrays = self._session.run(names, feeds)
        except Exception as error:
            raise InferenceError(str(error)) from error
        outputs = [NumpyCodec.encode_output(name, array) for name, array in zip(names, arrays, strict=True)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def settings_of(path: Path) -> ModelSettings:
    session = session_of(path)
    return ModelSettings(
        name=path.parent.parent.name,
        implementation=OnnxModel,
        parameters={"uri": str(path), "version": path.parent.name},
        inputs=[described(argument) for argument in session.get_inputs()],
        outputs=[described(argument) for argument in session.get_outputs()],
    )


def described(argument: Any) -> MetadataTensor:
    runtime = argument.type.removeprefix("tensor(").removesuffix(")")
    shape = [size if isinstance(size, int) else -1 for size in argument.shape]
    return MetadataTensor(name=argument.name, datatype=DATATYPES.get(runtime, runtime.upper()), shape=shape)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


async def serve(folder: Path, ready: Any) -> None:
    http_port, grpc_port, metrics_port = free_ports(3)
    server = MLServer(
        Settings(
            host="127.0.0.1",
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            metrics_endpoint=None,
            parallel_workers=0,
            # gRPC's own 4 MiB are less than one image.
            grpc_max_message_length=NO_LIMIT,
        )
    )
    running = asyncio.create_task(server.start([settings_of(path) for path in sorted(folder.glob("*/*/model.onnx"))]))
    while not is_open(grpc_port):
        if running.done():
            running.result()
        await asyncio.sleep(0.05)
    ready.write(f"ready {grpc_port}\n")
    ready.flush()
    closed = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.wait([running, closed], return_when=asyncio.FIRST_COMPLETED)
    # No stop in good order: it waits for connections, and nothing is kept.
    os._exit(0)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    np.seterr(all="ignore")
    # What the server prints goes where errors go; our caller reads one line only.
    ready_line = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    asyncio.run(serve(Path(sys.argv[1]), ready_line))
