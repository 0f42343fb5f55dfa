from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from redis_consumer.text import file_digest


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 1])
def test_a_file_has_the_digest_of_its_bytes(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    assert file_digest(tmp_path / "file") == hashlib.sha256(content[:size]).hexdigest()
    assert file_digest(tmp_path / "file", "md5") == hashlib.md5(content[:size], usedforsecurity=False).hexdigest()
