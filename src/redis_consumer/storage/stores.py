"""Opens the connections to a bucket by its options, and keeps them."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from redis_consumer.errors import SettingsError
from redis_consumer.options import RESULT_URLS, SIGNED_URL_EXPIRE_S, STORAGE_MAX_BACKOFF_S
from redis_consumer.storage.keys import BucketAddress, Links
from redis_consumer.storage.transfer import CREDENTIALS

if TYPE_CHECKING:
    from obstore.store import ObjectStore


# Placeholder in the settings of older deployments (contract, section 7).
_NOT_GIVEN = frozenset({"", "specify_me"})

# Signatures of S3 and GCS are valid for a week at most.
_LONGEST_SIGNATURE_S = 7 * 24 * 3600

# Requests are repeated with the signature of the first one, which the stores accept for five minutes.
_LONGEST_RETRY_S = 290.0
# A request that receives a few bytes from time to time does not time out. This limit ends it.
_LONGEST_REQUEST = timedelta(hours=1)
_SHORTEST_BACKOFF_S = 0.001
_LONGEST_BACKOFF_S = 3600.0
# obstore's threads don't survive a fork, so a call in the child process would never return.
_used_in_pid: int | None = None


@dataclass(frozen=True, kw_only=True)
class StorageOptions:
    """All options of a bucket except its URL. Empty texts and ``specify_me`` count as None.

    Without credentials, the machine's own are used: a role of the pod or instance (S3), workload identity or
    application default credentials (GCS), a managed identity (Azure). On any other machine, give credentials. Keys in
    the environment under the cloud's own names are used too.

    Attributes:
        region: region of an S3 bucket.
        access_key_id: key id for S3, together with `secret_access_key`.
        secret_access_key: secret key for S3.
        endpoint: address of an S3 that isn't Amazon's, such as ``http://minio:9000``; addressed by path.
        service_account: path of a JSON file with the credentials for GCS. ``gcs_base_url`` in it is followed.
        account_name: storage account for Azure.
        account_key: key of that account, base64.
        result_urls: ``public`` gives plain links, which work if the bucket allows public reads;
            ``signed`` gives links that include the right to read, and expire.
        signed_url_expire_s: seconds for which a signed link holds, a week at most.
        public_read: whether uploads to GCS ask for the access rule ``public-read``. A bucket with uniform access
            refuses that; the upload is then repeated without.
        max_backoff_s: longest pause between two tries of one call, seconds.
        retry_s: seconds after which a call that keeps failing is given up; 0 for one try.
        timeout_s: seconds without a byte from the store after which a try counts as failed.
        max_download_bytes: largest object that is downloaded, None for any.

    Raises:
        SettingsError: a value is out of its range, or one half of a pair of keys is missing.
    """

    region: str | None = None
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    service_account: str | None = None
    account_name: str | None = None
    account_key: str | None = field(default=None, repr=False)
    result_urls: str = RESULT_URLS
    signed_url_expire_s: float = SIGNED_URL_EXPIRE_S
    public_read: bool = True
    max_backoff_s: float = STORAGE_MAX_BACKOFF_S
    retry_s: float = 120.0
    timeout_s: float = 30.0
    max_download_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in (
            "region",
            "access_key_id",
            "secret_access_key",
            "endpoint",
            "service_account",
            "account_name",
            "account_key",
        ):
            text = getattr(self, name)
            object.__setattr__(self, name, None if text is None or text.strip() in _NOT_GIVEN else text.strip())
        self._check_credentials()
        self._check_numbers()

    @property
    def is_signed(self) -> bool:
        """Whether links include the right to read, and expire."""
        return self.result_urls == "signed"

    def _check_credentials(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            missing = "AWS_ACCESS_KEY_ID" if self.access_key_id is None else "AWS_SECRET_ACCESS_KEY"
            raise SettingsError(f"{missing}: missing while its other half is set; set both, or none")
        if self.endpoint and "@" in self.endpoint:
            # The value isn't shown, because it may be a password. It would also become part of every link.
            raise SettingsError(
                "AWS_ENDPOINT_URL: holds a name or password before '@'; give the keys as AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY"
            )
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            raise SettingsError(f"AWS_ENDPOINT_URL: {self.endpoint!r} is no address; give e.g. http://minio:9000")
        if self.result_urls not in {"public", "signed"}:
            raise SettingsError(f"RESULT_URLS: {self.result_urls!r} isn't known; give public or signed")

    def _check_numbers(self) -> None:
        ranges = {
            "signed_url_expire_s": (1, _LONGEST_SIGNATURE_S),
            "max_backoff_s": (0, float("inf")),
            "retry_s": (0, _LONGEST_RETRY_S),
            "timeout_s": (0.001, 3600),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingsError(f"storage option {name}: {value!r} isn't between {low} and {high} seconds")
        if self.max_download_bytes is not None and self.max_download_bytes < 1:
            raise SettingsError(f"storage option max_download_bytes: {self.max_download_bytes!r} isn't above 0")


def usual_options() -> dict[str, Any]:
    """Return the options that the settings name, as arguments of `StorageOptions`.

    Raises:
        SettingsError: a setting is wrong.
    """
    from redis_consumer import settings  # imported late, because it takes most of the import time of this package

    with settings.glanced_at():
        now = settings.current()
    return {
        "region": now.aws_region,
        "access_key_id": settings.revealed(now.aws_access_key_id),
        "secret_access_key": settings.revealed(now.aws_secret_access_key),
        "endpoint": now.aws_endpoint_url,
        "service_account": now.google_application_credentials,
        "account_name": now.azure_storage_account_name,
        "account_key": settings.revealed(now.azure_storage_account_key),
        "result_urls": now.result_urls,
        "signed_url_expire_s": now.signed_url_expire_s,
        "max_backoff_s": now.storage_max_backoff,
        "max_download_bytes": now.max_download_bytes,
    }


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
