"""Options with which a bucket is opened."""

from __future__ import annotations

from typing import Any

import pytest

from redis_consumer.errors import SettingsError
from redis_consumer.storage.stores import StorageOptions


def test_texts_that_say_nothing_count_as_not_given() -> None:
    options = StorageOptions(access_key_id="specify_me", secret_access_key="", endpoint=" ", service_account="")
    assert options == StorageOptions()


def test_spaces_around_a_text_are_dropped() -> None:
    assert StorageOptions(region=" eu-central-1\n").region == "eu-central-1"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"access_key_id": "a"}, "AWS_SECRET_ACCESS_KEY: missing"),
        ({"secret_access_key": "a"}, "AWS_ACCESS_KEY_ID: missing"),
        ({"endpoint": "minio:9000"}, "AWS_ENDPOINT_URL: .* give e.g. http://"),
        ({"endpoint": "http://user:pw@minio:9000"}, "AWS_ENDPOINT_URL: holds a name or password"),
        ({"result_urls": "private"}, "RESULT_URLS: .* give public or signed"),
        ({"signed_url_expire_s": 0}, "signed_url_expire_s: 0 isn't between"),
        ({"signed_url_expire_s": 604801}, "signed_url_expire_s"),
        ({"retry_s": 300}, "retry_s"),
        ({"retry_s": float("nan")}, "retry_s"),
        ({"max_backoff_s": -1}, "max_backoff_s"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"max_download_bytes": 0}, "max_download_bytes"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        StorageOptions(**options)


def test_secrets_are_in_no_message() -> None:
    with pytest.raises(SettingsError) as caught:
        StorageOptions(secret_access_key="hush-hush")
    assert "hush-hush" not in str(caught.value)
    with pytest.raises(SettingsError) as caught:
        StorageOptions(endpoint="user:hush-hush@minio:9000")
    assert "hush-hush" not in str(caught.value)
    assert "hush-hush" not in repr(StorageOptions(access_key_id="a", secret_access_key="hush-hush"))
