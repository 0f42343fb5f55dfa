"""Calls models on TensorFlow Serving, and reads their metadata (contract, sections 4.1 and 4.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from redis_consumer.errors import ModelMismatch, ModelServerUnavailable
from redis_consumer.job import ModelId
from redis_consumer.serving._pb.tfs_pb2 import (
    GetModelMetadataRequest,
    GetModelMetadataResponse,
    SignatureDef,
    SignatureDefMap,
    TensorInfo,
)
from redis_consumer.serving.base import Array, ModelSpec, OnRetry, TensorSpec
from redis_consumer.serving.remote import RemoteServer, ServedModel
from redis_consumer.serving.tfs.messages import predict_outputs, predict_request, wire_spec
from redis_consumer.serving.tfs.tensors import wire_type

PREDICT = "/tensorflow.serving.PredictionService/Predict"
GET_MODEL_METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"

SIGNATURE = "serving_default"
_FIELD = "signature_def"
_TYPE_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


class TFServingServer(RemoteServer):
    """A `ModelServer` that speaks TensorFlow Serving's gRPC, see `redis_consumer.serving.remote.RemoteServer`."""

    kind = "TensorFlow Serving"
    predict_method = PREDICT
    check_method = GET_MODEL_METADATA
    check_request = GetModelMetadataRequest(metadata_field=[_FIELD]).SerializeToString()
    check_codes = ("OK", "NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION")
    check_advice = "check that it runs, and MODEL_SERVER or TF_HOST and TF_PORT"

    def metadata_json(self, model: ModelId, *, timeout_s: float | None = None) -> dict[str, Any]:
        """Return a model's metadata in protobuf's JSON form (contract, section 4.4), asking the server each time."""
        return metadata_as_json(self._metadata_response(model, timeout_s=timeout_s), model)

    def _fetch(self, model: ModelId, on_retry: OnRetry | None) -> ServedModel:
        response = self._metadata_response(model, on_retry=on_retry)
        definition = signature(response, model)
        types = {name: int(tensor.dtype) for name, tensor in definition.inputs.items()}
        return ServedModel(model_spec(definition), types, int(response.model_spec.version.value))

    def _metadata_response(
        self, model: ModelId, *, timeout_s: float | None = None, on_retry: OnRetry | None = None
    ) -> GetModelMetadataResponse:
        request = GetModelMetadataRequest(model_spec=wire_spec(model), metadata_field=[_FIELD])
        kind = GetModelMetadataResponse
        return self._ask(GET_MODEL_METADATA, request, kind, model, timeout_s=timeout_s, on_retry=on_retry)

    def _request(self, model: ModelId, arrays: Mapping[str, Array], types: Mapping[str, Any]) -> bytes:
        return predict_request(model, arrays, types)

    def _outputs(self, reply: bytes) -> dict[str, Array]:
        return predict_outputs(reply)


def signature(response: GetModelMetadataResponse, model: ModelId) -> SignatureDef:
    """Take the signature that predictions use.

    Raises:
        ModelMismatch: the model has no signature ``serving_default``.
        ModelServerUnavailable: the reply isn't what TensorFlow Serving sends.
    """
    signatures = _signatures(response, model).signature_def
    if SIGNATURE not in signatures:
        names = ", ".join(sorted(signatures)) or "none"
        raise ModelMismatch(
            f"model {model}: it has no signature {SIGNATURE!r} (it has: {names}); export the model with one",
            model=str(model),
        )
    return signatures[SIGNATURE]


def model_spec(definition: SignatureDef) -> ModelSpec:
    """Return which tensors a signature takes and gives, each sorted by name."""
    return ModelSpec(inputs=_specs(definition.inputs), outputs=_specs(definition.outputs))


def metadata_as_json(response: GetModelMetadataResponse, model: ModelId) -> dict[str, Any]:
    """Write metadata as protobuf's JSON form does; sizes and versions are texts in it, -1 is any size.

    The inputs are at ``["metadata"]["signature_def"]["signatureDef"]["serving_default"]["inputs"]``.
    """
    signatures = {"@type": _TYPE_URL, **MessageToDict(_signatures(response, model))}
    return {"modelSpec": MessageToDict(response.model_spec), "metadata": {_FIELD: signatures}}


def _signatures(response: GetModelMetadataResponse, model: ModelId) -> SignatureDefMap:
    # Not Any.Unpack: it insists on the type's official name, and ours has another.
    content = response.metadata.get(_FIELD)
    if content is None or content.type_url != _TYPE_URL:
        raise _unreadable(model, "hold no signatures")
    try:
        return SignatureDefMap.FromString(content.value)
    except DecodeError as error:
        raise _unreadable(model, f"can't be read: {error}") from error


def _unreadable(model: ModelId, problem: str) -> ModelServerUnavailable:
    return ModelServerUnavailable(
        f"model {model}: the server's metadata {problem}; check that it is TensorFlow Serving", model=str(model)
    )


def _specs(tensors: Mapping[str, TensorInfo]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, _dtype(tensors[name]), _shape(tensors[name])) for name in sorted(tensors))


def _dtype(tensor: TensorInfo) -> np.dtype[Any]:
    try:
        return wire_type(int(tensor.dtype)).array
    except ModelMismatch:
        # Quantised and resource types matter only to those who send or read them, which refuse them by name.
        return np.dtype(object)


def _shape(tensor: TensorInfo) -> tuple[int | None, ...] | None:
    if tensor.tensor_shape.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in tensor.tensor_shape.dim)
