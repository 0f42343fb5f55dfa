"""An archive of an unknown kind fails, and the reason names the known kinds."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pytest
import redis

from redis_consumer import testing
from support.cli import CommandLine
from support.redis_server import RedisServer

READABLE = "zip, tar or tar.gz"


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.tif"), io.BytesIO())
    return file.getvalue()


#: The last ones are only their first bytes: nothing here can write them, and no more is read.
PACKED = {
    "plate.tar.xz": lzma.compress(tar()),
    "plate.txz": lzma.compress(tar()),
    "plate.tar.bz2": bz2.compress(tar()),
    "plate.7z": b"7z\xbc\xaf\x27\x1c" + bytes(64),
    "plate.rar": b"Rar!\x1a\x07\x01\0" + bytes(64),
    "plate.tar.zst": b"\x28\xb5\x2f\xfd" + bytes(64),
}


@pytest.mark.parametrize("consumer", ["zip", "image"])
@pytest.mark.parametrize("name", PACKED)
def test_its_name_is_enough(name: str, consumer: str) -> None:
    run = testing.run(consumer, PACKED[name], original_name=name)
    assert run.status == "failed"
    assert name in run.reason
    assert READABLE in run.reason


@pytest.mark.parametrize("name", PACKED)
def test_its_first_bytes_are_enough(name: str) -> None:
    run = testing.run("zip", PACKED[name], original_name="plate.zip")
    assert run.status == "failed"
    assert "which can't be read; pack it again as zip, tar or tar.gz" in run.reason


@pytest.mark.parametrize(("content", "kind"), [(tar(), "tar"), (gzip.compress(tar()), "gzip")], ids=["tar", "gzip"])
def test_an_archive_in_the_queue_of_images_is_named(content: bytes, kind: str) -> None:
    run = testing.run("image", content, original_name="plate.tif")
    assert f"plate.tif: is a {kind} file, not an image" in run.reason
    assert READABLE in run.reason


def test_submit_warns(tmp_path: Path, redis_server: RedisServer, redis_db: Any) -> None:
    cli = CommandLine.make(tmp_path, redis_server.port)
    (tmp_path / "plate.tar.xz").write_bytes(PACKED["plate.tar.xz"])
    result = cli.run("submit", tmp_path / "plate.tar.xz")
    assert "plate.tar.xz: archives of this kind can't be read; pack it as zip, tar or tar.gz" in result.stderr
    assert isinstance(redis_db, redis.Redis)
