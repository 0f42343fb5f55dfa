"""Are objects named after their content?"""

from __future__ import annotations

import hashlib
from pathlib import Path

from redis_consumer.cli.producer import upload_key


def test_key_is_the_digest_with_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "Cells One.TIF"
    path.write_bytes(b"pixels")
    assert upload_key(path) == f"uploads/{hashlib.md5(b'pixels').hexdigest()}.tif"


def test_file_without_extension(tmp_path: Path) -> None:
    path = tmp_path / "cells"
    path.write_bytes(b"")
    assert upload_key(path) == f"uploads/{hashlib.md5(b'').hexdigest()}"
