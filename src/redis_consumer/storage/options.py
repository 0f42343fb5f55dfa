"""Defines the options of a bucket: credentials, links, retries and limits. They are checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from redis_consumer.errors import SettingsError
from redis_consumer.options import RESULT_URLS, SIGNED_URL_EXPIRE_S, STORAGE_MAX_BACKOFF_S

# Placeholder in the settings of older deployments (contract, section 7).
_NOT_GIVEN = frozenset({"", "specify_me"})

# Signatures of S3 and GCS are valid for a week at most.
_LONGEST_SIGNATURE_S = 7 * 24 * 3600

# Requests are repeated with the signature of the first one, which the stores accept for five minutes.
_LONGEST_RETRY_S = 290.0


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
