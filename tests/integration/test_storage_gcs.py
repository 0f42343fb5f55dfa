"""A bucket of Google Cloud Storage behaves as every bucket must, over HTTP."""

from __future__ import annotations

import json
import logging
import urllib.parse
from pathlib import Path

import pytest

from fixtures_storage import PATIENCE, BucketForTests
from redis_consumer.errors import PermanentError, SettingsError, StorageUnavailable
from redis_consumer.storage import GoogleStorage, Storage
from support.cloud_server import requests_so_far, send, set_fault
from support.storage_cases import LARGE, StorageCases

UNIFORM = (
    "<Error><Code>InvalidArgument</Code><Details>Cannot insert legacy ACL for an object when uniform bucket-level "
    "access is enabled.</Details></Error>"
)
PREVENTED = "<Error><Code>ConditionNotMet</Code><Details>public access prevention is enforced</Details></Error>"


class TestGcs(StorageCases):
    @pytest.fixture
    def storage(self, gcs_storage: Storage) -> Storage:
        return gcs_storage


class TestGcsWithPrefix(StorageCases):
    @pytest.fixture
    def storage(self, gcs_bucket: BucketForTests) -> Storage:
        return Storage(f"{gcs_bucket.url}/lab", **{**PATIENCE, **gcs_bucket.options})


def rules_asked_for(bucket: BucketForTests) -> list[str | None]:
    """The access rule in each upload so far."""
    requests = requests_so_far(bucket.server_url)
    return [request.get("HTTP_X_GOOG_ACL") for request in requests if request["REQUEST_METHOD"] in {"PUT", "POST"}]


def test_uploads_ask_to_be_read_by_everybody(gcs_bucket: BucketForTests, tmp_path: Path) -> None:
    (tmp_path / "large.tif").write_bytes(LARGE)
    storage = gcs_bucket.open()
    requests_so_far(gcs_bucket.server_url)
    storage.upload(tmp_path / "large.tif")
    storage.write_bytes("output/small.zip", b"x")
    rules = rules_asked_for(gcs_bucket)
    assert len(rules) > 3
    assert set(rules) == {"public-read"}


@pytest.mark.parametrize("options", [{"public_read": False}, {"result_urls": "signed"}])
def test_uploads_ask_for_nothing_where_not_wanted(gcs_bucket: BucketForTests, options: dict[str, object]) -> None:
    storage = gcs_bucket.open(**options)
    requests_so_far(gcs_bucket.server_url)
    storage.write_bytes("output/a.zip", b"x")
    assert rules_asked_for(gcs_bucket) == [None]


@pytest.mark.parametrize(("status", "body"), [(400, UNIFORM), (412, PREVENTED)])
def test_a_bucket_that_refuses_the_rule_gets_the_upload_without(
    gcs_bucket: BucketForTests, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, body: str
) -> None:
    storage = gcs_bucket.open()
    set_fault(gcs_bucket.server_url, times=10_000, status=status, body=body, header="HTTP_X_GOOG_ACL")
    (tmp_path / "a.zip").write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        storage.upload(tmp_path / "a.zip")
        storage.write_bytes("output/b.zip", b"y")
    assert storage.read_bytes("output/a.zip") == b"x"
    assert len([record for record in caplog.records if "refuses public-read" in record.message]) == 1


def test_a_signed_link_opens_for_everybody_and_expires(gcs_bucket: BucketForTests, tmp_path: Path) -> None:
    (tmp_path / "a é.zip").write_bytes(b"result")
    _, url = gcs_bucket.open(result_urls="signed", signed_url_expire_s=120).upload(tmp_path / "a é.zip")
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    assert query["X-Goog-Expires"] == ["120"]
    assert send(url) == b"result"


def test_a_public_link_opens(gcs_bucket: BucketForTests, tmp_path: Path) -> None:
    (tmp_path / "a b.zip").write_bytes(b"result")
    storage = gcs_bucket.open()
    _, url = storage.upload(tmp_path / "a b.zip")
    assert url == f"{gcs_bucket.server_url}/{storage.bucket}/output/a%20b.zip"
    assert send(url) == b"result"


def test_the_credentials_of_the_environment_agree_with_the_option(
    gcs_bucket: BucketForTests, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in gcs_bucket.environment.items():
        monkeypatch.setenv(name, text)
    gcs_bucket.open().write_bytes("a.txt", b"x")
    assert gcs_bucket.open().read_bytes("a.txt") == b"x"


def test_a_missing_bucket_is_a_setting_to_correct(gcs_bucket: BucketForTests, tmp_path: Path) -> None:
    storage = Storage("gs://no-such-bucket", **{**PATIENCE, **gcs_bucket.options})
    with pytest.raises(SettingsError, match="no such bucket"):
        storage.download("uploads/a.tif", tmp_path)
    with pytest.raises(SettingsError, match="no such bucket"):
        storage.check()


def test_a_denied_object_names_the_role(gcs_bucket: BucketForTests) -> None:
    set_fault(gcs_bucket.server_url, times=10_000, status=403, body="<Error><Code>AccessDenied</Code></Error>")
    with pytest.raises(PermanentError, match="Storage Object Admin"):
        gcs_bucket.open().read_bytes("uploads/a.tif")


def test_a_passing_failure_is_retried(gcs_bucket: BucketForTests) -> None:
    storage = gcs_bucket.open(retry_s=20)
    set_fault(gcs_bucket.server_url, times=2, status=503)
    storage.write_bytes("output/a.zip", b"x")
    set_fault(gcs_bucket.server_url, times=2, status=500)
    assert storage.read_bytes("output/a.zip") == b"x"


def test_a_lasting_failure_is_given_up(gcs_bucket: BucketForTests) -> None:
    set_fault(gcs_bucket.server_url, times=10_000, status=503)
    with pytest.raises(StorageUnavailable):
        gcs_bucket.open(retry_s=0.3).read_bytes("output/a.zip")


@pytest.mark.parametrize("text", ["no json", "[]", json.dumps({"type": "external_account"})])
def test_credentials_that_are_none_name_their_variable(tmp_path: Path, text: str) -> None:
    path = tmp_path / "account.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        Storage("gs://bucket", service_account=str(path)).check()


def test_a_missing_file_of_credentials_names_its_variable(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="GOOGLE_APPLICATION_CREDENTIALS"):
        Storage("gs://bucket", service_account=str(tmp_path / "nope.json")).get_public_url("a")


def test_the_older_class_opens_it_by_name(gcs_bucket: BucketForTests) -> None:
    storage = GoogleStorage(gcs_bucket.url.removeprefix("gs://"), **gcs_bucket.options)
    storage.write_bytes("a.txt", b"x")
    assert gcs_bucket.open().read_bytes("a.txt") == b"x"
