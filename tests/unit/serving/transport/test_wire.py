from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_consumer.serving._pb.tfs_pb2 import TensorProto
from redis_consumer.serving.transport.fields import field_head
from redis_consumer.serving.transport.wire import MAX_FIELDS, walk


def test_each_field_is_found_with_its_content() -> None:
    tensor = TensorProto(dtype=1, version_number=300, tensor_content=b"pixels", double_val=[1.5])  # type: ignore[arg-type]
    message = tensor.SerializeToString()
    found = list(walk(memoryview(message)))
    assert b"".join(whole for _, _, whole in found) == message
    assert [(number, None if content is None else len(content)) for number, content, _ in found] == [
        (1, None),
        (3, None),
        (4, 6),
        (6, 8),
    ]


@given(st.integers(1, 2**29 - 1), st.binary(max_size=300))
def test_a_head_announces_the_content_that_follows(number: int, content: bytes) -> None:
    message = field_head(number, len(content)) + content
    [(found, value, whole)] = walk(memoryview(message))
    assert value is not None
    assert (found, bytes(value), bytes(whole)) == (number, content, message)


def test_single_numbers_have_no_content() -> None:
    message = b"\x2d" + bytes(4) + b"\x31" + bytes(8)
    assert [content for _, content, _ in walk(memoryview(message))] == [None, None]


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (b"\x0a", "cut off"),
        (b"\x0a\x05abc", "field 1 is cut off"),
        (b"\x2d\0\0", "field 5 is cut off"),
        (b"\x08\x80", "is cut off"),
        (b"\xff" * 11, "ends no number"),
        (b"\x0b", "wire type 3"),
        (b"\x08\x01" * (MAX_FIELDS + 1), "more than"),
    ],
)
def test_what_is_no_message_is_refused(message: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        list(walk(memoryview(message)))


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_an_error(message: bytes) -> None:
    with suppress(ValueError):
        assert b"".join(whole for _, _, whole in walk(memoryview(message))) == message
