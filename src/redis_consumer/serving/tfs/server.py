"""Calls models on TensorFlow Serving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from redis_consumer.job import ModelId
from redis_consumer.serving._pb import tfs_pb2
from redis_consumer.serving.base import Array, ModelSpec, OnRetry, check_inputs, check_outputs
from redis_consumer.serving.identity import METADATA, ModelIdentity, spec_digest
from redis_consumer.serving.remembered import Remembered
from redis_consumer.serving.tfs import metadata
from redis_consumer.serving.tfs.messages import predict_outputs, predict_request, wire_spec
from redis_consumer.serving.transport.channel import CallLimits, Channel
from redis_consumer.serving.transport.connection import ConnectionOptions

PREDICT = "/tensorflow.serving.PredictionService/Predict"
GET_MODEL_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"

_METADATA_TIMEOUT_S = 10.0
_ALIVE = frozenset({"OK", "NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION"})


@dataclass(frozen=True)
class _Known:
    """The metadata of a model."""

    spec: ModelSpec
    types: Mapping[str, int]
    version: int


class TFServingServer:
    """A `ModelServer` that speaks TensorFlow Serving's gRPC over kept, lazily made connections.

    Args:
        address: ``host:port``; several of them, divided by commas, are equivalent servers that share the calls.
        timeout_s: seconds allowed for one try of a prediction; in proportion more for requests above 16 MiB.
        backoff_s: pause before the first retry in seconds; it doubles with each further one, with jitter.
        max_retries: how often a call is repeated at most.
        metadata_expire_s: for how many seconds a model's metadata are believed.
        connection: how to connect.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float = 30,
        backoff_s: float = 3,
        max_retries: int = 5,
        metadata_expire_s: float = 30,
        connection: ConnectionOptions | None = None,
    ) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._channel = Channel(
            address.split(","),
            "TensorFlow Serving",
            options=connection,
            limits=CallLimits(timeout_s=timeout_s, backoff_s=backoff_s, max_retries=max_retries),
        )
        self._known: Remembered[ModelId, _Known] = Remembered(metadata_expire_s)

    def metadata(self, model: ModelId, *, on_retry: OnRetry | None = None) -> ModelSpec:
        """Say which tensors a model takes and gives, see `ModelServer.metadata`.

        Raises:
            ModelNotFound: the server has no such model.
            ModelMismatch: the model has no signature ``serving_default``.
            ModelServerUnavailable: the server doesn't answer, after bounded retries.
        """
        return self._current(model, on_retry).spec

    def identity(self, model: ModelId) -> ModelIdentity:
        """Say which version answers, see `redis_consumer.serving.identity.identify`."""
        known = self._current(model, None)
        return ModelIdentity(known.version or None, spec_digest(known.spec), METADATA)

    def _current(self, model: ModelId, on_retry: OnRetry | None) -> _Known:
        return self._known.get_or(model, lambda: self._asked(model, on_retry))

    def _asked(self, model: ModelId, on_retry: OnRetry | None) -> _Known:
        response = self._metadata_response(model, on_retry=on_retry)
        definition = metadata.signature(response, model)
        types = {name: int(tensor.dtype) for name, tensor in definition.inputs.items()}
        return _Known(metadata.model_spec(definition), types, int(response.model_spec.version.value))

    def metadata_json(self, model: ModelId, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Give a model's metadata in protobuf's JSON form (contract, section 4.4), asking the server each time."""
        return metadata.metadata_as_json(self._metadata_response(model, timeout_s), model)

    def predict(
        self,
        model: ModelId,
        inputs: Mapping[str, Array],
        *,
        types: Mapping[str, object] | None = None,
        timeout_s: float | None = None,
        on_retry: OnRetry | None = None,
    ) -> dict[str, Array]:
        """Run a model on one batch, see `ModelServer.predict`.

        Where the model's metadata are known by an earlier `metadata`, the inputs are checked against them before
        anything is sent, and cast. Otherwise they are sent unchanged and the server checks them.

        Args:
            model: which model; version 0 is the latest that the server has.
            inputs: an array for each input by name, axis 0 is the batch.
            types: TensorFlow's name or number of an input's type, where it isn't the model's or the array's own.
            timeout_s: seconds allowed for one try, None for the server's usual.
            on_retry: called before each repeated call.

        Raises:
            ModelNotFound: the server has no such model.
            ModelMismatch: the inputs don't fit the model, or the outputs aren't what its metadata say.
            ModelServerUnavailable: the server doesn't answer, after bounded retries.
        """
        known = self._current(model, on_retry) if model in self._known else None
        arrays = dict(inputs) if known is None else check_inputs(known.spec, inputs, model)
        wanted = types or ({} if known is None else known.types)
        reply = self._channel.call(
            PREDICT, predict_request(model, arrays, wanted), model=model, timeout_s=timeout_s, on_retry=on_retry
        )
        return check_outputs(None if known is None else known.spec, predict_outputs(reply), model)

    def check(self) -> str:
        """Check once that each server answers as TensorFlow Serving, within a few seconds, and describe the result.

        Raises:
            ModelServerUnavailable: none does.
        """
        request = tfs_pb2.GetModelMetadataRequest(metadata_field=[metadata.FIELD]).SerializeToString()
        advice = "check that it runs, and MODEL_SERVER or TF_HOST and TF_PORT"
        return self._channel.check(GET_MODEL_METADATA, request, alive=_ALIVE, advice=advice)

    def close(self) -> None:
        """Close the connection and forget metadata; a later call opens a new one."""
        self._channel.close()
        self._known.clear()

    def _metadata_response(
        self, model: ModelId, timeout_s: float | None = None, *, on_retry: OnRetry | None = None
    ) -> tfs_pb2.GetModelMetadataResponse:
        request = tfs_pb2.GetModelMetadataRequest(model_spec=wire_spec(model), metadata_field=[metadata.FIELD])
        reply = self._channel.call(
            GET_MODEL_METADATA,
            request.SerializeToString(),
            model=model,
            timeout_s=min(self._timeout_s, _METADATA_TIMEOUT_S) if timeout_s is None else timeout_s,
            on_retry=on_retry,
        )
        return metadata.read_response(reply, model)
