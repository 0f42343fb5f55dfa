"""A local folder and memory behave as every bucket must."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from fixtures_storage import BucketForTests
from redis_consumer.errors import InvalidJob, SettingsError
from redis_consumer.storage import Storage
from support.storage_cases import StorageCases


class TestFolder(StorageCases):
    @pytest.fixture
    def storage(self, file_storage: Storage) -> Storage:
        return file_storage


class TestMemory(StorageCases):
    @pytest.fixture
    def storage(self) -> Storage:
        return Storage("memory://")


def test_a_link_opens(file_storage: Storage) -> None:
    file_storage.write_bytes("output/a b#é.zip", b"result")
    with urllib.request.urlopen(file_storage.get_public_url("output/a b#é.zip")) as reply:
        assert reply.read() == b"result"


def test_links_are_plain_even_if_signed_ones_are_asked_for(file_bucket: BucketForTests) -> None:
    storage = file_bucket.open(result_urls="signed")
    assert storage.get_public_url("output/a.zip") == file_bucket.url + "/output/a.zip"


def test_a_missing_folder_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no folder .*; create it"):
        Storage((tmp_path / "nope").as_uri()).check()


def test_a_missing_folder_shows_before_the_first_job(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no folder .*; create it"):
        Storage((tmp_path / "nope").as_uri()).prepare()


def test_preparing_leaves_nothing_in_the_bucket(file_storage: Storage, tmp_path: Path) -> None:
    file_storage.prepare()
    assert os.listdir(tmp_path / "bucket") == []


def test_a_link_out_of_the_bucket_is_not_followed(file_storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.tif").write_bytes(b"secret")
    (tmp_path / "bucket" / "uploads").symlink_to(tmp_path / "secret")
    (tmp_path / "bucket" / "key.tif").symlink_to(tmp_path / "secret" / "key.tif")
    for key in ("uploads/key.tif", "key.tif"):
        with pytest.raises(InvalidJob, match=f"object {key} in the local folder: is a link to outside"):
            file_storage.download(key, tmp_path / "down")
        with pytest.raises(InvalidJob, match="is a link to outside"):
            file_storage.read_bytes(key)


def test_a_link_within_the_bucket_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.tif").write_bytes(b"x")
    (tmp_path / "disk" / "b.tif").symlink_to("a.tif")
    (tmp_path / "bucket").symlink_to(tmp_path / "disk")
    assert Storage((tmp_path / "bucket").as_uri()).read_bytes("b.tif") == b"x"


def test_a_folder_with_a_space_in_its_url(tmp_path: Path) -> None:
    (tmp_path / "my bucket").mkdir()
    storage = Storage((tmp_path / "my bucket").as_uri())
    storage.write_bytes("a.txt", b"x")
    assert (tmp_path / "my bucket" / "a.txt").read_bytes() == b"x"


def test_contract_attributes(file_storage: Storage, tmp_path: Path) -> None:
    assert file_storage.bucket == str(tmp_path / "bucket")
    assert file_storage.bucket_url == f"file://{tmp_path}/bucket"
    assert file_storage.output_dir == "output"


def test_the_default_download_folder(file_storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file_storage.write_bytes("uploads/a/b.tif", b"x")
    assert file_storage.download("uploads/a/b.tif") == os.path.join("download", "a", "b.tif")
    assert (tmp_path / "download" / "a" / "b.tif").read_bytes() == b"x"


def test_the_download_folder_of_the_constructor(file_bucket: BucketForTests, tmp_path: Path) -> None:
    storage = Storage(file_bucket.url, tmp_path / "down")
    assert storage.get_download_path("uploads/a/b.tif") == str(tmp_path / "down" / "a" / "b.tif")
    assert (tmp_path / "down" / "a").is_dir()


def test_a_size_limit_holds_before_anything_is_written(file_bucket: BucketForTests, tmp_path: Path) -> None:
    storage = file_bucket.open(max_download_bytes=9)
    storage.write_bytes("uploads/a.tif", b"0123456789")
    with pytest.raises(InvalidJob, match="10 bytes are more than the 9 allowed"):
        storage.download("uploads/a.tif", tmp_path / "down")
    assert not (tmp_path / "down").exists()


def test_a_name_that_a_folder_can_t_hold_is_the_job_s_fault(file_storage: Storage) -> None:
    file_storage.write_bytes("uploads/a", b"x")
    for key in ("uploads/a/b", "uploads/a#1"):
        with pytest.raises(InvalidJob, match="rename the file"):
            file_storage.write_bytes(key, b"x")


def test_the_connection_is_given_to_whoever_asks(file_storage: Storage) -> None:
    import obstore

    file_storage.write_bytes("a.txt", b"x")
    assert obstore.get(file_storage.get_storage_client(), "a.txt").bytes() == b"x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_told_apart(file_bucket: BucketForTests, tmp_path: Path) -> None:
    (tmp_path / "bucket").chmod(0o500)
    for look in (file_bucket.open().check, file_bucket.open().prepare):
        with pytest.raises(SettingsError, match="can't write there"):
            look()


FORKING = """
import os, sys
from redis_consumer.storage import Storage
storage = Storage(sys.argv[1])
if sys.argv[2] == "before":
    storage.check()
else:
    storage.prepare()
child = os.fork()
if child == 0:
    try:
        print(storage.check(), flush=True)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize(("use", "words"), [("before", "use buckets after the fork only"), ("after", "answers")])
def test_use_before_a_fork_ends_in_words_not_in_waiting(file_bucket: BucketForTests, use: str, words: str) -> None:
    command = [sys.executable, "-c", FORKING, file_bucket.url, use]
    assert words in subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
