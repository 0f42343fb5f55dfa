"""Converts arrays to an Open Inference Protocol request, and its reply to arrays."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from redis_consumer.errors import ModelMismatch, ModelServerUnavailable
from redis_consumer.job import ModelId
from redis_consumer.serving._pb.oip_pb2 import ModelInferRequest, ModelInferResponse
from redis_consumer.serving.base import Array
from redis_consumer.serving.bfloat16 import from_bfloat16, to_bfloat16
from redis_consumer.serving.transport.protobuf import (
    MAX_MESSAGE_BYTES,
    Piece,
    field_head,
    field_values,
    joined,
    size_of,
)

_RAW_INPUT = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_OUTPUT = ModelInferResponse.OUTPUTS_FIELD_NUMBER
_RAW_OUTPUT = ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER

# In front of each text of a raw BYTES tensor stands its length.
_LENGTH_BYTES = 4

OutputTensor = ModelInferResponse.InferOutputTensor


@dataclass(frozen=True)
class Datatype:
    """How one element type is written.

    Attributes:
        name: the protocol's name, e.g. ``FP32``.
        wire: little-endian dtype of the raw bytes; object for texts, each with its length in front.
        array: dtype of the array that a tensor of this type becomes.
        field: the field of `InferTensorContents` that may hold the values instead; empty if none can.
        read: dtype of that field's values.
    """

    name: str
    wire: np.dtype[Any]
    array: np.dtype[Any]
    field: str
    read: np.dtype[Any]


def _datatype(name: str, wire: str, field: str, read: str, array: str | None = None) -> Datatype:
    return Datatype(name, np.dtype(wire), np.dtype(array or wire).newbyteorder("="), field, np.dtype(read))


# numpy has no bfloat16: its bits travel as uint16 and become float32.
_BF16 = _datatype("BF16", "<u2", "", "u2", array="f4")
_BYTES = _datatype("BYTES", "O", "bytes_contents", "O")
DATATYPES = (
    _datatype("BOOL", "?", "bool_contents", "?"),
    _datatype("UINT8", "u1", "uint_contents", "u4"),
    _datatype("UINT16", "<u2", "uint_contents", "u4"),
    _datatype("UINT32", "<u4", "uint_contents", "u4"),
    _datatype("UINT64", "<u8", "uint64_contents", "u8"),
    _datatype("INT8", "i1", "int_contents", "i4"),
    _datatype("INT16", "<i2", "int_contents", "i4"),
    _datatype("INT32", "<i4", "int_contents", "i4"),
    _datatype("INT64", "<i8", "int64_contents", "i8"),
    _datatype("FP16", "<f2", "", "f2"),
    _datatype("FP32", "<f4", "fp32_contents", "f4"),
    _datatype("FP64", "<f8", "fp64_contents", "f8"),
    _BF16,
    _BYTES,
)
_BY_NAME = {kind.name: kind for kind in DATATYPES}
_BY_DTYPE = {kind.array: kind for kind in DATATYPES if kind is not _BF16}


def array_dtype(name: str) -> np.dtype[Any]:
    """Dtype of the array that a tensor becomes; object for a type that arrays lack, which only its use refuses.

    >>> array_dtype("FP16"), array_dtype("BF16")
    (dtype('float16'), dtype('float32'))
    """
    kind = _BY_NAME.get(name)
    return np.dtype(object) if kind is None else kind.array


def infer_request(model: ModelId, arrays: Mapping[str, Array], names: Mapping[str, str]) -> bytes:
    """Write a whole request around the arrays' own memory, so that each is copied once.

    Args:
        model: which model; version 0 lets the server choose.
        arrays: an array for each input by name: any shape, also 0-d, empty, strided or big-endian.
        names: the protocol's name of an input's type, where it isn't the array's own, e.g. ``BF16``.

    Returns:
        A serialized ``ModelInferRequest`` with raw contents.

    Raises:
        ModelMismatch: a dtype has no counterpart or can't be cast, or the request would be over 2 GiB.
    """
    request = ModelInferRequest(model_name=model.name, model_version=version_text(model))
    contents: list[Piece] = []
    for name, array in arrays.items():
        values = np.asarray(array)
        kind = _kind_of(values, names.get(name), name)
        request.inputs.add(name=name, datatype=kind.name, shape=values.shape)
        content = _raw(values, kind)
        contents += [field_head(_RAW_INPUT, size_of([content])), content]
    pieces = [request.SerializeToString(), *contents]
    size = size_of(pieces)
    if size > MAX_MESSAGE_BYTES:
        raise ModelMismatch(f"model {model}: a request of {size} bytes is too long to send; use smaller batches")
    return joined(pieces)


def infer_reply(content: bytes) -> dict[str, Array]:
    """Read a serialized ``ModelInferResponse``, in whichever form the values come; raw ones are copied once.

    Returns:
        A writable array for each output, sorted by name; bfloat16 becomes float32, texts become bytes objects.

    Raises:
        ModelMismatch: type, shape and number of values of an output don't fit each other.
        ModelServerUnavailable: the bytes aren't such a reply.
    """
    outputs, raw = _split(content)
    if raw and len(raw) != len(outputs):
        raise ModelServerUnavailable(
            f"the model server's reply: it has {len(outputs)} outputs but {len(raw)} raw contents; check the server"
        )
    arrays = {output.name: _output(output, raw[position] if raw else None) for position, output in enumerate(outputs)}
    return dict(sorted(arrays.items()))


def version_text(model: ModelId) -> str:
    """A version as the protocol writes it; empty lets the server choose."""
    return model.label or (str(model.version) if model.version > 0 else "")


def _kind_of(values: Array, name: str | None, label: str) -> Datatype:
    if name is not None:
        kind = _BY_NAME.get(name)
    elif values.dtype.kind in "OSU":
        kind = _BYTES
    else:
        kind = _BY_DTYPE.get(values.dtype.newbyteorder("="))
    if kind is None:
        raise ModelMismatch(
            f"input {label!r}: {name or values.dtype} is no element type of the Open Inference Protocol; "
            f"use one of {', '.join(_BY_NAME)}"
        )
    if kind is not _BYTES and not np.can_cast(values.dtype, kind.array, "same_kind"):
        raise ModelMismatch(f"input {label!r}: dtype {values.dtype} can't be sent as {kind.name}; convert it first")
    return kind


def _raw(values: Array, kind: Datatype) -> Piece:
    """What becomes an array's bytes: its own memory where the elements are written like that."""
    if kind is _BYTES:
        texts = [text if isinstance(text, bytes) else str(text).encode() for text in values.ravel().tolist()]
        return b"".join(len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in texts)
    if kind is _BF16:
        values = to_bfloat16(values)
    return values.astype(kind.wire, copy=False)


