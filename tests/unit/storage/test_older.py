"""Buckets are opened by the names and arguments of older consumers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from redis_consumer import settings
from redis_consumer.errors import StorageUnavailable
from redis_consumer.storage import GoogleStorage, S3Storage, Storage, StorageException, get_client


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


@pytest.mark.parametrize(
    ("provider", "variables", "url"),
    [
        ("aws", {"AWS_S3_BUCKET": "cells"}, "s3://cells"),
        ("AWS", {"AWS_S3_BUCKET": "cells", "STORAGE_BUCKET": "gs://other"}, "s3://cells"),
        ("aws", {"GKE_BUCKET": "cells"}, "s3://default-bucket"),
        ("gke", {"GKE_BUCKET": "cells", "CLOUD_PROVIDER": "gke"}, "gs://cells"),
        ("gke", {"STORAGE_BUCKET": "file:///data"}, "file:///data"),
        ("gke", {"CLOUD_PROVIDER": "aws", "AWS_S3_BUCKET": "cells"}, "gs://default-bucket"),
        ("gke", {"GKE_BUCKET": "gs://cells"}, "gs://cells"),
        ("gke", {}, "gs://default-bucket"),
    ],
)
def test_the_bucket_of_a_cloud_is_the_one_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, provider: str, variables: dict[str, str], url: str
) -> None:
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert get_client(provider).url == url


def test_a_bucket_that_a_script_assigns_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "CLOUD_PROVIDER", "aws", raising=False)
    monkeypatch.setattr(settings, "AWS_S3_BUCKET", "mine", raising=False)
    assert get_client(settings.CLOUD_PROVIDER).url == "s3://mine"


MADE_BY_SCRIPTS = [
    lambda: get_client("aws"),
    lambda: get_client("s3://cells"),
    lambda: S3Storage("c"),
    lambda: Storage("s3://c"),
]


@pytest.mark.parametrize("make", MADE_BY_SCRIPTS)
def test_clients_of_a_script_are_opened_as_the_settings_say(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], Storage]
) -> None:
    given = {
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "http://minio:9000",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
        "RESULT_URLS": "signed",
        "SIGNED_URL_EXPIRE_S": "60",
    }
    for name, text in given.items():
        monkeypatch.setenv(name, text)
    storage = make()
    url = storage.get_public_url("output/a.zip")
    assert url.startswith(f"http://minio:9000/{storage.bucket}/output/a.zip?")
    assert "eu-west-1" in url
    assert "X-Amz-Expires=60" in url


def test_what_a_script_gives_wins_over_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
    assert S3Storage("c", endpoint="http://other:1").get_public_url("a/b") == "http://other:1/c/a/b"


def test_the_clients_of_clouds_have_classes_of_their_own() -> None:
    assert isinstance(get_client("gke"), GoogleStorage)
    assert isinstance(get_client("gs://cells"), GoogleStorage)
    assert not isinstance(get_client("memory://"), (GoogleStorage, S3Storage))


@pytest.mark.parametrize("pause", [{"backoff": 0}, {"backoff": 1e-9}, {"max_backoff": 0}, {"backoff": math.inf}])
def test_a_pause_of_any_length_ends_in_an_error_of_ours(pause: dict[str, Any]) -> None:
    """obstore is written in Rust, whose panics no ``except Exception`` catches."""
    options: dict[str, Any] = {"access_key_id": "id", "secret_access_key": "key", "retry_s": 0.2, "timeout_s": 1}
    storage = S3Storage("images", endpoint="http://127.0.0.1:9", **options, **pause)
    with pytest.raises(StorageUnavailable, match="connection refused"):
        storage.read_bytes("uploads/a.tif")


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
