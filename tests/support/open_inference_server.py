"""A gRPC server that speaks the official Open Inference Protocol v2 and runs ONNX models.

::

    python -m support.open_inference_server --models DIR     # with the tests folder on the path

serves ``DIR/<name>/<version>/model.onnx`` on 127.0.0.1 and prints ``ready PORT``. It shares no code with the client.
"""

from __future__ import annotations

import argparse
import math
import os
import struct
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from support.oip_protos import official_class
from support.stand_in import Refusal, method, serve

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

# The protocol's name of a type: numpy's name, the field of typed contents, the runtime's name.
TYPES = {
    "BOOL": ("bool", "bool_contents", "bool"),
    "UINT8": ("uint8", "uint_contents", "uint8"),
    "UINT16": ("uint16", "uint_contents", "uint16"),
    "UINT32": ("uint32", "uint_contents", "uint32"),
    "UINT64": ("uint64", "uint64_contents", "uint64"),
    "INT8": ("int8", "int_contents", "int8"),
    "INT16": ("int16", "int_contents", "int16"),
    "INT32": ("int32", "int_contents", "int32"),
    "INT64": ("int64", "int64_contents", "int64"),
    "FP16": ("float16", "", "float16"),
    "FP32": ("float32", "fp32_contents", "float"),
    "FP64": ("float64", "fp64_contents", "double"),
    "BYTES": ("object", "bytes_contents", "string"),
}
BY_RUNTIME = {f"tensor({runtime})": name for name, (_, _, runtime) in TYPES.items()}
BY_NUMPY = {numpy: name for name, (numpy, _, _) in TYPES.items()}


def invalid(detail: str) -> Refusal:
    return Refusal(grpc.StatusCode.INVALID_ARGUMENT, detail)


