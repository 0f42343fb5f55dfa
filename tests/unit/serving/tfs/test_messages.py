"""Requests and replies against the official messages, and against a slow plain codec."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from redis_consumer.errors import ModelMismatch, ModelServerUnavailable
from redis_consumer.job import ModelId
from redis_consumer.serving.tfs import messages
from redis_consumer.serving.tfs.messages import predict_outputs, predict_request
from redis_consumer.serving.tfs.tensors import WIRE_TYPES, wire_type
from redis_consumer.serving.transport.protobuf import field_head
from support.tf_protos import official_class

MODEL = ModelId("Nuclei", 3)
NUMERIC = [kind for kind in WIRE_TYPES if kind.wire is not None and kind.name != "DT_BFLOAT16"]
LETTERS = {"float_val": "f", "double_val": "d", "scomplex_val": "f", "dcomplex_val": "d"}

any_array = st.sampled_from(NUMERIC).flatmap(
    lambda kind: hnp.arrays(kind.array, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


def official_request(content: bytes) -> Any:
    return official_class("tensorflow.serving.PredictRequest").FromString(content)


def official_tensor(array: Any, **values: Any) -> Any:
    tensor = official_class("tensorflow.TensorProto")(dtype=wire_type(array.dtype).number, **values)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def official_reply(**tensors: Any) -> bytes:
    reply = official_class("tensorflow.serving.PredictResponse")()
    for name, tensor in tensors.items():
        reply.outputs[name].CopyFrom(tensor)
    reply.model_spec.name = "Nuclei"
    return bytes(reply.SerializeToString())


def plain_values(array: Any) -> list[Any]:
    """One Python object for each value of the type's own field."""
    if array.dtype == np.float16:
        return [struct.unpack("<H", struct.pack("<e", value))[0] for value in array.ravel().tolist()]
    if array.dtype.kind == "c":
        return [part for value in array.ravel().tolist() for part in (value.real, value.imag)]
    return list(array.ravel().tolist())


def raw_reply(tensor: bytes, name: bytes = b"x") -> bytes:
    """A reply with one output whose tensor is `tensor`, byte for byte."""
    entry = field(1, name) + field(2, tensor)
    return field(1, entry)


def field(number: int, content: bytes) -> bytes:
    return field_head(number, len(content)) + content


@given(st.dictionaries(st.text(max_size=5), any_array, max_size=3))
def test_a_request_says_to_an_official_server_what_it_should(arrays: dict[str, Any]) -> None:
    request = official_request(predict_request(MODEL, arrays, {}))
    assert (request.model_spec.name, request.model_spec.version.value) == ("Nuclei", 3)
    assert set(request.inputs) == set(arrays)
    for name, array in arrays.items():
        tensor = request.inputs[name]
        assert tensor.dtype == wire_type(array.dtype).number
        assert [dim.size for dim in tensor.tensor_shape.dim] == list(array.shape)
        assert tensor.tensor_content == array.astype(array.dtype.newbyteorder("<")).tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=">f4").reshape(2, 3, 4),
        np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::-1, ::2],
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.broadcast_to(np.int64(3), (2, 2)),
        np.float64(7),
        np.empty((0, 4), np.uint8),
    ],
    ids=["big-endian", "strided", "fortran", "broadcast", "scalar", "empty"],
)
def test_any_memory_layout_is_sent_in_row_major_order(array: Any) -> None:
    tensor = official_request(predict_request(MODEL, {"image": array}, {})).inputs["image"]
    assert tensor.tensor_content == np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def test_a_type_that_is_asked_for_is_sent() -> None:
    arrays = {"half": np.array([1.5]), "brain": np.array([1.5]), "text": np.array(["ü"])}
    request = official_request(predict_request(MODEL, arrays, {"half": "DT_HALF", "brain": 14}))
    assert request.inputs["half"].tensor_content == b"\x00\x3e"
    assert request.inputs["brain"].tensor_content == b"\xc0\x3f"
    assert request.inputs["text"].string_val == ["ü".encode()]


def test_the_latest_version_is_no_version() -> None:
    assert not official_request(predict_request(ModelId("Nuclei"), {}, {})).model_spec.HasField("version")


def test_an_array_that_cannot_be_sent_is_a_mismatch() -> None:
    with pytest.raises(ModelMismatch, match="without loss"):
        predict_request(MODEL, {"image": np.array([1.5])}, {"image": "DT_UINT8"})


def test_a_request_beyond_what_protobuf_reads_is_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_MESSAGE_BYTES", 100)
    with pytest.raises(ModelMismatch, match="too long to send"):
        predict_request(MODEL, {"image": np.zeros(100)}, {})


