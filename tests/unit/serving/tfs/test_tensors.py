from __future__ import annotations

import math
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from redis_consumer.errors import ModelMismatch
from redis_consumer.serving._pb.tfs_pb2 import TensorProto, TensorShapeProto
from redis_consumer.serving.tfs.tensors import WIRE_TYPES, from_tensor, to_tensor, wire_type

NUMERIC = [kind for kind in WIRE_TYPES if kind.wire is not None]
EXACT = [kind for kind in NUMERIC if kind.name != "DT_BFLOAT16"]
# One letter of `struct` for each type; a complex number is two of them.
LETTERS = {
    "DT_FLOAT": "f",
    "DT_DOUBLE": "d",
    "DT_INT32": "i",
    "DT_UINT8": "B",
    "DT_INT16": "h",
    "DT_INT8": "b",
    "DT_COMPLEX64": "f",
    "DT_INT64": "q",
    "DT_BOOL": "?",
    "DT_UINT16": "H",
    "DT_COMPLEX128": "d",
    "DT_HALF": "e",
    "DT_UINT32": "I",
    "DT_UINT64": "Q",
}


def arrays_of(name: str) -> st.SearchStrategy[Any]:
    kind = wire_type(name)
    return hnp.arrays(kind.array, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))


any_array = st.sampled_from(EXACT).flatmap(lambda kind: arrays_of(kind.name))


def slow_bytes(array: Any, letter: str) -> bytes:
    """Element by element, as the format is described."""
    out = b""
    for value in array.ravel().tolist():
        parts = (value.real, value.imag) if isinstance(value, complex) else (value,)
        out += struct.pack(f"<{len(parts)}{letter}", *parts)
    return out


def slow_fill(tensor: TensorProto, array: Any, count: int) -> None:
    """Put the first `count` elements into the field of the type, one by one."""
    kind = wire_type(tensor.dtype)
    field = getattr(tensor, kind.field)
    for value in array.ravel().tolist()[:count]:
        if kind.name == "DT_HALF":
            field.append(struct.unpack("<H", struct.pack("<e", value))[0])
        elif isinstance(value, complex):
            field.extend([value.real, value.imag])
        else:
            field.append(value)


def shaped(kind: int, shape: tuple[int, ...], **values: Any) -> TensorProto:
    dims = [TensorShapeProto.Dim(size=size) for size in shape]
    return TensorProto(dtype=kind, tensor_shape=TensorShapeProto(dim=dims), **values)  # type: ignore[arg-type]


@given(any_array)
def test_written_bytes_are_those_of_a_plain_codec(array: Any) -> None:
    tensor = to_tensor(array)
    name = wire_type(array.dtype).name
    assert tensor.dtype == wire_type(name).number
    assert [dim.size for dim in tensor.tensor_shape.dim] == list(array.shape)
    expected = slow_bytes(array, LETTERS[name])
    np.testing.assert_array_equal(
        np.frombuffer(tensor.tensor_content, wire_type(name).wire), np.frombuffer(expected, wire_type(name).wire)
    )


@given(any_array)
def test_reading_gives_back_what_was_written(array: Any) -> None:
    again = from_tensor(TensorProto.FromString(to_tensor(array).SerializeToString()))
    assert again.dtype == array.dtype
    assert again.flags.writeable
    np.testing.assert_array_equal(again, array, strict=True)


@given(any_array, st.data())
def test_values_in_their_own_field_are_read_and_the_last_one_repeats(array: Any, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, array.size))
    tensor = shaped(wire_type(array.dtype).number, array.shape)
    slow_fill(tensor, array, count)
    expected = array.ravel().copy()
    expected[count:] = expected[count - 1] if count else 0
    np.testing.assert_array_equal(from_tensor(tensor), expected.reshape(array.shape), strict=True)


@given(st.sampled_from(WIRE_TYPES), st.lists(st.sampled_from([-1, 0, 1, 2, 3, 2**40, 2**62]), max_size=70), st.data())
def test_whatever_a_server_sends_is_an_array_or_a_mismatch(kind: Any, dims: list[int], data: st.DataObject) -> None:
    tensor = shaped(data.draw(st.sampled_from([kind.number, 0, 20, 99])), tuple(dims))
    tensor.tensor_content = data.draw(st.binary(max_size=20))
    tensor.float_val.extend(data.draw(st.lists(st.floats(width=32), max_size=3)))
    tensor.scomplex_val.extend(data.draw(st.lists(st.floats(width=32), max_size=3)))
    tensor.half_val.extend(data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3)))
    tensor.int_val.extend(data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3)))
    with suppress(ModelMismatch):
        assert from_tensor(tensor).shape == tuple(dims)


@given(hnp.arrays(np.float32, 5))
def test_bfloat16_is_the_nearest_float_of_16_bits(array: Any) -> None:
    tensor = to_tensor(array, "DT_BFLOAT16")
    assert len(tensor.tensor_content) == 2 * array.size
    again = from_tensor(tensor)
    assert again.dtype == np.float32
    for value, near in zip(array.tolist(), again.tolist(), strict=True):
        if math.isnan(value):
            assert math.isnan(near)
        elif math.isfinite(near):
            assert abs(value - near) <= max(abs(value) / 256, 2.0**-134)
        else:
            assert abs(value) > 3.38e38