def _split(content: bytes) -> tuple[list[OutputTensor], list[memoryview]]:
    from google.protobuf.message import DecodeError

    outputs: list[OutputTensor] = []
    raw: list[memoryview] = []
    try:
        for number, value in field_values(memoryview(content)):
            if number == _OUTPUT:
                outputs.append(OutputTensor.FromString(bytes(value)))
            elif number == _RAW_OUTPUT:
                raw.append(value)
    except (DecodeError, ValueError) as error:
        raise ModelServerUnavailable(
            f"the model server's reply can't be read: {error}; check that it speaks the Open Inference Protocol"
        ) from error
    return outputs, raw


def _output(tensor: OutputTensor, raw: memoryview | None) -> Array:
    kind = _BY_NAME.get(tensor.datatype)
    shape = tuple(tensor.shape)
    if kind is None:
        raise ModelMismatch(f"output {tensor.name!r}: type {tensor.datatype!r} can't be read as an array")
    try:
        values = _contents(tensor, kind) if raw is None else _from_raw(raw, kind)
        if any(size < 0 for size in shape) or values.size != math.prod(shape):
            raise ValueError(f"it holds {values.size} values")
        return values.reshape(shape)
    except ValueError as error:
        raise ModelMismatch(
            f"output {tensor.name!r} of type {kind.name} and shape {list(shape)}: {error}; check the model server"
        ) from error


def _from_raw(raw: memoryview, kind: Datatype) -> Array:
    if kind is _BYTES:
        return _texts(raw)
    values = np.frombuffer(raw, dtype=kind.wire)
    return from_bfloat16(values) if kind is _BF16 else values.astype(kind.array)


def _contents(tensor: OutputTensor, kind: Datatype) -> Array:
    if not kind.field:
        raise ValueError("values of this type come as raw contents only, and there are none")
    field = getattr(tensor.contents, kind.field)
    if kind is _BYTES:
        return _objects(list(field))
    # Wrapped like the cast in C, which is what servers do with a value outside a small type.
    return np.array(field, dtype=kind.read).astype(kind.array, copy=False)


def _texts(raw: memoryview) -> Array:
    texts: list[bytes] = []
    position = 0
    while position < len(raw):
        start = position + _LENGTH_BYTES
        position = start + int.from_bytes(raw[position:start], "little")
        texts.append(bytes(raw[start:position]))
    if position != len(raw):
        raise ValueError("its last text is cut off")
    return _objects(texts)


def _objects(texts: list[bytes]) -> Array:
    values = np.empty(len(texts), dtype=object)
    values[:] = texts
    return values
