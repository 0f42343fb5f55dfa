"""How are models asked that TensorFlow Serving holds?"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis_consumer.errors import ModelServerUnavailable
from redis_consumer.job import ModelId
from redis_consumer.serving import tf_metadata
from redis_consumer.serving._pb import tfs_pb2
from redis_consumer.serving.base import Array, ModelSpec, OnRetry, check_inputs
from redis_consumer.serving.tensors import from_tensor, to_tensor
from redis_consumer.serving.tf_channel import TFChannel

PREDICT = "/tensorflow.serving.PredictionService/Predict"
GET_MODEL_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"

_METADATA_TIMEOUT_S = 10.0
_CHECK_TIMEOUT_S = 5.0
_ALIVE = frozenset({"OK", "NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION"})


@dataclass(frozen=True)
class _Known:
    """What metadata said about a model, and the monotonic moment until which it is believed."""

    spec: ModelSpec
    types: Mapping[str, int]
    until_s: float


class TFServingServer:
    """A `ModelServer` that speaks TensorFlow Serving's gRPC over one kept, lazily made connection.

    Args:
        address: ``host:port``.
        timeout_s: seconds allowed for one try of a prediction.
        backoff_s: pause before the first retry in seconds; it doubles with each further one, with jitter.
        max_retries: how often a call is repeated at most.
        max_message_bytes: largest request and reply, -1 for any size.
        metadata_expire_s: for how many seconds a model's metadata are believed.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = 30,
        backoff_s: float = 3,
        max_retries: int = 5,
        max_message_bytes: int = -1,
        metadata_expire_s: float = 30,
    ) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._metadata_expire_s = metadata_expire_s
        self._channel = TFChannel(
            address, backoff_s=backoff_s, max_retries=max_retries, max_message_bytes=max_message_bytes
        )
        self._known: dict[ModelId, _Known] = {}
        self._lock = threading.Lock()

    def metadata(self, model: ModelId, *, on_retry: OnRetry | None = None) -> ModelSpec:
        """Say which tensors a model takes and gives, see `ModelServer.metadata`.

        Raises:
            ModelNotFound: the server has no such model.
            ModelMismatch: the model has no signature ``serving_default``.
            ModelServerUnavailable: the server doesn't answer, after bounded retries.
        """
        known = self._remembered(model)
        if known is None:
            definition = tf_metadata.signature(self._metadata_response(model, on_retry=on_retry), model)
            types = {name: int(tensor.dtype) for name, tensor in definition.inputs.items()}
            until_s = time.monotonic() + self._metadata_expire_s
            known = _Known(tf_metadata.model_spec(definition), types, until_s)
            with self._lock:
                self._known[model] = known
        return known.spec

    def metadata_json(self, model: ModelId, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Give a model's metadata in protobuf's JSON form (contract, section 4.4), asking the server each time."""
        return tf_metadata.metadata_as_json(self._metadata_response(model, timeout_s), model)

    def predict(
        self,
        model: ModelId,
        inputs: Mapping[str, Array],
        *,
        timeout_s: float | None = None,
        on_retry: OnRetry | None = None,
    ) -> dict[str, Array]:
        """Run a model on one batch, see `ModelServer.predict`.

        Where the model's metadata are known by an earlier `metadata`, the inputs are checked against them before
        anything is sent, and cast; else they go as they are and the server judges.

        Args:
            model: which model; version 0 is the latest that the server has.
            inputs: an array for each input by name, axis 0 is the batch.
            timeout_s: seconds allowed for one try, None for the server's usual.
            on_retry: told before each repeated call.

        Raises:
            ModelNotFound: the server has no such model.
            ModelMismatch: the inputs don't fit the model, or the reply can't be read.
            ModelServerUnavailable: the server doesn't answer, after bounded retries.
        """
        known = self._remembered(model)
        arrays = dict(inputs) if known is None else check_inputs(known.spec, inputs, model)
        types = {} if known is None else known.types
        tensors = {name: to_tensor(array, types.get(name)) for name, array in arrays.items()}
        return self.predict_tensors(model, tensors, timeout_s=timeout_s, on_retry=on_retry)

    def predict_tensors(
        self,
        model: ModelId,
        tensors: Mapping[str, tfs_pb2.TensorProto],
        *,
        timeout_s: float | None = None,
        on_retry: OnRetry | None = None,
    ) -> dict[str, Array]:
        """Run a model on inputs that are tensors already; else like `predict`."""
        response = self._channel.call(
            PREDICT,
            tfs_pb2.PredictRequest(model_spec=_wire_spec(model), inputs=tensors),
            tfs_pb2.PredictResponse,
            timeout_s=self._timeout_s if timeout_s is None else timeout_s,
            on_retry=on_retry,
        )
        return {name: from_tensor(response.outputs[name], name=name) for name in sorted(response.outputs)}

    def check(self) -> str:
        """Ask once, within a few seconds, whether TensorFlow Serving answers, and say so in words.

        Raises:
            ModelServerUnavailable: nothing answers, or something that isn't TensorFlow Serving.
        """
        code = self._channel.probe(
            GET_MODEL_METADATA,
            tfs_pb2.GetModelMetadataRequest(metadata_field=[tf_metadata.FIELD]),
            tfs_pb2.GetModelMetadataResponse,
            timeout_s=_CHECK_TIMEOUT_S,
        )
        if code not in _ALIVE:
            raise ModelServerUnavailable(
                f"model server {self.address}: no TensorFlow Serving answers there ({code}); "
                "check that it runs, and MODEL_SERVER or TF_HOST and TF_PORT"
            )
        return f"TensorFlow Serving answers at {self.address}"

    def close(self) -> None:
        """Close the connection and forget metadata; a later call opens a new one."""
        self._channel.close()
        with self._lock:
            self._known.clear()

    def _remembered(self, model: ModelId) -> _Known | None:
        with self._lock:
            known = self._known.get(model)
        return known if known is not None and time.monotonic() < known.until_s else None

    def _metadata_response(
        self, model: ModelId, timeout_s: float | None = None, *, on_retry: OnRetry | None = None
    ) -> tfs_pb2.GetModelMetadataResponse:
        request = tfs_pb2.GetModelMetadataRequest(model_spec=_wire_spec(model), metadata_field=[tf_metadata.FIELD])
        return self._channel.call(
            GET_MODEL_METADATA,
            request,
            tfs_pb2.GetModelMetadataResponse,
            timeout_s=min(self._timeout_s, _METADATA_TIMEOUT_S) if timeout_s is None else timeout_s,
            on_retry=on_retry,
        )


def _wire_spec(model: ModelId) -> tfs_pb2.ModelSpec:
    spec = tfs_pb2.ModelSpec(name=model.name)
    if model.version > 0:
        # A version 0 that is present would mean version 0 itself, not the latest.
        spec.version.value = model.version
    return spec
