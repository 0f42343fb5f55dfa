"""By which older names do consumers in the wild ask for a bucket?"""

from __future__ import annotations

import os
from typing import Any

from redis_consumer.errors import SettingsError, StorageUnavailable
from redis_consumer.storage.bucket import Storage

StorageException = StorageUnavailable
"""Older name of the error for a bucket that doesn't answer."""

_PROVIDERS = {"aws": "s3", "gke": "gs"}


class _CloudStorage(Storage):
    """A bucket named without its scheme, as in the contract, section 3.

    Args:
        bucket: name of the bucket, or its URL.
        download_dir: see `Storage`.
        backoff: longest pause between two tries, seconds; None for the default.
        options: see `Storage`.
    """

    _scheme = ""

    def __init__(
        self,
        bucket: str,
        download_dir: str | os.PathLike[str] | None = None,
        backoff: float | None = 1.5,
        **options: Any,
    ) -> None:
        if backoff is not None:
            options.setdefault("max_backoff_s", backoff)
        name = bucket if "://" in bucket else f"{self._scheme}://{bucket}"
        super().__init__(name, download_dir, **options)


class GoogleStorage(_CloudStorage):
    """A bucket of Google Cloud Storage."""

    _scheme = "gs"


class S3Storage(_CloudStorage):
    """A bucket of S3."""

    _scheme = "s3"


def get_client(target: str, **options: Any) -> Storage:
    """Open a bucket by its URL or, with ``bucket=NAME``, by the name of its cloud.

    >>> get_client("gke", bucket="images").url
    'gs://images'
    >>> get_client("s3://images").bucket
    'images'

    Args:
        target: a bucket's URL, or ``aws`` or ``gke`` in any case.
        options: ``bucket`` and ``download_dir``, and those of `Storage`.

    Raises:
        SettingsError: the target isn't known, or a cloud comes without a bucket. It is a ``ValueError``.
    """
    provider = str(target).strip().lower()
    bucket = options.pop("bucket", None)
    if provider in _PROVIDERS:
        if not bucket:
            raise SettingsError(f"CLOUD_PROVIDER: {target!r} comes without a bucket; name one, or set STORAGE_BUCKET")
        return Storage(f"{_PROVIDERS[provider]}://{bucket}", **options)
    if "://" not in provider:
        raise SettingsError(
            f"CLOUD_PROVIDER: {target!r} isn't known; give aws or gke with a bucket, or the URL of a bucket such as "
            "s3://bucket, gs://bucket, az://container, file:///folder or memory://"
        )
    return Storage(str(target), **options)
