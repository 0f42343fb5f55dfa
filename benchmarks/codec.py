"""Measures the time to encode an array as a request and to decode the arrays of a reply."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.job import ModelId
from redis_consumer.serving._pb.tfs_pb2 import PredictRequest, PredictResponse
from redis_consumer.serving.tfs.messages import predict_outputs, predict_request
from redis_consumer.serving.tfs.tensors import tensor_head, to_tensor, wire_type

MODEL = ModelId("Model", 1)
SHAPES = {"small": (1, 256, 256, 1), "mid": (1, 512, 512, 2), "big": (1, 2048, 2048, 2)}
RUNS = 15
SEED = 7

Image = npt.NDArray[np.float32]


def measure() -> dict[str, Any]:
    """Time packing and unpacking of float32 images; medians.

    Returns:
        For each image ``pack_ms``, array to the bytes of a request; ``unpack_content_ms`` and
        ``unpack_float_val_ms``, bytes of a reply of either form to arrays; ``memcpy_ms``, the reference: a copy into
        fresh memory by numpy, which asks the kernel for huge pages; ``per_element_ms``, a request made pixel by pixel.
    """
    dice = np.random.default_rng(SEED)
    return {name: _figures(dice.random(shape, dtype=np.float32)) for name, shape in SHAPES.items()}


def _figures(image: Image) -> dict[str, float]:
    content, values = _replies(image)
    return {
        "pack_ms": _median_ms(lambda: predict_request(MODEL, {"image": image}, {})),
        "unpack_content_ms": _median_ms(lambda: predict_outputs(content)),
        "unpack_float_val_ms": _median_ms(lambda: predict_outputs(values)),
        "memcpy_ms": _median_ms(image.copy),
        "per_element_ms": _median_ms(lambda: _packed_by_pixel(image), runs=1),
    }


def _replies(image: Image) -> tuple[bytes, bytes]:
    """The same reply in both forms."""
    values = tensor_head(image.shape, wire_type(image.dtype))
    values.float_val.extend(image.ravel())
    content, repeated = (PredictResponse(outputs={"prediction": tensor}) for tensor in (to_tensor(image), values))
    return content.SerializeToString(), repeated.SerializeToString()


def _packed_by_pixel(image: Image) -> bytes:
    """What a plain client does: a Python object for each pixel."""
    tensor = tensor_head(image.shape, wire_type(image.dtype))
    tensor.float_val.extend([float(value) for value in image.flat])
    return PredictRequest(inputs={"image": tensor}).SerializeToString()


def _median_ms(run: Callable[[], object], runs: int = RUNS) -> float:
    times_s = []
    for _ in range(runs):
        started = time.perf_counter()
        result = run()
        times_s.append(time.perf_counter() - started)
        # Kept until here, so that giving its memory back isn't timed.
        del result
    return round(1e3 * statistics.median(times_s), 4)
