"""Converts a prediction to the bytes of a request, and the bytes of a reply to arrays.

Pixels are written directly from the arrays' memory, because protobuf would copy them at each layer. Protobuf handles
all other values, and unusual forms of a reply.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from redis_consumer.errors import ModelMismatch, ModelServerUnavailable
from redis_consumer.job import ModelId
from redis_consumer.serving._pb.tfs_pb2 import ModelSpec, PredictRequest, PredictResponse, TensorProto
from redis_consumer.serving.base import Array
from redis_consumer.serving.tfs.tensors import (
    MAX_TENSOR_BYTES,
    from_tensor,
    raw_values,
    tensor_head,
    to_tensor,
    wire_type,
)
from redis_consumer.serving.transport.protobuf import (
    MAX_FIELDS,
    MAX_MESSAGE_BYTES,
    Piece,
    field_head,
    field_values,
    fields,
    joined,
    size_of,
)

_INPUTS = PredictRequest.INPUTS_FIELD_NUMBER
_OUTPUTS = PredictResponse.OUTPUTS_FIELD_NUMBER
_CONTENT = TensorProto.TENSOR_CONTENT_FIELD_NUMBER
_KEY, _VALUE = 1, 2

# Packed, these fields hold the same bytes as tensor_content would.
_RAW_FIELDS = {
    name: TensorProto.DESCRIPTOR.fields_by_name[name].number
    for name in ("float_val", "double_val", "scomplex_val", "dcomplex_val")
}
_LARGE = {_CONTENT, *_RAW_FIELDS.values()}

# A tensor, and its raw content where that was left out of it.
_Tensor = tuple[TensorProto, bytes | memoryview | None]


def wire_spec(model: ModelId) -> ModelSpec:
    """Name a model as TensorFlow Serving does; without a version it takes the latest that it has."""
    spec = ModelSpec(name=model.name)
    if model.label:
        spec.version_label = model.label
    if model.version > 0:
        # A version 0 that is present would mean version 0 itself, not the latest.
        spec.version.value = model.version
    return spec


def predict_request(model: ModelId, arrays: Mapping[str, Array], types: Mapping[str, object]) -> bytes:
    """Write a serialized ``PredictRequest``; the pixels are copied once.

    Args:
        model: which model.
        arrays: an array for each input by name: any shape, also 0-d, empty, strided or big-endian.
        types: type on the wire of an input, see `wire_type`, where it isn't the array's own.

    Raises:
        ModelMismatch: a type has no counterpart, an array can't be cast to it, or the request is over 2 GiB.
    """
    pieces: list[Piece] = [PredictRequest(model_spec=wire_spec(model)).SerializeToString()]
    for name, array in arrays.items():
        tensor = _tensor_pieces(array, types.get(name))
        pieces += _field(_INPUTS, [*_field(_KEY, [name.encode()]), *_field(_VALUE, tensor)])
    if size_of(pieces) > MAX_MESSAGE_BYTES:
        raise ModelMismatch(
            f"model {model}: a request of {size_of(pieces)} bytes is too long to send; use smaller tiles or batches",
            model=str(model),
        )
    return joined(pieces)


def predict_outputs(reply: bytes) -> dict[str, Array]:
    """Read a serialized ``PredictResponse``; what comes as raw bytes is copied once.

    Returns:
        A writable array for each output, sorted by name, see `from_tensor`.

    Raises:
        ModelMismatch: an output contradicts itself.
        ModelServerUnavailable: the bytes are no such reply.
    """
    from google.protobuf.message import DecodeError

    try:
        located = _located(memoryview(reply))
    except (ValueError, DecodeError):
        # Broken, or unusual.
        located = _parsed(reply)
    outputs: dict[str, Array] = {}
    for name in sorted(located):
        tensor, content = located[name]
        outputs[name] = from_tensor(tensor, name=name, content=content)
        # Few bytes may stand for many elements.
        if sum(output.nbytes for output in outputs.values()) > MAX_TENSOR_BYTES:
            raise ModelMismatch(f"the outputs exceed {MAX_TENSOR_BYTES} bytes together; use smaller batches")
    return outputs


def _tensor_pieces(array: Array, dtype: object) -> list[Piece]:
    values = np.asarray(array)
    kind = wire_type(values.dtype if dtype is None else dtype)
    if kind.wire is None:
        return [to_tensor(values, dtype).SerializeToString()]
    return [tensor_head(values.shape, kind).SerializeToString(), *_field(_CONTENT, [raw_values(values, kind)])]


def _field(number: int, content: Sequence[Piece]) -> list[Piece]:
    return [field_head(number, size_of(content)), *content]


def _located(reply: memoryview) -> dict[str, _Tensor]:
    return dict(_entry(value) for number, value in field_values(reply) if number == _OUTPUTS)


def _parsed(reply: bytes) -> dict[str, _Tensor]:
    from google.protobuf.message import DecodeError

    try:
        outputs = PredictResponse.FromString(reply).outputs
    except DecodeError as error:
        raise ModelServerUnavailable(
            f"the model server's reply can't be read: {error}; check that it is TensorFlow Serving"
        ) from error
    return {name: (tensor, None) for name, tensor in outputs.items()}


def _entry(entry: memoryview) -> tuple[str, _Tensor]:
    found = list(field_values(entry))
    parts = dict(found)
    if len(parts) != len(found):
        raise ValueError("a part of an output comes twice")
    return bytes(parts.get(_KEY, b"")).decode(), _split(parts.get(_VALUE, memoryview(b"")))


def _split(tensor: memoryview) -> _Tensor:
    large: dict[int, list[memoryview]] = defaultdict(list)
    rest = []
    for number, start, value, end in fields(tensor, limit=MAX_FIELDS):
        if number in _LARGE and value is not None:
            large[number].append(tensor[value:end])
        else:
            rest.append(tensor[start:end])
    head = TensorProto.FromString(b"".join(rest))
    field = wire_type(head.dtype).field
    contents, packed = large[_CONTENT], large[_RAW_FIELDS.get(field, 0)]
    if contents and contents[-1]:
        return head, contents[-1]
    if packed and getattr(head, field):
        raise ValueError("packed values and single ones are mixed")
    return head, packed[0] if len(packed) == 1 else joined(packed)
