"""Converts an array to a tensor in TensorFlow's wire format, and back (contract, section 4.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from redis_consumer.errors import ModelMismatch
from redis_consumer.serving._pb.tfs_pb2 import TensorProto, TensorShapeProto
from redis_consumer.serving.base import Array
from redis_consumer.serving.bfloat16 import from_bfloat16, to_bfloat16

# A protobuf message can't be larger, so only a reply with fewer values than elements could ask for more memory.
MAX_TENSOR_BYTES = 2**31


@dataclass(frozen=True)
class WireType:
    """How one element type is written.

    Attributes:
        name: TensorFlow's name, e.g. ``DT_FLOAT``.
        number: TensorFlow's number.
        field: the repeated field of `TensorProto` that may hold the values.
        wire: little-endian dtype of the raw bytes; None for texts.
        array: dtype of the array that a tensor of this type becomes.
    """

    name: str
    number: int
    field: str
    wire: np.dtype[Any] | None
    array: np.dtype[Any]


def _wire_type(name: str, number: int, field: str, wire: str | None, array: str | None = None) -> WireType:
    raw = None if wire is None else np.dtype(wire)
    return WireType(name, number, field, raw, np.dtype(array or wire).newbyteorder("="))


# numpy has no bfloat16: its bits travel as uint16 and become float32.
_BFLOAT16 = _wire_type("DT_BFLOAT16", 14, "half_val", "<u2", "f4")
_STRING = _wire_type("DT_STRING", 7, "string_val", None, "O")
WIRE_TYPES = (
    _wire_type("DT_FLOAT", 1, "float_val", "<f4"),
    _wire_type("DT_DOUBLE", 2, "double_val", "<f8"),
    _wire_type("DT_INT32", 3, "int_val", "<i4"),
    _wire_type("DT_UINT8", 4, "int_val", "u1"),
    _wire_type("DT_INT16", 5, "int_val", "<i2"),
    _wire_type("DT_INT8", 6, "int_val", "i1"),
    _STRING,
    _wire_type("DT_COMPLEX64", 8, "scomplex_val", "<c8"),
    _wire_type("DT_INT64", 9, "int64_val", "<i8"),
    _wire_type("DT_BOOL", 10, "bool_val", "?"),
    _BFLOAT16,
    _wire_type("DT_UINT16", 17, "int_val", "<u2"),
    _wire_type("DT_COMPLEX128", 18, "dcomplex_val", "<c16"),
    _wire_type("DT_HALF", 19, "half_val", "<f2"),
    _wire_type("DT_UINT32", 22, "uint32_val", "<u4"),
    _wire_type("DT_UINT64", 23, "uint64_val", "<u8"),
)
_BY_NUMBER = {kind.number: kind for kind in WIRE_TYPES}
_BY_NAME = {kind.name: kind for kind in WIRE_TYPES}
_BY_DTYPE = {kind.array: kind for kind in WIRE_TYPES if kind is not _BFLOAT16}


def wire_type(dtype: object) -> WireType:
    """Look up an element type.

    >>> wire_type("DT_HALF").number, wire_type(19).name, wire_type(np.float16).name
    (19, 'DT_HALF', 'DT_HALF')

    Args:
        dtype: TensorFlow's name or number, or anything that numpy takes as a dtype.

    Raises:
        ModelMismatch: TensorFlow Serving has no such type, or none that can be an array.
    """
    kind = _BY_NUMBER.get(dtype) if isinstance(dtype, int) else _BY_NAME.get(str(dtype))
    if kind is None and not isinstance(dtype, int):
        kind = _by_numpy_dtype(dtype)
    if kind is None:
        raise ModelMismatch(f"dtype {dtype!r}: not an element type of tensors; use one of {', '.join(_BY_NAME)}")
    return kind


def to_tensor(array: npt.ArrayLike, dtype: object = None) -> TensorProto:
    """Write an array as raw little-endian bytes in row-major order, texts in their own field.

    Args:
        array: any shape, also 0-d, empty, strided or big-endian; texts as str or bytes.
        dtype: type on the wire, see `wire_type`; by default the array's own.

    Raises:
        ModelMismatch: the type has no counterpart, or the array can't be cast to it.
    """
    values = np.asarray(array)
    kind = wire_type(values.dtype if dtype is None else dtype)
    tensor = tensor_head(values.shape, kind)
    if kind.wire is None:
        tensor.string_val.extend(_as_bytes(value) for value in values.ravel().tolist())
    else:
        tensor.tensor_content = raw_values(values, kind).tobytes()
    return tensor


def tensor_head(shape: tuple[int, ...], kind: WireType) -> TensorProto:
    """Say type and shape of a tensor, without its values."""
    dims = [TensorShapeProto.Dim(size=size) for size in shape]
    return TensorProto(dtype=kind.number, tensor_shape=TensorShapeProto(dim=dims))  # type: ignore[arg-type]


def raw_values(values: Array, kind: WireType) -> Array:
    """Bring values to the dtype whose bytes are sent, in any memory layout; the array itself where it has it already.

    Raises:
        ModelMismatch: something would be lost.
    """
    if not np.can_cast(values.dtype, kind.array, "same_kind") and not _fits(values, kind.array):
        raise ModelMismatch(
            f"an array of dtype {values.dtype} can't be sent as {kind.name} without loss; convert it first"
        )
    return (to_bfloat16(values) if kind is _BFLOAT16 else values).astype(kind.wire, copy=False)


def from_tensor(tensor: TensorProto, *, name: str = "", content: bytes | memoryview | None = None) -> Array:
    """Read a tensor, whichever field holds its values; fewer values than elements repeat the last one.

    Args:
        tensor: as it came from the wire.
        name: the tensor's name, for messages.
        content: its raw bytes, where they were left out of the tensor.

    Returns:
        A writable array of the tensor's shape; bfloat16 becomes float32, texts become bytes objects.

    Raises:
        ModelMismatch: type, shape and number of values don't fit each other.
    """
    kind = _BY_NUMBER.get(tensor.dtype)
    if kind is None:
        raise ModelMismatch(f"tensor {name!r}: type number {int(tensor.dtype)} can't be read as an array")
    shape = _shape(tensor, kind, name)
    try:
        raw = content or tensor.tensor_content
        values = _content(raw, kind) if raw else _repeated(tensor, kind)
        filled = _fill(values, shape)
    except ValueError as error:
        raise ModelMismatch(f"tensor {name!r} of type {kind.name} and shape {list(shape)}: {error}") from error
    return from_bfloat16(filled) if kind is _BFLOAT16 else filled.astype(kind.array, copy=False)


def _by_numpy_dtype(dtype: object) -> WireType | None:
    try:
        found = np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError:
        return None
    return _STRING if found.kind in "OSU" else _BY_DTYPE.get(found.newbyteorder("="))


def _shape(tensor: TensorProto, kind: WireType, name: str) -> tuple[int, ...]:
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ModelMismatch(
            f"tensor {name!r}: its shape {list(shape)} isn't fully known; a value must say all its sizes"
        )
    if math.prod(shape) * kind.array.itemsize > MAX_TENSOR_BYTES:
        raise ModelMismatch(
            f"tensor {name!r}: shape {list(shape)} is larger than {MAX_TENSOR_BYTES} bytes; use smaller batches"
        )
    return shape


def _as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _fits(values: Array, dtype: np.dtype[Any]) -> bool:
    """Whether all of these integers are integers of `dtype` too."""
    if values.dtype.kind not in "iu" or dtype.kind not in "iu":
        return False
    bounds = np.iinfo(dtype)
    return bool(values.size == 0 or (values.min() >= bounds.min and values.max() <= bounds.max))


def _content(raw: bytes | memoryview, kind: WireType) -> Array:
    if kind.wire is None:
        raise ValueError("texts in tensor_content can't be read; they belong in string_val")
    return np.frombuffer(raw, dtype=kind.wire)


def _repeated(tensor: TensorProto, kind: WireType) -> Array:
    field = getattr(tensor, kind.field)
    if kind.wire is None:
        values = np.empty(len(field), dtype=object)
        values[:] = list(field)
        return values
    if kind.wire.kind == "c":
        return np.array(field, dtype=f"f{kind.wire.itemsize // 2}").view(kind.array)
    if kind.field == "half_val":
        # Each int32 holds the 16 bits of one element.
        return np.array(field, dtype=np.int32).astype("<u2").view(kind.wire)
    if kind.field == "int_val":
        # Wrapped like the cast in C, which is what servers do with a value outside a small type.
        return np.array(field, dtype=np.int32).astype(kind.array)
    return np.array(field, dtype=kind.array)


def _fill(values: Array, shape: tuple[int, ...]) -> Array:
    """Bring values to `shape` in memory of their own; missing ones repeat the last, none at all mean zeros."""
    elements = math.prod(shape)
    if values.size > elements:
        raise ValueError(f"it holds {values.size} values for {elements} elements")
    if values.size == elements:
        return values.reshape(shape) if values.flags.writeable else values.reshape(shape).copy()
    last = values[-1] if values.size else (b"" if values.dtype == object else values.dtype.type(0))
    filled = np.full(elements, last, dtype=values.dtype)
    filled[: values.size] = values
    return filled.reshape(shape)
