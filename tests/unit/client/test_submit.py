"""Objects are named after their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from redis_consumer.client.submit import Result, Submission, upload_key
from redis_consumer.client.watch import JobState
from redis_consumer.consumers.zip_file import ARCHIVES


def test_key_is_the_digest_with_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "Cells One.TIF"
    path.write_bytes(b"pixels")
    assert upload_key(path) == f"uploads/{hashlib.md5(b'pixels').hexdigest()}.tif"


def test_file_without_extension(tmp_path: Path) -> None:
    path = tmp_path / "cells"
    path.write_bytes(b"")
    assert upload_key(path) == f"uploads/{hashlib.md5(b'').hexdigest()}"


@pytest.mark.parametrize("suffix", [".tar.gz", ".zarr.zip", ".zip", ".tgz"])
def test_the_key_of_an_archive_is_one_that_workers_take(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"Plate.1{suffix.upper()}"
    path.write_bytes(b"")
    key = upload_key(path)
    assert key == f"uploads/{hashlib.md5(b'').hexdigest()}{suffix}"
    assert key.endswith(ARCHIVES)


def test_data_for_scripts() -> None:
    state = JobState("predict:a:1", "failed", 100, reason="Traceback\nInvalidImage: a.tif: empty")
    data = Result(Submission("predict:a:1", Path("a.tif")), state).as_data()
    assert (data["status"], data["reason"], data["result"]) == ("failed", "InvalidImage: a.tif: empty", None)
