"""Reads a model's metadata from TensorFlow Serving (contract, sections 4.1 and 4.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from redis_consumer.errors import ModelMismatch, ModelServerUnavailable
from redis_consumer.job import ModelId
from redis_consumer.serving._pb.tfs_pb2 import GetModelMetadataResponse, SignatureDef, SignatureDefMap, TensorInfo
from redis_consumer.serving.base import ModelSpec, TensorSpec
from redis_consumer.serving.tfs.tensors import wire_type

Message = TypeVar("Message", GetModelMetadataResponse, SignatureDefMap)

SIGNATURE = "serving_default"
FIELD = "signature_def"
_TYPE_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"


def read_response(reply: bytes, model: ModelId) -> GetModelMetadataResponse:
    """Parse a serialized ``GetModelMetadataResponse``.

    Raises:
        ModelServerUnavailable: the bytes aren't what TensorFlow Serving sends.
    """
    return _parsed(GetModelMetadataResponse, reply, model)


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
    """Say which tensors a signature takes and gives, each sorted by name."""
    return ModelSpec(inputs=_specs(definition.inputs), outputs=_specs(definition.outputs))


def metadata_as_json(response: GetModelMetadataResponse, model: ModelId) -> dict[str, Any]:
    """Write metadata as protobuf's JSON form does; sizes and versions are texts in it, -1 is any size.

    The inputs are at ``["metadata"]["signature_def"]["signatureDef"]["serving_default"]["inputs"]``.
    """
    from google.protobuf.json_format import MessageToDict

    signatures = {"@type": _TYPE_URL, **MessageToDict(_signatures(response, model))}
    return {"modelSpec": MessageToDict(response.model_spec), "metadata": {FIELD: signatures}}


def _signatures(response: GetModelMetadataResponse, model: ModelId) -> SignatureDefMap:
    # Not Any.Unpack: it insists on the type's official name, and ours has another.
    content = response.metadata.get(FIELD)
    if content is None or content.type_url != _TYPE_URL:
        raise ModelServerUnavailable(
            f"model {model}: the server's metadata hold no signatures; check that it is TensorFlow Serving",
            model=str(model),
        )
    return _parsed(SignatureDefMap, content.value, model)


def _parsed(kind: type[Message], content: bytes, model: ModelId) -> Message:
    from google.protobuf.message import DecodeError

    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise ModelServerUnavailable(
            f"model {model}: the server's metadata can't be read: {error}; check that it is TensorFlow Serving",
            model=str(model),
        ) from error


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
