"""A gRPC server that speaks TensorFlow Serving's official messages and runs ONNX models.

::

    python -m support.tf_serving_server --models DIR     # with the tests folder on the path

serves ``DIR/<name>/<version>/model.onnx`` on 127.0.0.1 and prints ``ready PORT``. It shares no code with the client.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from support.stand_in import Refusal, method, serve
from support.tf_protos import official_class

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

# dtype name: TensorFlow's number, the field for its values, the runtime's name.
TYPES = {
    "float32": (1, "float_val", "float"),
    "float64": (2, "double_val", "double"),
    "int32": (3, "int_val", "int32"),
    "uint8": (4, "int_val", "uint8"),
    "int16": (5, "int_val", "int16"),
    "int8": (6, "int_val", "int8"),
    "object": (7, "string_val", "string"),
    "int64": (9, "int64_val", "int64"),
    "bool": (10, "bool_val", "bool"),
    "uint16": (17, "int_val", "uint16"),
    "float16": (19, "half_val", "float16"),
    "uint32": (22, "uint32_val", "uint32"),
    "uint64": (23, "uint64_val", "uint64"),
}
BY_NUMBER = {number: name for name, (number, _, _) in TYPES.items()}
BY_RUNTIME = {f"tensor({runtime})": name for name, (_, _, runtime) in TYPES.items()}


class Models:
    """The models of a folder, each loaded at its first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sessions: dict[Path, onnxruntime.InferenceSession] = {}
        self._lock = threading.Lock()

    def find(self, spec: Any) -> tuple[int, onnxruntime.InferenceSession]:
        if not spec.name:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")
        if spec.version_label and spec.version_label != "stable":
            raise Refusal(
                grpc.StatusCode.INVALID_ARGUMENT, f"Unrecognized servable version label: {spec.version_label}"
            )
        is_specific = spec.HasField("version")
        wanted = f"Specific({spec.name}, {spec.version.value})" if is_specific else f"Latest({spec.name})"
        paths = {int(path.parent.name): path for path in (self._folder / spec.name).glob("*/model.onnx")}
        # The label is kept for the oldest version, so that it isn't the latest.
        chosen = min if spec.version_label else max
        version = spec.version.value if is_specific else chosen(paths, default=0)
        if version not in paths:
            raise Refusal(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {wanted}")
        with self._lock:
            if paths[version] not in self._sessions:
                self._sessions[paths[version]] = onnxruntime.InferenceSession(
                    str(paths[version]), providers=["CPUExecutionProvider"]
                )
            return version, self._sessions[paths[version]]


class Faults:
    """Fails the first calls and delays the others, or dies of one, as asked for."""

    def __init__(self, fail_first: int, code: str, delay_s: float, fatal_pixel: float | None) -> None:
        self._left = fail_first
        self._code = grpc.StatusCode[code]
        self._delay_s = delay_s
        self._fatal_pixel = fatal_pixel
        self._lock = threading.Lock()

    def apply(self) -> None:
        with self._lock:
            self._left -= 1
            is_failing = self._left >= 0
        if is_failing:
            raise Refusal(self._code, "asked to fail")
        if self._delay_s:
            threading.Event().wait(self._delay_s)

    def swallow(self, feeds: dict[str, NDArray[Any]]) -> None:
        """End this process, as native code may, where an input holds the fatal pixel."""
        if self._fatal_pixel is not None and any(bool((array == self._fatal_pixel).any()) for array in feeds.values()):
            os.kill(os.getpid(), signal.SIGKILL)


class PredictionService:
    """The two methods, in terms of messages."""

    def __init__(self, models: Models, faults: Faults, reply: str, hold_s: float = 0) -> None:
        self._models = models
        self._faults = faults
        self._hold_s = hold_s
        self._reply = reply

    def predict(self, request: Any) -> Any:
        self._faults.apply()
        threading.Event().wait(self._hold_s)
        version, session = self._models.find(request.model_spec)
        outputs = [output.name for output in session.get_outputs()]
        wanted = list(request.output_filter) or outputs
        if not set(wanted) <= set(outputs):
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"output tensor alias not found: {wanted}")
        feeds = {name: from_tensor(tensor) for name, tensor in request.inputs.items()}
        check_feeds(session, feeds)
        self._faults.swallow(feeds)
        response = official_class("tensorflow.serving.PredictResponse")()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        response.model_spec.signature_name = "serving_default"
        for name, array in zip(wanted, session.run(wanted, feeds), strict=True):
            response.outputs[name].CopyFrom(to_tensor(array, self._reply))
        return response

    def metadata(self, request: Any) -> Any:
        self._faults.apply()
        version, session = self._models.find(request.model_spec)
        if list(request.metadata_field) != ["signature_def"]:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"Metadata field {list(request.metadata_field)}")
        signatures = official_class("tensorflow.serving.SignatureDefMap")()
        signature = signatures.signature_def["serving_default"]
        signature.method_name = "tensorflow/serving/predict"
        for arguments, tensors in (
            (session.get_inputs(), signature.inputs),
            (session.get_outputs(), signature.outputs),
        ):
            for argument in arguments:
                describe(argument, tensors[argument.name])
        response = official_class("tensorflow.serving.GetModelMetadataResponse")()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version
        response.metadata["signature_def"].Pack(signatures)
        return response