def test_bfloat16_patterns_in_half_val_become_float32() -> None:
    np.testing.assert_array_equal(
        from_tensor(shaped(14, (3,), half_val=[0x3F80, 0xC020])), np.array([1, -2.5, -2.5], np.float32)
    )


def test_half_val_holds_bit_patterns() -> None:
    np.testing.assert_array_equal(
        from_tensor(shaped(19, (2,), half_val=[0x3C00, 0xC100])), np.array([1, -2.5], np.float16)
    )


@pytest.mark.parametrize("kind", NUMERIC, ids=lambda kind: kind.name)
def test_no_values_at_all_mean_zeros(kind: Any) -> None:
    array = from_tensor(shaped(kind.number, (2, 1)))
    np.testing.assert_array_equal(array, np.zeros((2, 1), kind.array), strict=True)


def test_unpacked_and_split_values_are_read() -> None:
    packed = b"\x2a\x08" + struct.pack("<2f", 1, 2)
    unpacked = b"\x2d" + struct.pack("<f", 3)
    tensor = TensorProto.FromString(shaped(1, (4,)).SerializeToString() + packed + unpacked + unpacked)
    np.testing.assert_array_equal(from_tensor(tensor), np.array([1, 2, 3, 3], np.float32))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=">f4").reshape(2, 3, 4),
        np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::-1, ::2],
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.float64(7),
        np.empty((0, 4), np.uint8),
        np.broadcast_to(np.int64(3), (2, 2)),
    ],
    ids=["big-endian", "strided", "fortran", "scalar", "empty", "broadcast"],
)
def test_any_memory_layout_is_written_in_row_major_order(array: Any) -> None:
    again = from_tensor(to_tensor(array))
    assert again.shape == array.shape
    assert again.tolist() == array.tolist()


@pytest.mark.parametrize("texts", [["a", "ü"], [b"a", "ü".encode()]], ids=["str", "bytes"])
@pytest.mark.parametrize("dtype", [None, object], ids=["numpy", "object"])
def test_texts_travel_as_bytes(texts: list[Any], dtype: Any) -> None:
    again = from_tensor(to_tensor(np.array(texts, dtype=dtype)))
    assert again.tolist() == [b"a", "ü".encode()]


def test_fewer_texts_than_elements_repeat_the_last() -> None:
    assert from_tensor(shaped(7, (3,), string_val=[b"a", b"b"])).tolist() == [b"a", b"b", b"b"]


@pytest.mark.parametrize("dtype", ["DT_UINT16", 17, np.uint16, ">u2"], ids=str)
def test_a_type_is_known_by_each_of_its_names(dtype: object) -> None:
    assert wire_type(dtype).name == "DT_UINT16"


@pytest.mark.parametrize("dtype", ["DT_RESOURCE", 20, 0, "no type", np.dtype("datetime64[s]"), None, 3.5], ids=str)
def test_an_unknown_type_is_refused(dtype: object) -> None:
    with pytest.raises(ModelMismatch, match="use one of DT_FLOAT"):
        wire_type("nothing" if dtype is None else dtype)


def test_an_array_is_cast_to_the_type_asked_for() -> None:
    tensor = to_tensor(np.array([1, 2]), "DT_FLOAT")
    np.testing.assert_array_equal(from_tensor(tensor), np.array([1, 2], np.float32), strict=True)


@pytest.mark.parametrize(
    ("value", "dtype"), [(1.5, "DT_INT32"), (300, "DT_UINT8"), (-1, "DT_UINT64"), (1j, "DT_FLOAT")]
)
def test_a_cast_that_loses_something_is_refused(value: object, dtype: str) -> None:
    with pytest.raises(ModelMismatch, match=f"sent as {dtype}"):
        to_tensor(np.array([value]), dtype)


def test_integers_that_fit_a_smaller_type_are_cast() -> None:
    assert from_tensor(to_tensor([0, 255], "DT_UINT8")).tolist() == [0, 255]


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        (shaped(1, (2,), tensor_content=b"12345"), "multiple of element size"),
        (shaped(1, (2,), tensor_content=b"\0" * 12), "3 values for 2"),
        (shaped(1, (1,), float_val=[1, 2]), "2 values for 1"),
        (shaped(1, (-1,)), "isn't fully known"),
        (TensorProto(dtype=1, tensor_shape=TensorShapeProto(unknown_rank=True)), "isn't fully known"),  # type: ignore[arg-type]
        (shaped(20, ()), "type number 20"),
        (shaped(1, (2**40,)), "bytes; use smaller batches"),
        (shaped(7, (1,), tensor_content=b"x"), "string_val"),
    ],
)
def test_a_tensor_that_contradicts_itself_is_refused_by_name(tensor: TensorProto, problem: str) -> None:
    with pytest.raises(ModelMismatch, match=problem) as caught:
        from_tensor(tensor, name="prediction")
    assert "'prediction'" in str(caught.value)
