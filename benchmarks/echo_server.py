"""A model server for benchmarks: TensorFlow Serving's official messages, and a fixed time for each tile.

::

    python -m benchmarks.echo_server --tile-ms 4

prints ``ready PORT``. It serves the model ``Echo``, which gives back its tiles of 512 x 512 px, one call at a time as a
graphics card does. For every line on its standard input it prints a JSON object of what it did since the line before;
it ends when the input does.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from concurrent import futures
from typing import Any

import grpc

from support.tf_protos import official_class

TILE_PX = 512
FLOAT32 = 1
SERVICE = "tensorflow.serving"


class Echo:
    """The model, and the clock of how long it was busy."""

    def __init__(self, tile_s: float) -> None:
        self._tile_s = tile_s
        self._device = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Start to count again."""
        self._busy_s = 0.0
        self._tiles = self._calls = 0
        self._cpu_since = time.process_time()
        self._first = self._last = 0.0

    def figures(self) -> dict[str, Any]:
        """Fields of `benchmarks.model_server.Activity`, since `reset`."""
        return {
            "busy_s": self._busy_s,
            "span_s": self._last - self._first,
            "tiles": self._tiles,
            "calls": self._calls,
            "cpu_s": time.process_time() - self._cpu_since,
        }

    def predict(self, request: Any) -> bytes:
        """Return the only input, after the time that its tiles take."""
        (tensor,) = request.inputs.values()
        tiles = tensor.tensor_shape.dim[0].size
        response = official_class(f"{SERVICE}.PredictResponse")()
        response.model_spec.CopyFrom(request.model_spec)
        response.outputs["prediction"].CopyFrom(tensor)
        # Before its turn: a server that isn't one Python does it beside the device's work on another call.
        answer: bytes = response.SerializeToString()
        with self._device:
            started = time.perf_counter()
            self._first = self._first or started
            time.sleep(tiles * self._tile_s)
            self._last = time.perf_counter()
            self._busy_s += self._last - started
            self._tiles += tiles
            self._calls += 1
        return answer

    def metadata(self, request: Any) -> bytes:
        """Name, dtype and shape of input and output."""
        signatures = official_class(f"{SERVICE}.SignatureDefMap")()
        signature = signatures.signature_def["serving_default"]
        for tensors, name in ((signature.inputs, "image"), (signature.outputs, "prediction")):
            tensors[name].name, tensors[name].dtype = f"{name}:0", FLOAT32
            for size in (-1, TILE_PX, TILE_PX, 1):
                tensors[name].tensor_shape.dim.add(size=size)
        response = official_class(f"{SERVICE}.GetModelMetadataResponse")()
        response.model_spec.CopyFrom(request.model_spec)
        response.metadata["signature_def"].Pack(signatures)
        answer: bytes = response.SerializeToString()
        return answer


def handler(model: Echo) -> Any:
    """Routes the official method paths."""
    methods = {
        name: grpc.unary_unary_rpc_method_handler(
            lambda request, _, answer=answer: answer(request),
            request_deserializer=official_class(f"{SERVICE}.{name}Request").FromString,
        )
        for name, answer in (("Predict", model.predict), ("GetModelMetadata", model.metadata))
    }
    return grpc.method_handlers_generic_handler(f"{SERVICE}.PredictionService", methods)


def main() -> None:
    """Serve until the standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tile-ms", type=float, required=True, help="time of one tile")
    model = Echo(parser.parse_args().tile_ms / 1e3)
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=8),
        handlers=[handler(model)],
        options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)],
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"ready {port}", flush=True)
    for _ in sys.stdin:
        print(json.dumps(model.figures()), flush=True)
        model.reset()
    server.stop(grace=None).wait()


if __name__ == "__main__":
    main()