def describe(argument: Any, tensor: Any) -> None:
    tensor.name = f"{argument.name}:0"
    tensor.dtype = TYPES[BY_RUNTIME[argument.type]][0]
    if not argument.shape:
        tensor.tensor_shape.unknown_rank = True
    for size in argument.shape:
        tensor.tensor_shape.dim.add(size=size if isinstance(size, int) else -1)


def check_feeds(session: onnxruntime.InferenceSession, feeds: dict[str, NDArray[Any]]) -> None:
    wanted = {argument.name: argument for argument in session.get_inputs()}
    if set(wanted) != set(feeds):
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"input keys {sorted(feeds)}, expected {sorted(wanted)}")
    for name, array in feeds.items():
        argument = wanted[name]
        if BY_RUNTIME[argument.type] != array.dtype.name:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"{name}: {array.dtype.name} is not {argument.type}")
        sizes = list(argument.shape)
        fits = len(sizes) == array.ndim and all(
            not isinstance(size, int) or size == seen for size, seen in zip(sizes, array.shape, strict=True)
        )
        if sizes and not fits:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"{name}: shape {list(array.shape)} is not {sizes}")


def from_tensor(tensor: Any) -> NDArray[Any]:
    dtype = BY_NUMBER.get(tensor.dtype)
    if dtype is None:
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"dtype {tensor.dtype} isn't served")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    field = TYPES[dtype][1]
    if dtype == "object":
        values = np.array([value.decode() for value in tensor.string_val], dtype=object)
    elif tensor.tensor_content:
        values = np.frombuffer(tensor.tensor_content, dtype=dtype)
    elif field == "half_val":
        values = np.array(list(tensor.half_val), dtype=np.uint16).view(np.float16)
    else:
        values = np.array(list(getattr(tensor, field)), dtype=dtype)
    try:
        return values.reshape(shape)
    except ValueError as error:
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error


def to_tensor(array: NDArray[Any], reply: str) -> Any:
    number, field, _ = TYPES[array.dtype.name]
    tensor = official_class("tensorflow.TensorProto")(dtype=number)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if field == "string_val":
        tensor.string_val.extend(str(value).encode() for value in array.ravel())
    elif reply == "tensor_content":
        tensor.tensor_content = array.tobytes()
    elif field == "half_val":
        tensor.half_val.extend(array.view(np.uint16).ravel().tolist())
    else:
        getattr(tensor, field).extend(array.ravel().tolist())
    return tensor


def handler(service: PredictionService) -> Any:
    """Routes the official method paths."""
    package = "tensorflow.serving"
    methods = {
        "Predict": method(service.predict, official_class(f"{package}.PredictRequest")),
        "GetModelMetadata": method(service.metadata, official_class(f"{package}.GetModelMetadataRequest")),
    }
    return grpc.method_handlers_generic_handler(f"{package}.PredictionService", methods)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of <name>/<version>/model.onnx")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--reply", choices=["tensor_content", "float_val"], default="tensor_content")
    parser.add_argument("--fail-first", type=int, default=0, metavar="N", help="refuse the first N calls")
    parser.add_argument("--code", default="UNAVAILABLE", help="gRPC code of the refusals")
    parser.add_argument("--delay-s", type=float, default=0, help="wait before each answer")
    parser.add_argument("--hold-s", type=float, default=0, help="wait before each prediction, but not for metadata")
    parser.add_argument("--fatal-pixel", type=float, metavar="VALUE", help="die of an input that holds it")
    parser.add_argument("--max-message-bytes", type=int, default=-1)
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that started this one")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    faults = Faults(options.fail_first, options.code, options.delay_s, options.fatal_pixel)
    service = PredictionService(Models(options.models), faults, options.reply, options.hold_s)
    serve(
        handler(service),
        port=options.port,
        max_message_bytes=options.max_message_bytes,
        until_stdin_closes=options.until_stdin_closes,
    )


if __name__ == "__main__":
    main()
