"""A bucket of S3 behaves as every bucket must, over HTTP."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from fixtures_storage import PATIENCE, BucketForTests
from redis_consumer.errors import ObjectNotFound, PermanentError, SettingsError, StorageUnavailable
from redis_consumer.storage import S3Storage, Storage
from support.cloud_server import requests_so_far, send, set_fault
from support.storage_cases import LARGE, StorageCases


class TestS3(StorageCases):
    @pytest.fixture
    def storage(self, s3_storage: Storage) -> Storage:
        return s3_storage


class TestS3WithPrefix(StorageCases):
    @pytest.fixture
    def storage(self, s3_bucket: BucketForTests) -> Storage:
        return Storage(f"{s3_bucket.url}/lab/one", **{**PATIENCE, **s3_bucket.options})


@pytest.fixture
def closed_url() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_prefix_is_in_the_bucket_and_not_in_the_keys(s3_bucket: BucketForTests) -> None:
    inner = Storage(f"{s3_bucket.url}/lab", **{**PATIENCE, **s3_bucket.options})
    inner.write_bytes("uploads/a.tif", b"x")
    assert s3_bucket.open().exists("lab/uploads/a.tif")


def test_the_public_url_is_by_path_of_the_endpoint(s3_bucket: BucketForTests) -> None:
    storage = s3_bucket.open()
    assert storage.get_public_url("output/a b.zip") == f"{s3_bucket.server_url}/{storage.bucket}/output/a%20b.zip"
    assert storage.bucket_url == f"{s3_bucket.server_url}/{storage.bucket}".removeprefix("http://")


def test_a_signed_link_opens_for_everybody_and_expires(s3_bucket: BucketForTests, tmp_path: Path) -> None:
    (tmp_path / "a é.zip").write_bytes(b"result")
    _, url = s3_bucket.open(result_urls="signed", signed_url_expire_s=120).upload(tmp_path / "a é.zip")
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    assert query["X-Amz-Expires"] == ["120"]
    assert send(url) == b"result"


def test_a_plain_link_to_a_private_bucket_stays_closed(s3_storage: Storage) -> None:
    s3_storage.write_bytes("output/a.zip", b"result")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        send(s3_storage.get_public_url("output/a.zip"))


def test_a_signed_link_is_a_name_of_its_object(s3_bucket: BucketForTests, tmp_path: Path) -> None:
    storage = s3_bucket.open(result_urls="signed")
    storage.write_bytes("uploads/a.tif", b"x")
    assert Path(storage.download(storage.get_public_url("uploads/a.tif"), tmp_path)).read_bytes() == b"x"


def test_the_media_type_is_told(s3_bucket: BucketForTests, tmp_path: Path) -> None:
    (tmp_path / "large.tif").write_bytes(LARGE)
    storage = s3_bucket.open(result_urls="signed")
    storage.upload(tmp_path / "large.tif")
    for key, media_type in (("output/large.tif", "image/tiff"), ("output/a.zip", "application/zip")):
        if key.endswith(".zip"):
            storage.write_bytes(key, b"x")
        with urllib.request.urlopen(storage.get_public_url(key)) as reply:
            assert reply.headers["Content-Type"] == media_type


def test_no_access_rule_is_asked_for(s3_bucket: BucketForTests) -> None:
    requests_so_far(s3_bucket.server_url)
    s3_bucket.open().write_bytes("output/a.zip", b"x")
    assert not [name for request in requests_so_far(s3_bucket.server_url) for name in request if "ACL" in name]


def test_a_missing_bucket_is_a_setting_to_correct(s3_bucket: BucketForTests, tmp_path: Path) -> None:
    storage = Storage("s3://no-such-bucket", **{**PATIENCE, **s3_bucket.options})
    (tmp_path / "a.zip").write_bytes(b"x")
    actions = (
        lambda: storage.download("uploads/a.tif", tmp_path),
        lambda: storage.upload(tmp_path / "a.zip"),
        lambda: storage.list_folders("models"),
        storage.check,
    )
    for action in actions:
        with pytest.raises(SettingsError, match="no such bucket; create it, or correct STORAGE_BUCKET"):
            action()


def test_an_absent_server_is_given_up_soon(s3_bucket: BucketForTests, closed_url: str, tmp_path: Path) -> None:
    storage = s3_bucket.open(endpoint=closed_url, retry_s=0.3)
    (tmp_path / "a.zip").write_bytes(b"x")
    actions = (
        lambda: storage.download("uploads/a.tif", tmp_path),
        lambda: storage.upload(tmp_path / "a.zip"),
        lambda: storage.exists("a"),
        storage.check,
    )
    for action in actions:
        with pytest.raises(StorageUnavailable, match="connection refused; try again later"):
            action()


def test_a_server_that_says_nothing_is_given_up_too(s3_bucket: BucketForTests) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(StorageUnavailable, match="no answer in time"):
            s3_bucket.open(endpoint=url, retry_s=0.1, timeout_s=0.2).read_bytes("a")


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_a_passing_failure_is_retried(s3_bucket: BucketForTests, tmp_path: Path, status: int) -> None:
    storage = s3_bucket.open(retry_s=20)
    (tmp_path / "large.zip").write_bytes(LARGE)
    set_fault(s3_bucket.server_url, times=2, status=status)
    key, _ = storage.upload(tmp_path / "large.zip")
    set_fault(s3_bucket.server_url, times=2, status=status)
    assert Path(storage.download(key, tmp_path / "down")).read_bytes() == LARGE


def test_a_lasting_failure_is_given_up(s3_bucket: BucketForTests) -> None:
    set_fault(s3_bucket.server_url, times=10_000, status=503)
    with pytest.raises(StorageUnavailable, match="a failure of its own"):
        s3_bucket.open(retry_s=0.3).write_bytes("output/a.zip", b"x")


def test_check_tries_once(s3_bucket: BucketForTests) -> None:
    storage = s3_bucket.open(retry_s=20)
    requests_so_far(s3_bucket.server_url)
    set_fault(s3_bucket.server_url, times=10_000, status=503)
    with pytest.raises(StorageUnavailable):
        storage.check()
    assert len(requests_so_far(s3_bucket.server_url)) == 1


def test_a_broken_connection_is_taken_up_where_it_broke(s3_bucket: BucketForTests, tmp_path: Path) -> None:
    storage = s3_bucket.open(retry_s=20)
    storage.write_bytes("uploads/large.tif", LARGE)
    set_fault(s3_bucket.server_url, times=1, half=True, methods=["GET"])
    assert Path(storage.download("uploads/large.tif", tmp_path)).read_bytes() == LARGE


def test_half_an_object_never_becomes_a_file(s3_bucket: BucketForTests, tmp_path: Path) -> None:
    storage = s3_bucket.open(retry_s=0.2)
    storage.write_bytes("uploads/large.tif", LARGE)
    set_fault(s3_bucket.server_url, times=10_000, half=True, methods=["GET"])
    with pytest.raises(StorageUnavailable):
        storage.download("uploads/large.tif", tmp_path / "down")
    assert os.listdir(tmp_path / "down") == []


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (403, "<Error><Code>AccessDenied</Code></Error>", PermanentError, "permission denied.*s3:GetObject"),
        (403, "<Error><Code>InvalidAccessKeyId</Code></Error>", SettingsError, "AWS_ACCESS_KEY_ID"),
        (403, "<Error><Code>SignatureDoesNotMatch</Code></Error>", SettingsError, "AWS_SECRET_ACCESS_KEY"),
        (401, "", SettingsError, "refuses the credentials"),
        (301, "<Error><Code>PermanentRedirect</Code></Error>", SettingsError, "correct AWS_REGION"),
        (400, "<Error><Code>AuthorizationHeaderMalformed</Code></Error>", SettingsError, "correct AWS_REGION"),
        (418, "", PermanentError, "refuses the request"),
    ],
)
def test_a_refusal_says_what_to_fix(
    s3_bucket: BucketForTests, status: int, body: str, error: type[Exception], words: str
) -> None:
    set_fault(s3_bucket.server_url, times=10_000, status=status, body=body)
    with pytest.raises(error, match=words):
        s3_bucket.open().read_bytes("uploads/a.tif")
    with pytest.raises(error, match=words):
        s3_bucket.open().check()


@pytest.mark.parametrize("name", ["<Code>NoSuchBucket</Code>", "status code: 503", "s", "os error (28)"])
def test_a_key_can_t_choose_its_error(s3_bucket: BucketForTests, name: str) -> None:
    with pytest.raises(ObjectNotFound):
        s3_bucket.open().read_bytes(f"uploads/{name}")


def test_without_credentials_the_machine_is_asked(
    s3_bucket: BucketForTests, closed_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", closed_url)
    options = {"access_key_id": "specify_me", "secret_access_key": "", "retry_s": 0.1}
    with pytest.raises(StorageUnavailable, match=r"no credentials were given.*set AWS_ACCESS_KEY_ID"):
        s3_bucket.open(**options).read_bytes("uploads/a.tif")


def test_the_older_class_opens_it_by_name(s3_bucket: BucketForTests) -> None:
    storage = S3Storage(s3_bucket.url.removeprefix("s3://"), **s3_bucket.options)
    storage.write_bytes("a.txt", b"x")
    assert s3_bucket.open().read_bytes("a.txt") == b"x"
