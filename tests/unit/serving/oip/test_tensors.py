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
from redis_consumer.serving._pb.oip_pb2 import InferTensorContents, ModelInferResponse
from redis_consumer.serving.oip.tensors import DATATYPES, array_dtype, infer_reply, infer_request
from support.oip_protos import official_class

MODEL = ModelId("Nuclei", 3)
NUMERIC = [kind for kind in DATATYPES if kind.name not in ("BYTES", "BF16")]
LETTERS = dict(zip((kind.name for kind in NUMERIC), "?BHIQbhiqefd", strict=True))

any_array = st.sampled_from(NUMERIC).flatmap(
    lambda kind: hnp.arrays(
        st.sampled_from([kind.array, kind.array.newbyteorder(">")]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    )
)


def slow_bytes(array: Any, name: str) -> bytes:
    """A plain codec: one number after the other."""
    return b"".join(struct.pack(f"<{LETTERS[name]}", value) for value in array.ravel().tolist())


def name_of(array: Any) -> str:
    return next(kind.name for kind in NUMERIC if kind.array == array.dtype.newbyteorder("="))


def sent(arrays: dict[str, Any], **names: str) -> Any:
    """The request as a server reads it."""
    return official_class("ModelInferRequest").FromString(infer_request(MODEL, arrays, names))


def reply(datatype: str, shape: tuple[int, ...], *raw: bytes, **contents: Any) -> bytes:
    tensor = ModelInferResponse.InferOutputTensor(name="prediction", datatype=datatype, shape=shape)
    if contents:
        tensor.contents.CopyFrom(InferTensorContents(**contents))
    return ModelInferResponse(model_name="Nuclei", outputs=[tensor], raw_output_contents=raw).SerializeToString()


@given(st.lists(any_array, max_size=3))
def test_a_request_is_what_a_plain_codec_writes(arrays: list[Any]) -> None:
    request = sent({f"input_{position}": array for position, array in enumerate(arrays)})
    assert (request.model_name, request.model_version) == ("Nuclei", "3")
    assert len(request.inputs) == len(request.raw_input_contents) == len(arrays)
    for array, tensor, raw in zip(arrays, request.inputs, request.raw_input_contents, strict=True):
        name = name_of(array)
        assert (tensor.datatype, tuple(tensor.shape)) == (name, array.shape)
        wire = np.dtype(LETTERS[name]).newbyteorder("<")
        np.testing.assert_array_equal(np.frombuffer(raw, wire), np.frombuffer(slow_bytes(array, name), wire))


@given(any_array)
def test_raw_contents_are_read(array: Any) -> None:
    again = infer_reply(reply(name_of(array), array.shape, slow_bytes(array, name_of(array))))["prediction"]
    assert again.flags.writeable
    np.testing.assert_array_equal(again, array.astype(array.dtype.newbyteorder("=")), strict=True)


@given(any_array.filter(lambda array: array.dtype.itemsize != 2 or array.dtype.kind != "f"))
def test_typed_contents_are_read(array: Any) -> None:
    field = next(kind.field for kind in NUMERIC if kind.name == name_of(array))
    again = infer_reply(reply(name_of(array), array.shape, **{field: array.ravel().tolist()}))["prediction"]
    assert again.flags.writeable
    np.testing.assert_array_equal(again, array.astype(array.dtype.newbyteorder("=")), strict=True)


@given(st.binary(max_size=60))
def test_any_bytes_are_arrays_or_an_error_of_ours(content: bytes) -> None:
    with suppress(ModelMismatch, ModelServerUnavailable):
        assert isinstance(infer_reply(content), dict)


@given(
    st.sampled_from([*(kind.name for kind in DATATYPES), "FP8", ""]),
    st.lists(st.sampled_from([-1, 0, 1, 2, 3, 2**40, 2**62]), max_size=70),
    st.lists(st.binary(max_size=20), max_size=2),
    st.lists(st.floats(width=32), max_size=3),
)
def test_whatever_a_server_sends_is_an_array_or_an_error_of_ours(
    datatype: str, shape: list[int], raw: list[bytes], values: list[float]
) -> None:
    content = reply(datatype, tuple(shape), *raw, fp32_contents=values, int_contents=[7], bytes_contents=[b"x"])
    with suppress(ModelMismatch, ModelServerUnavailable):
        assert infer_reply(content)["prediction"].shape == tuple(shape)


def test_several_outputs_are_sorted_by_name_with_their_own_contents() -> None:
    tensors = [
        ModelInferResponse.InferOutputTensor(name=name, datatype="FP32", shape=[1]) for name in ("right", "left")
    ]
    raw = [struct.pack("<f", value) for value in (1, 2)]
    outputs = infer_reply(ModelInferResponse(outputs=tensors, raw_output_contents=raw).SerializeToString())
    assert [(name, array.tolist()) for name, array in outputs.items()] == [("left", [2.0]), ("right", [1.0])]


def test_bfloat16_is_sent_and_read_as_float32() -> None:
    request = sent({"image": np.array([1.0, -2.5])}, image="BF16")
    assert request.inputs[0].datatype == "BF16"
    (raw,) = request.raw_input_contents
    assert raw == struct.pack("<2H", 0x3F80, 0xC020)
    again = infer_reply(reply("BF16", (2,), raw))["prediction"]
    np.testing.assert_array_equal(again, np.array([1, -2.5], np.float32), strict=True)


@pytest.mark.parametrize("texts", [["a", "ü"], [b"a", "ü".encode()]], ids=["str", "bytes"])
@pytest.mark.parametrize("dtype", [None, object], ids=["numpy", "object"])
def test_texts_travel_as_bytes(texts: list[Any], dtype: Any) -> None:
    (raw,) = sent({"image": np.array(texts, dtype=dtype)}).raw_input_contents
    assert raw == b"\1\0\0\0a\2\0\0\0\xc3\xbc"
    assert infer_reply(reply("BYTES", (2,), raw))["prediction"].tolist() == [b"a", "ü".encode()]
    typed = reply("BYTES", (2,), bytes_contents=[b"a", "ü".encode()])
    assert infer_reply(typed)["prediction"].tolist() == [b"a", "ü".encode()]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::-1, ::2],
        np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        np.broadcast_to(np.int64(3), (2, 2)),
    ],
    ids=["strided", "fortran", "broadcast"],
)
def test_any_memory_layout_is_written_in_row_major_order(array: Any) -> None:
    (raw,) = sent({"image": array}).raw_input_contents
    np.testing.assert_array_equal(np.frombuffer(raw, array.dtype).reshape(array.shape), array)


