from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from redis_consumer.serving.transport import buffers
from redis_consumer.serving.transport.buffers import joined, size_of

arrays = hnp.arrays(st.sampled_from(["<f4", "u1", "?", "<c16"]), hnp.array_shapes(min_dims=0, min_side=0, max_side=3))


@given(
    st.lists(
        st.one_of(st.binary(max_size=9), st.binary(max_size=9).map(lambda content: memoryview(content)), arrays),
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
        monkeypatch.setattr(buffers, "_adviser", lambda: None)
    array = np.arange(2**21, dtype=np.float32)
    assert joined([b"head", array, b"tail"]) == b"head" + array.tobytes() + b"tail"
