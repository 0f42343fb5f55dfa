"""Opens buckets by the names and arguments of consumers of 2020 and 2023. The settings give the rest."""

from __future__ import annotations

import os
from typing import Any

from redis_consumer.errors import SettingsError, StorageUnavailable
from redis_consumer.storage.bucket import Storage

StorageException = StorageUnavailable
"""Older name of the error for a bucket that doesn't answer."""

#: Clouds with buckets of their own settings (contract, section 3).
_PROVIDERS = ("aws", "gke")


class _CloudStorage(Storage):
    """A bucket named without its scheme, as in the contract, section 3.

    Region, endpoint, credentials, kind of links and limits come from the settings, unless an option sets them.

    Args:
        bucket: name of the bucket, or its URL.
        download_dir: see `Storage`.
        backoff: longest pause between two tries, seconds; None for the settings' own.
        max_backoff: the same under its name of 2023; overrides `backoff`.
        options: see `Storage`.
    """

    _scheme = ""

    def __init__(
        self,
        bucket: str,
        download_dir: str | os.PathLike[str] | None = None,
        backoff: float | None = 1.5,
        max_backoff: float | None = None,
        **options: Any,
    ) -> None:
        pause_s = backoff if max_backoff is None else max_backoff
        given = {} if pause_s is None else {"max_backoff_s": pause_s}
        name = bucket if "://" in bucket else f"{self._scheme}://{bucket}"
        super().__init__(name, download_dir, **{**given, **options})


class GoogleStorage(_CloudStorage):
    """A bucket of Google Cloud Storage."""

    _scheme = "gs"


class S3Storage(_CloudStorage):
    """A bucket of S3."""

    _scheme = "s3"


_CLASSES = {"gs": GoogleStorage, "s3": S3Storage}


def get_client(target: str, **options: Any) -> Storage:
    """Open a bucket by its URL, or by the name of its cloud.

    A cloud's bucket is ``AWS_S3_BUCKET`` or ``GKE_BUCKET``. Where that isn't set but ``STORAGE_BUCKET`` is, it is that
    one. Region, endpoint, credentials, kind of links and limits are those of the settings.

    >>> get_client("gke", bucket="images").url
    'gs://images'
    >>> get_client("s3://images").bucket
    'images'

    Args:
        target: a bucket's URL, or ``aws`` or ``gke`` in any case.
        options: ``bucket`` and ``download_dir``, and those of `Storage`. They override the settings.

    Raises:
        SettingsError: the target isn't known. It is a ``ValueError``.
    """
    provider = str(target).strip().lower()
    bucket = options.pop("bucket", None)
    url = str(target).strip()
    if provider in _PROVIDERS:
        url = _bucket_of(provider, bucket)
    elif "://" not in provider:
        raise SettingsError(
            f"CLOUD_PROVIDER: {target!r} isn't known; give aws or gke, or the URL of a bucket such as "
            "s3://bucket, gs://bucket, az://container, file:///folder or memory://"
        )
    kind = _CLASSES.get(url.partition("://")[0].lower())
    if kind is not None:
        return kind(url, backoff=None, **options)
    return Storage(url, **options)


def _bucket_of(provider: str, bucket: str | None) -> str:
    """Return the URL of a cloud's bucket: the given one, or that of the settings."""
    from redis_consumer import settings

    now = settings.current()
    is_aws = provider == "aws"
    scheme, variable, usual = (
        ("s3", "AWS_S3_BUCKET", now.aws_s3_bucket) if is_aws else ("gs", "GKE_BUCKET", now.gke_bucket)
    )
    if bucket is None and not now.is_given(variable) and now.is_bucket_given:
        return now.storage_bucket
    name = bucket or usual
    return name if "://" in name else f"{scheme}://{name}"
