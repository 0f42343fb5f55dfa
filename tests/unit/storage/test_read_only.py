from __future__ import annotations

from pathlib import Path

import pytest

from redis_consumer.errors import ObjectNotFound
from redis_consumer.storage import Storage
from redis_consumer.storage.read_only import ReadOnlyBucket


@pytest.fixture
def bucket() -> Storage:
    bucket = Storage("memory://")
    bucket.write_bytes("uploads/a.txt", b"bucket")
    bucket.write_bytes("models/Nuclei/1/model.onnx", b"model")
    return bucket


@pytest.fixture
def overlay(bucket: Storage, tmp_path: Path) -> ReadOnlyBucket:
    (tmp_path / "folder").mkdir()
    return ReadOnlyBucket(bucket, tmp_path / "folder")


def test_what_is_written_stays_out_of_the_bucket_and_is_read_back(
    overlay: ReadOnlyBucket, bucket: Storage, tmp_path: Path
) -> None:
    (tmp_path / "result.zip").write_bytes(b"zip")
    key, _ = overlay.upload(tmp_path / "result.zip")
    overlay.write_bytes("output/record.json", b"record")
    overlay.write_bytes("uploads/a.txt", b"other")
    assert [overlay.read_bytes(each) for each in (key, "output/record.json", "uploads/a.txt")] == [
        b"zip",
        b"record",
        b"other",
    ]
    assert Path(overlay.download(key, tmp_path / "down")).read_bytes() == b"zip"
    assert not bucket.exists(key)
    assert bucket.read_bytes("uploads/a.txt") == b"bucket"


def test_one_object_may_be_named_in_several_ways(overlay: ReadOnlyBucket, tmp_path: Path) -> None:
    overlay.write_bytes("/output/a.txt", b"own")
    url = overlay.get_public_url("output/a.txt")
    for name in ("output/a.txt", "/output/a.txt", url):
        assert overlay.exists(name)
        assert overlay.read_bytes(name) == b"own"
        overlay.download_file(name, tmp_path / "a.txt")
        assert Path(overlay.download(name, tmp_path / "down")).read_bytes() == b"own"
    overlay.delete("/output/a.txt")
    assert not overlay.exists("output/a.txt")


def test_all_else_is_the_buckets(overlay: ReadOnlyBucket, tmp_path: Path) -> None:
    assert Path(overlay.download("uploads/a.txt", tmp_path / "down")).read_bytes() == b"bucket"
    assert overlay.list_folders("models") == ["Nuclei"]
    assert overlay.exists("uploads/a.txt")


def test_nothing_is_deleted_in_the_bucket(overlay: ReadOnlyBucket, bucket: Storage) -> None:
    overlay.delete("uploads/a.txt")
    overlay.write_bytes("output/b", b"")
    overlay.delete("output/b")
    assert bucket.exists("uploads/a.txt")
    assert not overlay.exists("output/b")


def test_what_is_kept_is_read_from_the_folder(overlay: ReadOnlyBucket, bucket: Storage) -> None:
    path = overlay.keep("uploads/a.txt")
    bucket.delete("uploads/a.txt")
    assert path.read_bytes() == overlay.read_bytes("uploads/a.txt") == b"bucket"
    with pytest.raises(ObjectNotFound):
        overlay.keep("uploads/none.txt")
