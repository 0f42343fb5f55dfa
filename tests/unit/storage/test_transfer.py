"""Bytes get from the bucket to the disk and back, complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from redis_consumer.errors import StorageUnavailable
from redis_consumer.storage import transfer
from redis_consumer.storage.links import BucketAddress
from redis_consumer.storage.options import StorageOptions
from redis_consumer.storage.stores import open_store


@pytest.mark.parametrize("left", [0, 4])
def test_an_object_that_shrinks_meanwhile_never_becomes_a_file(tmp_path: Path, left: int) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "down").mkdir()
    (tmp_path / "bucket" / "a.tif").write_bytes(b"0123456789")
    address = BucketAddress("file", str(tmp_path / "bucket"))
    incoming = transfer.start(open_store(address, StorageOptions(), 0), address, "a.tif", None)
    os.truncate(tmp_path / "bucket" / "a.tif", left)
    with pytest.raises(StorageUnavailable, match="try again later"):
        incoming.save(str(tmp_path / "down" / "a.tif"))
    assert os.listdir(tmp_path / "down") == []