@given(any_array)
def test_raw_content_is_read(array: Any) -> None:
    reply = official_reply(x=official_tensor(array, tensor_content=array.tobytes()))
    outputs = predict_outputs(reply)
    assert outputs["x"].flags.writeable
    assert outputs["x"].flags.aligned
    np.testing.assert_array_equal(outputs["x"], array, strict=True)


@given(any_array, st.data())
def test_values_in_their_own_field_are_read_and_the_last_one_repeats(array: Any, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, array.size))
    expected = array.ravel().copy()
    expected[count:] = expected[count - 1] if count else 0
    values = {wire_type(array.dtype).field: plain_values(array.ravel()[:count])}
    outputs = predict_outputs(official_reply(x=official_tensor(array, **values)))
    assert outputs["x"].flags.writeable
    np.testing.assert_array_equal(outputs["x"], expected.reshape(array.shape), strict=True)


@given(
    st.sampled_from(["<f4", "<f8", "<c8", "<c16"]).flatmap(lambda dtype: hnp.arrays(dtype, st.integers(0, 6))),
    st.lists(st.booleans(), min_size=12, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_packed_split_and_single_values_are_the_same(array: Any, is_packed: list[bool], is_cut: list[bool]) -> None:
    kind = wire_type(array.dtype)
    number = official_class("tensorflow.TensorProto").DESCRIPTOR.fields_by_name[kind.field].number
    letter = LETTERS[kind.field]
    message = official_tensor(array).SerializeToString()
    chunk = b""
    for value, packed, cut in zip(plain_values(array), is_packed, is_cut, strict=False):
        content = struct.pack(f"<{letter}", value)
        if packed:
            chunk += content
        if chunk and (cut or not packed):
            message, chunk = message + field(number, chunk), b""
        if not packed:
            message += bytes([number << 3 | (5 if letter == "f" else 1)]) + content
    message += field(number, chunk) if chunk else b""
    np.testing.assert_array_equal(predict_outputs(raw_reply(message))["x"], array, strict=True)


def test_many_single_values_are_read() -> None:
    array = np.arange(5000, dtype=np.float32)
    singles = b"".join(b"\x2d" + struct.pack("<f", value) for value in array)
    message = raw_reply(official_tensor(array).SerializeToString() + singles)
    np.testing.assert_array_equal(predict_outputs(message)["x"], array, strict=True)


def test_outputs_are_sorted_by_name() -> None:
    tensor = official_tensor(np.zeros(1), double_val=[2.0])
    assert list(predict_outputs(official_reply(b=tensor, a=tensor, c=tensor))) == ["a", "b", "c"]


def test_the_later_of_two_contents_and_of_two_outputs_counts() -> None:
    first, second = (official_tensor(np.zeros(1), tensor_content=struct.pack("<d", value)) for value in (1, 2))
    both = first.SerializeToString() + second.SerializeToString()[-10:]
    assert predict_outputs(raw_reply(both))["x"].tolist() == [2]
    twice = raw_reply(second.SerializeToString()) + raw_reply(first.SerializeToString())
    assert predict_outputs(twice)["x"].tolist() == [1]


def test_an_output_that_comes_in_parts_is_put_together() -> None:
    tensor = official_tensor(np.zeros(2))
    entry = field(1, b"x") + field(2, tensor.SerializeToString()) + field(2, b"\x31" + struct.pack("<d", 4))
    assert predict_outputs(field(1, entry))["x"].tolist() == [4, 4]


def test_an_output_that_contradicts_itself_is_a_mismatch_by_name() -> None:
    for tensor in (
        official_tensor(np.zeros(2), tensor_content=b"12345"),
        official_tensor(np.zeros(1), double_val=[1, 2]),
        official_class("tensorflow.TensorProto")(dtype=20),
        official_class("tensorflow.TensorProto")(dtype=7, tensor_content=b"x"),
    ):
        with pytest.raises(ModelMismatch, match="'scores'"):
            predict_outputs(official_reply(scores=tensor))


@pytest.mark.parametrize("reply", [b"\xff", b"\x0a\x05abc", raw_reply(b"\xff"), raw_reply(b"", name=b"\xff")])
def test_what_is_no_reply_blames_the_server(reply: bytes) -> None:
    with pytest.raises(ModelServerUnavailable, match="can't be read"):
        predict_outputs(reply)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_any_bytes_are_arrays_or_our_own_error(start: bytes, tensor: bytes) -> None:
    for reply in (start, raw_reply(tensor), start + raw_reply(tensor)):
        with suppress(ModelMismatch, ModelServerUnavailable):
            outputs = predict_outputs(reply)
            assert all(isinstance(array, np.ndarray) for array in outputs.values())
