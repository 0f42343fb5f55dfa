from __future__ import annotations

import pytest

from redis_consumer.errors import SettingsError
from redis_consumer.serving.transport.connection import parse_headers


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("", {}),
        ("a=1,", {"a": "1"}),
        ("Authorization=Basic YQ==", {"authorization": "Basic YQ=="}),
        (" a=1 , b=", {"a": "1", "b": ""}),
    ],
)
def test_headers_are_read(text: str, headers: dict[str, str]) -> None:
    assert parse_headers(text) == headers


@pytest.mark.parametrize(
    "part", ["geheim", "b = geheim", "=geheim", "grpc-x=geheim", "x-bin=geheim", "a=geheim\n", "ä=geheim"]
)
def test_what_is_no_header_is_refused_and_not_shown(part: str) -> None:
    with pytest.raises(SettingsError, match="part 2") as caught:
        parse_headers(f"a=1,{part}x")
    assert "geheim" not in str(caught.value)
