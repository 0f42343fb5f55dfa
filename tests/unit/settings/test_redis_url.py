from __future__ import annotations

import pytest

from redis_consumer import app, settings
from redis_consumer.cli.workers.rights import rule
from redis_consumer.consumers import defaults
from redis_consumer.errors import SettingsError
from redis_consumer.redis import RedisClient
from redis_consumer.redis_servers import Access, usual_access
from redis_consumer.settings.redis_url import RedisUrl, parse_redis_url
from redis_consumer.storage import Storage
from support.worker import ROOT


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("redis://redis", RedisUrl("redis")),
        ("rediss://redis:6380/", RedisUrl("redis", 6380, is_encrypted=True)),
        ("redis://:p%40ss@redis:1/12", RedisUrl("redis", 1, 12, password="p@ss")),
        ("redis://jobs:@[fd00::7]", RedisUrl("fd00::7", username="jobs")),
        ("unix:///run/redis.sock", RedisUrl("/run/redis.sock")),
        ("unix://jobs:secret@/run/r.sock?db=4", RedisUrl("/run/r.sock", 6379, 4, "jobs", "secret")),
    ],
)
def test_its_parts_are_read(text: str, parts: RedisUrl) -> None:
    assert parse_redis_url(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "redis",
        "redis:6379",
        "http://redis",
        "redis://",
        "redis://:6379",
        "redis://redis:0",
        "redis://redis:70000",
        "redis://redis:port",
        "redis://redis/name",
        "redis://redis?ssl_cert_reqs=none",
        "redis://redis#1",
        "unix://host/run/redis.sock",
        "unix:///run/redis.sock?db=a",
        "redis+cluster://redis",
    ],
)
def test_another_text_is_refused_without_showing_it(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", text)
    with pytest.raises(SettingsError, match="REDIS_URL = .*must be redis://") as caught:
        settings.load_settings()
    assert repr(text) not in str(caught.value)


def test_it_wins_over_host_and_port_and_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://jobs:geheim@redis:6380")
    monkeypatch.setenv("REDIS_HOST", "elsewhere")
    monkeypatch.setenv("REDIS_USERNAME", "other")
    loaded = settings.load_settings()
    assert (loaded.redis_host, loaded.redis_port, loaded.redis_username) == ("redis", 6380, "jobs")
    assert loaded.source("REDIS_HOST") == "REDIS_URL"
    assert "geheim" not in str(loaded.describe())


def test_the_user_and_password_of_the_variables_go_with_a_url_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://redis")
    monkeypatch.setenv("REDIS_USERNAME", "jobs")
    monkeypatch.setenv("REDIS_PASSWORD", "geheim")
    assert (settings.get("REDIS_USERNAME"), settings.get("REDIS_PASSWORD")) == ("jobs", "geheim")


@pytest.mark.parametrize(
    ("option", "address"), [("other:7", ("other", 7)), ("[::1]:7", ("::1", 7)), ("redis://third:8", ("third", 8))]
)
def test_the_option_wins_over_it(option: str, address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "rediss://redis:6380")
    loaded = app.read_settings(redis=option)
    assert (loaded.redis_host, loaded.redis_port) == address


def test_certificates_without_tls_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_CA", "ca.pem")
    with pytest.raises(SettingsError, match="set without TLS"):
        defaults.redis_client()


def test_only_the_server_of_the_settings_is_given_their_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://jobs:geheim@redis:6380/2")
    assert usual_access("redis", 6380) == Access(username="jobs", password="geheim", db=2)
    assert usual_access("redis", 6379) == usual_access("other", 6380) == Access()


def test_clients_that_are_made_first_do_not_decide_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    RedisClient("redis", 6379)
    Storage("memory://")
    monkeypatch.setenv("QUEUE", "later")
    assert settings.get("QUEUE") == "later"


def test_the_page_has_the_rule_for_users() -> None:
    page = " ".join((ROOT / "docs" / "redis.rst").read_text().split())
    assert f"ACL SETUSER jobs on >secret {rule(['predict', 'predict-zip'])}" in page
