"""How connections to a bucket are opened and kept.

There is no server for Azure that a test could install, so here a container is opened, linked and signed with a
dummy key, and asked for at an address where nobody listens; what its own server would answer is not tested.
"""

from __future__ import annotations

import base64
import socket
import urllib.parse
from pathlib import Path

import pytest

from redis_consumer.errors import SettingsError, StorageUnavailable
from redis_consumer.storage import Storage
from redis_consumer.storage.keys import BucketAddress
from redis_consumer.storage.stores import StorageOptions, Stores

KEY = base64.b64encode(b"dummy").decode()


def test_each_kind_of_connection_is_opened_once() -> None:
    stores = Stores(BucketAddress("gs", "images"), StorageOptions(public_read=True))
    assert stores.reader() is stores.reader()
    assert stores.writer() is stores.writer() is not stores.reader()
    assert stores.prober() is not stores.reader()


def test_after_a_refusal_uploads_go_the_plain_way() -> None:
    stores = Stores(BucketAddress("gs", "images"), StorageOptions())
    stores.stop_asking_public_read()
    assert stores.writer() is stores.reader()


def test_empty_variables_of_the_environment_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.setenv(name, "")
    options = {"access_key_id": "dummy", "secret_access_key": "dummy", "result_urls": "signed"}
    url = Storage("s3://images", region="eu-central-1", **options).get_public_url("output/a.zip")
    assert url.startswith("https://s3.eu-central-1.amazonaws.com/images/output/a.zip?X-Amz-Algorithm=")


def test_secrets_are_in_no_error_of_opening() -> None:
    with pytest.raises(SettingsError) as caught:
        Storage("az://container", account_name="lab", account_key="not base64!").check()
    assert "not base64!" not in str(caught.value)
    assert "AZURE_STORAGE_ACCOUNT_KEY" in str(caught.value)


def test_azure_asks_for_its_account() -> None:
    with pytest.raises(SettingsError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        Storage("az://container").get_public_url("output/a.zip")
    with pytest.raises(SettingsError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        Storage("az://container").check()


def test_azure_links() -> None:
    storage = Storage("az://container", account_name="lab", account_key=KEY)
    assert storage.get_public_url("output/a.zip") == "https://lab.blob.core.windows.net/container/output/a.zip"
    assert storage.bucket_url == "lab.blob.core.windows.net/container"


def test_azure_signed_links_expire() -> None:
    options = {"account_name": "lab", "account_key": KEY, "result_urls": "signed"}
    url = Storage("az://container/plate", **options).get_public_url("output/a b.zip")
    parts = urllib.parse.urlsplit(url)
    assert parts.path == "/container/plate/output/a%20b.zip"
    assert {"se", "sig", "sp"} <= set(urllib.parse.parse_qs(parts.query))


def test_an_absent_azure_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"https://127.0.0.1:{probe.getsockname()[1]}/lab")
    storage = Storage("az://container", account_name="lab", account_key=KEY, retry_s=0.2, max_backoff_s=0.05)
    with pytest.raises(StorageUnavailable, match="connection refused"):
        storage.read_bytes("uploads/a.tif")


def test_a_bucket_in_the_cloud_is_prepared_without_asking_for_it() -> None:
    Storage("s3://images", endpoint="http://127.0.0.1:1", access_key_id="dummy", secret_access_key="dummy").prepare()


def test_preparing_asks_for_the_account_of_azure() -> None:
    with pytest.raises(SettingsError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        Storage("az://container").prepare()


@pytest.mark.parametrize("content", [None, "no JSON", "[]"])
def test_preparing_reads_the_file_of_credentials(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=r"GOOGLE_APPLICATION_CREDENTIALS: .*key\.json"):
        Storage("gs://images", service_account=str(path)).prepare()
