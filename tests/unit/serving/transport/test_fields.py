from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_consumer.serving._pb.oip_pb2 import ModelInferRequest
from redis_consumer.serving.transport.fields import field_head, fields

NUMBERS = st.integers(1, 2**29 - 1)


@given(st.lists(st.tuples(NUMBERS, st.binary(max_size=300)), max_size=5))
def test_what_is_written_is_found_in_place(written: list[tuple[int, bytes]]) -> None:
    content = b"".join(field_head(number, len(value)) + value for number, value in written)
    assert [(number, content[start:end]) for number, start, end in fields(content)] == written


@given(st.binary(max_size=40))
def test_any_bytes_are_fields_within_bounds_or_an_error(content: bytes) -> None:
    with suppress(ValueError):
        assert all(0 < start <= end <= len(content) for _, start, end in fields(content))


def test_numbers_are_stepped_over() -> None:
    numbers = b"\x08\x96\x01" + b"\x11" + b"\0" * 8 + b"\x1d" + b"\0" * 4
    assert list(fields(numbers + field_head(9, 2) + b"ab")) == [(9, len(numbers) + 2, len(numbers) + 4)]


def test_a_part_of_the_content_is_read_alone() -> None:
    content = b"??" + field_head(1, 1) + b"a" + b"??"
    assert list(fields(content, 2, 5)) == [(1, 4, 5)]


def test_protobuf_reads_a_head() -> None:
    raw = b"\0" * 300
    assert ModelInferRequest.FromString(field_head(7, 300) + raw).raw_input_contents == [raw]


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"\x0a\x05ab", "cut off"), (b"\x0a", "cut off"), (b"\x0b", "starts no field"), (b"\x80" * 11, "ends no number")],
)
def test_bytes_that_are_no_fields_are_refused(content: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        list(fields(content))
