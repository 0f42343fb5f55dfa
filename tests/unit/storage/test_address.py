"""Which bucket does a URL name?"""

from __future__ import annotations

import pytest

from redis_consumer.errors import SettingsError
from redis_consumer.storage.address import BucketAddress


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("s3://images", BucketAddress("s3", "images")),
        ("gs://images/", BucketAddress("gs", "images")),
        ("GS://Images", BucketAddress("gs", "images")),
        ("az://container/plate/One", BucketAddress("az", "container", "plate/One")),
        ("file:///data/Bucket/", BucketAddress("file", "/data/Bucket")),
        ("file://localhost/data", BucketAddress("file", "/data")),
        ("file:///data/a%20b", BucketAddress("file", "/data/a b")),
        ("file:////data/../data", BucketAddress("file", "/data")),
        ("memory://", BucketAddress("memory", "")),
        ("memory://name", BucketAddress("memory", "name")),
        (" s3://images\n", BucketAddress("s3", "images")),
    ],
)
def test_known_urls(url: str, address: BucketAddress) -> None:
    assert BucketAddress.parse(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "images",
        "http://images",
        "s3://",
        "gs:///key",
        "file://host/data",
        "file://data",
        "file:relative",
        "s3://images?region=x",
        "gs://images#part",
        "s3://images/../other",
        "s3://images/a//b",
    ],
)
def test_anything_else_lists_what_is_allowed(url: str) -> None:
    with pytest.raises(SettingsError, match=r"STORAGE_BUCKET: .*file:///folder"):
        BucketAddress.parse(url)


def test_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="name or password before '@'") as caught:
        BucketAddress.parse("s3://user:geheim@images")
    assert "geheim" not in str(caught.value)


def test_the_url_is_given_back_in_its_plain_form() -> None:
    for url in ("s3://images", "gs://images/plate/1", "az://container", "file:///data", "memory://"):
        assert BucketAddress.parse(url).url == url


def test_full_keys_begin_with_the_prefix() -> None:
    assert BucketAddress("s3", "images").full_key("output/a.zip") == "output/a.zip"
    assert BucketAddress("s3", "images", "lab").full_key("output/a.zip") == "lab/output/a.zip"