def test_a_version_of_0_lets_the_server_choose() -> None:
    request = official_class("ModelInferRequest").FromString(infer_request(ModelId("Nuclei"), {}, {}))
    assert request.model_version == ""


@pytest.mark.parametrize(
    ("array", "names", "problem"),
    [
        (np.zeros(1, "c8"), {}, "complex64 is no element type"),
        (np.zeros(1), {"image": "FP8"}, "FP8 is no element type"),
        (np.zeros(1), {"image": "INT32"}, "float64 can't be sent as INT32"),
    ],
)
def test_an_array_without_a_counterpart_is_a_mismatch(array: Any, names: dict[str, str], problem: str) -> None:
    with pytest.raises(ModelMismatch, match=f"input 'image': .*{problem}"):
        infer_request(MODEL, {"image": array}, names)


def test_a_request_that_no_server_could_read_is_refused() -> None:
    # Broadcast, so that nothing is really that large.
    image = np.broadcast_to(np.float32(1), (2**15, 2**14))
    with pytest.raises(ModelMismatch, match="Nuclei:3: a request of 21474836"):
        infer_request(MODEL, {"image": image}, {})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (reply("FP32", (2,), b"12345"), "multiple of element size"),
        (reply("FP32", (2,), b"\0" * 12), "it holds 3 values"),
        (reply("FP32", (2,), fp32_contents=[1]), "it holds 1 values"),
        (reply("FP32", (-1,), b"\0" * 4), "it holds 1 values"),
        (reply("FP16", (1,)), "raw contents only"),
        (reply("FP8", (1,), b"\0"), "type 'FP8' can't be read"),
        (reply("BYTES", (1,), b"\5\0\0\0ab"), "cut off"),
    ],
)
def test_an_output_that_contradicts_itself_is_a_mismatch(content: bytes, problem: str) -> None:
    with pytest.raises(ModelMismatch, match=f"output 'prediction'.*{problem}"):
        infer_reply(content)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x2a\x05ab", "can't be read: field 5 is cut off"),
        (b"\x2a\x02\xff\xff", "can't be read"),
        (reply("FP32", (1,), b"\0" * 4, b"\0" * 4), "1 outputs but 2 raw contents"),
    ],
)
def test_a_reply_that_is_none_is_the_fault_of_the_server(content: bytes, problem: str) -> None:
    with pytest.raises(ModelServerUnavailable, match=problem):
        infer_reply(content)


def test_a_type_that_arrays_lack_is_an_object() -> None:
    assert array_dtype("FP8") == np.dtype(object)
