"""Opens and keeps the connections to a bucket."""

from __future__ import annotations

import json
import os
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from redis_consumer.errors import SettingsError
from redis_consumer.storage.faults import CREDENTIALS
from redis_consumer.storage.links import BucketAddress, Links
from redis_consumer.storage.options import StorageOptions

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# A request that receives a few bytes from time to time does not time out. This limit ends it.
_LONGEST_REQUEST = timedelta(hours=1)

_SHORTEST_BACKOFF_S = 0.001
_LONGEST_BACKOFF_S = 3600.0

# obstore's threads don't survive a fork, so a call in the child process would never return.
_used_in_pid: int | None = None


class Stores:
    """The connections of one bucket, opened on first use; safe to use from several threads.

    Args:
        address: which bucket.
        options: how to open it.
    """

    def __init__(self, address: BucketAddress, options: StorageOptions) -> None:
        self.address = address
        self.options = options
        self._lock = threading.Lock()
        self._open: dict[str, ObjectStore] = {}
        self._asks_public_read = address.scheme == "gs" and options.public_read and not options.is_signed

    def reader(self) -> ObjectStore:
        """Connection for everything except uploads."""
        return self._get("read", self.options.retry_s, None)

    def writer(self) -> ObjectStore:
        """Connection for uploads, which asks GCS for public read access to them."""
        if not self._asks_public_read:
            return self.reader()
        return self._get("write", self.options.retry_s, {"x-goog-acl": "public-read"})

    def prober(self) -> ObjectStore:
        """Connection for checks, without retries."""
        if self.address.scheme in {"file", "memory"}:
            return self.reader()
        return self._get("probe", 0.0, None)

    def stop_asking_public_read(self) -> None:
        """Upload without access rules from now on."""
        self._asks_public_read = False

    def links(self) -> Links:
        """The URLs of the bucket, for its server and account."""
        endpoint = self.options.endpoint if self.address.scheme == "s3" else None
        if self.address.scheme == "gs" and self.options.service_account:
            endpoint = _read_service_account(self.options.service_account).get("gcs_base_url")
        if self.address.scheme == "az" and not self.options.account_name:
            raise SettingsError(
                f"AZURE_STORAGE_ACCOUNT_NAME: missing for {self.address.url}; give the name of its storage account"
            )
        return Links(self.address, endpoint.rstrip("/") if endpoint else None, self.options.account_name)

    def prepare(self) -> None:
        """Open a connection and drop it. This finds every error that needs no request to the store."""
        self.links()
        open_store(self.address, self.options, 0)
        if self.address.scheme == "file":
            check_writable(self.address)

    def _get(self, use: str, retry_s: float, headers: dict[str, str] | None) -> ObjectStore:
        global _used_in_pid
        if _used_in_pid not in {None, os.getpid()}:
            raise RuntimeError("a bucket was used before this process was forked; use buckets after the fork only")
        with self._lock:
            if use not in self._open:
                self._open[use] = open_store(self.address, self.options, retry_s, headers)
            _used_in_pid = os.getpid()
            return self._open[use]


def open_store(
    address: BucketAddress, options: StorageOptions, retry_s: float, headers: dict[str, str] | None = None
) -> ObjectStore:
    """Open one connection; no request is made yet.

    Raises:
        SettingsError: the folder is missing, or the options can't be used for this kind of bucket.
    """
    from obstore.exceptions import BaseError

    kind = {"s3": _open_s3, "gs": _open_gcs, "az": _open_azure}.get(address.scheme)
    try:
        if kind is None:
            return _open_local(address)
        client: dict[str, Any] = {
            "connect_timeout": timedelta(seconds=min(options.timeout_s, 10)),
            "read_timeout": timedelta(seconds=options.timeout_s),
            "timeout": _LONGEST_REQUEST,
        }
        if headers:
            client["default_headers"] = headers
        common = {"prefix": address.prefix or None, "client_options": client, "retry_config": _retry(options, retry_s)}
        return kind(address.bucket, options, common)
    except (BaseError, ValueError) as error:
        if isinstance(error, SettingsError):
            raise
        variables = CREDENTIALS.get(address.scheme, "STORAGE_BUCKET")
        reason = str(error).partition("\n")[0]
        raise SettingsError(f"bucket {address.url}: can't be opened ({reason}); check {variables}") from error