class Models:
    """The models of a folder, each loaded at its first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sessions: dict[Path, onnxruntime.InferenceSession] = {}
        self._lock = threading.Lock()

    def versions(self, name: str) -> dict[str, Path]:
        return {path.parent.name: path for path in (self._folder / name).glob("*/model.onnx")}

    def find(self, name: str, version: str) -> tuple[str, onnxruntime.InferenceSession]:
        paths = self.versions(name)
        chosen = version or max(paths, key=int, default="")
        if chosen not in paths:
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"unknown model {name!r}, version {version!r}")
        with self._lock:
            if paths[chosen] not in self._sessions:
                providers = ["CPUExecutionProvider"]
                self._sessions[paths[chosen]] = onnxruntime.InferenceSession(str(paths[chosen]), providers=providers)
            return chosen, self._sessions[paths[chosen]]


class Service:
    """The methods, in terms of messages.

    Args:
        models: what is served.
        reply: ``raw``, or ``typed`` contents where the protocol has them for all outputs, or ``misnamed`` outputs.
        fail_first: how many calls for a prediction are refused.
        code: gRPC code of the refusals.
        loading: how many questions and predictions are answered by saying that the model isn't ready.
    """

    def __init__(self, models: Models, *, reply: str, fail_first: int, code: str, loading: int) -> None:
        self._models = models
        self._reply = reply
        self._code = grpc.StatusCode[code]
        self._left = {"fail": fail_first, "loading": loading}
        self._lock = threading.Lock()

    def server_ready(self, _: Any) -> Any:
        return official_class("ServerReadyResponse")(ready=True)

    def model_ready(self, request: Any) -> Any:
        versions = self._models.versions(request.name)
        is_known = request.version in versions if request.version else bool(versions)
        return official_class("ModelReadyResponse")(ready=is_known and not self._takes("loading"))

    def model_metadata(self, request: Any) -> Any:
        version, session = self._models.find(request.name, request.version)
        reply = official_class("ModelMetadataResponse")(name=request.name, versions=[version], platform="onnx")
        for arguments, tensors in ((session.get_inputs(), reply.inputs), (session.get_outputs(), reply.outputs)):
            for argument in arguments:
                sizes = [size if isinstance(size, int) else -1 for size in argument.shape]
                tensors.add(name=argument.name, datatype=BY_RUNTIME[argument.type], shape=sizes)
        return reply

    def model_infer(self, request: Any) -> Any:
        if self._takes("fail"):
            raise Refusal(self._code, "asked to fail")
        version, session = self._models.find(request.model_name, request.model_version)
        if self._takes("loading"):
            raise invalid(f"Model {request.model_name} is not ready yet.")
        feeds = read_inputs(request)
        check_feeds(session, feeds)
        names = [output.name for output in request.outputs] or [output.name for output in session.get_outputs()]
        reply = official_class("ModelInferResponse")(model_name=request.model_name, model_version=version)
        arrays = dict(zip(names, session.run(names, feeds), strict=True))
        is_typed = self._reply == "typed" and all(TYPES[BY_NUMPY[array.dtype.name]][1] for array in arrays.values())
        for name, array in arrays.items():
            datatype = BY_NUMPY[array.dtype.name]
            output = reply.outputs.add(name=name, datatype=datatype, shape=array.shape)
            if self._reply == "misnamed":
                output.name += "_of_another_model"
            if is_typed:
                getattr(output.contents, TYPES[datatype][1]).extend(array.ravel().tolist())
            else:
                reply.raw_output_contents.append(raw_of(array))
        return reply

    def _takes(self, what: str) -> bool:
        with self._lock:
            self._left[what] -= 1
            return self._left[what] >= 0


def read_inputs(request: Any) -> dict[str, NDArray[Any]]:
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise invalid(f"{len(raw)} raw contents for {len(request.inputs)} inputs")
    feeds = {}
    for position, tensor in enumerate(request.inputs):
        numpy, field, _ = TYPES.get(tensor.datatype, ("", "", ""))
        if not numpy or (raw and tensor.HasField("contents")):
            raise invalid(f"{tensor.name}: type {tensor.datatype!r}, or contents of both kinds")
        values = array_of(raw[position], numpy) if raw else np.array(getattr(tensor.contents, field), dtype=numpy)
        if values.size != math.prod(tensor.shape):
            raise invalid(f"{tensor.name}: {values.size} values for shape {list(tensor.shape)}")
        feeds[tensor.name] = values.reshape(tuple(tensor.shape))
    return feeds


def array_of(raw: bytes, numpy: str) -> NDArray[Any]:
    if numpy != "object":
        return np.frombuffer(raw, dtype=numpy)
    texts = []
    while raw:
        (size,) = struct.unpack("<I", raw[:4])
        texts.append(raw[4 : 4 + size].decode())
        raw = raw[4 + size :]
    return np.array(texts, dtype=object)


def raw_of(array: NDArray[Any]) -> bytes:
    if array.dtype.name != "object":
        return array.tobytes()
    texts = [str(text).encode() for text in array.ravel()]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def check_feeds(session: onnxruntime.InferenceSession, feeds: dict[str, NDArray[Any]]) -> None:
    wanted = {argument.name: argument for argument in session.get_inputs()}
    if set(wanted) != set(feeds):
        raise invalid(f"inputs {sorted(feeds)}, expected {sorted(wanted)}")
    for name, array in feeds.items():
        sizes = list(wanted[name].shape)
        fits = len(sizes) == array.ndim and all(
            not isinstance(size, int) or size == seen for size, seen in zip(sizes, array.shape, strict=True)
        )
        if BY_RUNTIME[wanted[name].type] != BY_NUMPY[array.dtype.name] or (sizes and not fits):
            raise invalid(f"{name}: {array.dtype.name} of shape {list(array.shape)}, expected {sizes}")


def handler(service: Service) -> Any:
    """Routes the official method paths."""
    methods = {
        "ServerReady": method(service.server_ready, official_class("ServerReadyRequest")),
        "ModelReady": method(service.model_ready, official_class("ModelReadyRequest")),
        "ModelMetadata": method(service.model_metadata, official_class("ModelMetadataRequest")),
        "ModelInfer": method(service.model_infer, official_class("ModelInferRequest")),
    }
    return grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of <name>/<version>/model.onnx")
    parser.add_argument("--reply", choices=["raw", "typed", "misnamed"], default="raw")
    parser.add_argument("--fail-first", type=int, default=0, metavar="N", help="refuse the first N predictions")
    parser.add_argument("--code", default="UNAVAILABLE", help="gRPC code of the refusals")
    parser.add_argument("--loading", type=int, default=0, metavar="N", help="be not ready the first N times")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    service = Service(
        Models(options.models),
        reply=options.reply,
        fail_first=options.fail_first,
        code=options.code,
        loading=options.loading,
    )
    serve(handler(service))


if __name__ == "__main__":
    main()
