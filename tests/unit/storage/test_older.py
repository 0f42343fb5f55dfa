"""By which older names do consumers in the wild ask for a bucket?"""

from __future__ import annotations

import pytest

from redis_consumer.errors import SettingsError, StorageUnavailable
from redis_consumer.storage import GoogleStorage, S3Storage, StorageException, get_client


@pytest.mark.parametrize(
    ("target", "options", "url"),
    [
        ("aws", {"bucket": "images"}, "s3://images"),
        ("GKE", {"bucket": "images"}, "gs://images"),
        ("s3://Images", {}, "s3://images"),
        ("gs://images", {}, "gs://images"),
        ("az://container", {}, "az://container"),
        ("file:///data", {}, "file:///data"),
        ("memory://", {}, "memory://"),
    ],
)
def test_get_client(target: str, options: dict[str, str], url: str) -> None:
    assert get_client(target, **options).url == url


@pytest.mark.parametrize("target", ["azure", "", "ftp://images", None])
def test_an_unknown_cloud_lists_what_is_allowed(target: str) -> None:
    with pytest.raises(ValueError, match=r"isn't known; give .*s3://"):
        get_client(target)


@pytest.mark.parametrize("target", ["aws", "gke"])
def test_a_cloud_without_a_bucket_asks_for_one(target: str) -> None:
    with pytest.raises(SettingsError, match="comes without a bucket"):
        get_client(target)


def test_the_classes_take_a_name_or_a_url() -> None:
    assert GoogleStorage("images").url == GoogleStorage("gs://images").url == "gs://images"
    assert S3Storage("images", "/tmp/down", backoff=None).url == "s3://images"


def test_links_in_the_form_of_the_contract() -> None:
    assert S3Storage("images").get_public_url("output/a.zip") == "https://s3.amazonaws.com/images/output/a.zip"
    assert GoogleStorage("images").get_public_url("output/ä.zip") == (
        "https://storage.googleapis.com/images/output/%C3%A4.zip"
    )


def test_the_older_name_of_the_error() -> None:
    assert StorageException is StorageUnavailable