def check_writable(address: BucketAddress) -> None:
    """Check that this user can write to a bucket that is a local folder.

    Raises:
        SettingsError: the user can't.
    """
    if not os.access(address.bucket, os.W_OK | os.X_OK):
        raise SettingsError(f"bucket {address.url}: this user can't write there; allow it, or name another folder")


def _retry(options: StorageOptions, retry_s: float) -> dict[str, Any]:
    # obstore chooses each pause between the first and the longest one, and panics if they are equal.
    longest_s = min(max(options.max_backoff_s, _SHORTEST_BACKOFF_S), _LONGEST_BACKOFF_S)
    backoff = {
        "init_backoff": timedelta(seconds=min(0.1, longest_s / 2)),
        "max_backoff": timedelta(seconds=longest_s),
        "base": 2,
    }
    # The limit is the time, not the number. Without a pause, it must be the number.
    max_retries = (1000 if options.max_backoff_s else 10) if retry_s else 0
    return {"max_retries": max_retries, "retry_timeout": timedelta(seconds=retry_s), "backoff": backoff}


def _open_local(address: BucketAddress) -> ObjectStore:
    from obstore.store import LocalStore, MemoryStore

    if address.scheme == "memory":
        return MemoryStore()
    if not os.path.isdir(address.bucket):
        raise SettingsError(f"STORAGE_BUCKET: there is no folder {address.bucket}; create it, or correct the URL")
    return LocalStore(address.bucket)


def _open_s3(bucket: str, options: StorageOptions, common: dict[str, Any]) -> ObjectStore:
    from obstore.store import S3Store

    # Region and address are always given. Otherwise obstore would read them from the environment, even if they are
    # empty.
    region = options.region or "us-east-1"
    china = ".cn" if region.startswith("cn-") else ""
    endpoint = options.endpoint or f"https://s3.{region}.amazonaws.com{china}"
    common["client_options"]["allow_http"] = endpoint.startswith("http://")
    keys = {"access_key_id": options.access_key_id, "secret_access_key": options.secret_access_key}
    return S3Store(bucket, region=region, endpoint=endpoint, **common, **_given(keys))


def _open_gcs(bucket: str, options: StorageOptions, common: dict[str, Any]) -> ObjectStore:
    from obstore.store import GCSStore

    given: dict[str, Any] = {}
    if options.service_account:
        account = _read_service_account(options.service_account)
        # `gcs_base_url` is used only for a service account. Other kinds of credentials are read under the other name.
        is_user = account.get("type") == "authorized_user"
        given["application_credentials" if is_user else "service_account"] = options.service_account
        if str(account.get("gcs_base_url", "")).startswith("http://"):
            common["client_options"]["allow_http"] = True
    return GCSStore(bucket, **common, **given)


def _open_azure(container: str, options: StorageOptions, common: dict[str, Any]) -> ObjectStore:
    from obstore.store import AzureStore

    given = {"account_name": options.account_name, "account_key": options.account_key}
    return AzureStore(container, **common, **_given(given))


def _given(texts: dict[str, str | None]) -> dict[str, Any]:
    return {name: text for name, text in texts.items() if text is not None}


def _read_service_account(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            account = json.load(file)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"GOOGLE_APPLICATION_CREDENTIALS: {path} can't be read as JSON; give the key file of a service account"
        ) from error
    if not isinstance(account, dict):
        raise SettingsError(
            f"GOOGLE_APPLICATION_CREDENTIALS: {path} holds no JSON object; give the key file of a service account"
        )
    return account
