from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from redis_consumer.serving._pb.oip_pb2 import ModelInferRequest
from redis_consumer.serving._pb.tfs_pb2 import TensorProto
from redis_consumer.serving.transport import protobuf
from redis_consumer.serving.transport.protobuf import MAX_FIELDS, field_head, field_values, fields, joined, size_of

NUMBERS = st.integers(1, 2**29 - 1)
ARRAYS = hnp.arrays(st.sampled_from(["<f4", "u1", "?", "<c16"]), hnp.array_shapes(min_dims=0, min_side=0, max_side=3))


@given(st.lists(st.tuples(NUMBERS, st.binary(max_size=300)), max_size=5))
def test_what_is_written_is_found_in_place(written: list[tuple[int, bytes]]) -> None:
    content = b"".join(field_head(number, len(value)) + value for number, value in written)
    assert [(number, content[value:end]) for number, _, value, end in fields(content)] == written


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_an_error(content: bytes) -> None:
    with suppress(ValueError):
        found = list(fields(content))
        assert b"".join(content[start:end] for _, start, _, end in found) == content
        assert all(value is None or start < value <= end for _, start, value, end in found)


def test_each_field_is_found_with_its_value() -> None:
    tensor = TensorProto(dtype=1, version_number=300, tensor_content=b"pixels", double_val=[1.5])  # type: ignore[arg-type]
    message = tensor.SerializeToString()
    found = list(fields(message))
    assert b"".join(message[start:end] for _, start, _, end in found) == message
    sizes = [(number, None if value is None else end - value) for number, _, value, end in found]
    assert sizes == [(1, None), (3, None), (4, 6), (6, 8)]
    assert [(number, len(value)) for number, value in field_values(memoryview(message))] == [(4, 6), (6, 8)]


@given(NUMBERS, st.binary(max_size=300))
def test_a_head_announces_the_value_that_follows(number: int, value: bytes) -> None:
    message = field_head(number, len(value)) + value
    [(found, content)] = field_values(memoryview(message))
    assert (found, bytes(content)) == (number, value)
    assert list(fields(message)) == [(number, 0, len(message) - len(value), len(message))]


def test_single_numbers_have_no_value() -> None:
    numbers = b"\x08\x96\x01" + b"\x11" + b"\0" * 8 + b"\x1d" + b"\0" * 4
    assert [value for _, _, value, _ in fields(numbers)] == [None, None, None]
    found = field_values(memoryview(numbers + field_head(9, 2) + b"ab"))
    assert [(number, bytes(value)) for number, value in found] == [(9, b"ab")]


def test_a_part_of_the_content_is_read_alone() -> None:
    content = b"??" + field_head(1, 1) + b"a" + b"??"
    assert list(fields(content, 2, 5)) == [(1, 2, 4, 5)]


def test_protobuf_reads_a_head() -> None:
    raw = b"\0" * 300
    assert ModelInferRequest.FromString(field_head(7, 300) + raw).raw_input_contents == [raw]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"\x0a", "cut off"),
        (b"\x0a\x05abc", "field 1 is cut off"),
        (b"\x2d\0\0", "field 5 is cut off"),
        (b"\x08\x80", "is cut off"),
        (b"\xff" * 11, "ends no number"),
        (b"\x0b", "starts no field"),
    ],
)
def test_what_is_no_message_is_refused(message: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        list(fields(message))


def test_values_are_sought_in_messages_of_few_fields_only() -> None:
    field = b"\x08\x01"
    assert len(list(fields(field * (MAX_FIELDS + 1)))) == MAX_FIELDS + 1
    assert list(field_values(memoryview(field * MAX_FIELDS))) == []
    with pytest.raises(ValueError, match="more than"):
        list(field_values(memoryview(field * (MAX_FIELDS + 1))))


@given(
    st.lists(
        st.one_of(st.binary(max_size=9), st.binary(max_size=9).map(lambda content: memoryview(content)), ARRAYS),
        max_size=6,
    )
)
def test_pieces_follow_each_other(pieces: list[Any]) -> None:
    expected = b"".join(piece.tobytes() if isinstance(piece, np.ndarray) else bytes(piece) for piece in pieces)
    assert joined(pieces) == expected
    assert size_of(pieces) == len(expected)


def test_a_strided_array_is_written_in_row_major_order() -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)[:, ::-1, ::2]
    assert joined([array]) == array.tobytes()


@pytest.mark.parametrize("has_madvise", [True, False])
def test_large_pieces_are_joined_as_well(monkeypatch: pytest.MonkeyPatch, has_madvise: bool) -> None:
    if not has_madvise:
        monkeypatch.setattr(protobuf, "_adviser", lambda: None)
    array = np.arange(2**21, dtype=np.float32)
    assert joined([b"head", array, b"tail"]) == b"head" + array.tobytes() + b"tail"
