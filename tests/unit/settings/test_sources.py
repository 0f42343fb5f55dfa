"""Each value comes from the right source, and a wrong one stops the start with a readable error."""

from __future__ import annotations

from pathlib import Path

import pytest

from redis_consumer.errors import SettingsError
from redis_consumer.settings.sources import load_settings


def test_environment_wins_over_all_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE", "env")
    Path(".env").write_text("QUEUE=dotenv\n")
    Path("settings.ini").write_text("[settings]\nQUEUE=ini\n")
    Path("redis-consumer.toml").write_text('QUEUE = "toml"\n')
    settings = load_settings()
    assert (settings.queue, settings.source("QUEUE")) == ("env", "environment")


def test_dot_env_wins_over_ini_and_toml() -> None:
    Path(".env").write_text("QUEUE=dotenv\nOF_SOMEBODY_ELSE=1\n")
    Path("settings.ini").write_text("[settings]\nQUEUE=ini\n")
    Path("redis-consumer.toml").write_text('QUEUE = "toml"\n')
    settings = load_settings()
    assert (settings.queue, settings.source("QUEUE")) == ("dotenv", ".env file")


def test_ini_wins_over_toml() -> None:
    Path("settings.ini").write_text("[settings]\nqueue=ini\n[other]\nREDIS_PORT=1\n")
    Path("redis-consumer.toml").write_text('QUEUE = "toml"\nredis_port = 7\n')
    settings = load_settings()
    assert (settings.queue, settings.source("QUEUE")) == ("ini", "settings.ini")
    assert (settings.redis_port, settings.source("REDIS_PORT")) == (7, "TOML file redis-consumer.toml")


def test_what_nobody_gives_is_the_default() -> None:
    settings = load_settings()
    assert {setting.source for setting in settings.describe()} == {"default"}


def test_overrides_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE", "env")
    settings = load_settings(queue="mine", redis_host=None)
    assert (settings.queue, settings.source("QUEUE")) == ("mine", "command line")
    assert settings.redis_host == "redis-master"


def test_override_of_an_unknown_name_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="NO_SUCH_NAME"):
        load_settings(no_such_name="x")


def test_empty_values_are_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PORT", "")
    monkeypatch.setenv("STORAGE_BUCKET", "")
    monkeypatch.setenv("GKE_BUCKET", "cells")
    Path(".env").write_text("REDIS_HOST=\n")
    Path("settings.ini").write_text("[settings]\nTF_HOST=\n")
    settings = load_settings()
    assert (settings.redis_port, settings.redis_host, settings.tf_host) == (6379, "redis-master", "tf-serving")
    assert (settings.storage_bucket, settings.source("STORAGE_BUCKET")) == ("gs://cells", "GKE_BUCKET")


def test_lower_case_variables_of_the_environment_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("queue", "of a shell script")
    assert load_settings().queue == "predict"


def test_toml_file_by_its_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text("interval = 2.5\nscale_detect_enabled = true\n")
    monkeypatch.setenv("REDIS_CONSUMER_CONFIG", str(path))
    settings = load_settings()
    assert (settings.interval, settings.scale_detect_enabled) == (2.5, True)


def test_missing_toml_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_CONSUMER_CONFIG", "nowhere.toml")
    with pytest.raises(SettingsError, match=r"REDIS_CONSUMER_CONFIG = 'nowhere\.toml'"):
        load_settings()


def test_slip_of_the_pen_in_the_toml_file() -> None:
    Path("redis-consumer.toml").write_text('redis_hosst = "r"\n')
    with pytest.raises(SettingsError, match="did you mean REDIS_HOST"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("redis-consumer.toml", b"QUEUE = \n"),
        ("redis-consumer.toml", b'QUEUE = "\xff"\n'),
        ("settings.ini", b"QUEUE=1\n"),
        ("settings.ini", b"[settings]\nQUEUE=%(nothing)s\n"),
        (".env", b"QUEUE=\xff\n"),
    ],
)
def test_file_that_cannot_be_read_is_named(name: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    with pytest.raises(SettingsError, match=name):
        load_settings()


def test_one_message_names_all_wrong_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PORT", "99999")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nowhere")
    Path(".env").write_text("MAX_SCALE=big\n")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).splitlines() == [
        "3 settings are wrong:",
        "  REDIS_PORT = '99999' (environment): must be a whole number from 1 to 65535",
        "  AWS_ENDPOINT_URL = 'nowhere' (environment): must be a URL that starts with http:// or https:// and holds no "
        "password",
        "  MAX_SCALE = 'big' (.env file): must be a number above 0",
    ]


def test_scales_at_odds_are_named_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIN_SCALE", "3")
    monkeypatch.setenv("MAX_SCALE", "2")
    with pytest.raises(SettingsError, match=r"MIN_SCALE = '3' \(environment\): 3 is above MAX_SCALE, which is 2; let"):
        load_settings()


def test_scale_that_follows_may_be_at_odds_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_SCALE", "0.5")
    with pytest.raises(SettingsError, match=r"MIN_SCALE = '' \(default\): 2 is above MAX_SCALE, which is 0\.5"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("AWS_ENDPOINT_URL", "http://user:geheim@minio:9000"),
        ("AWS_ENDPOINT_URL", "user:geheim@minio:9000"),
        ("STORAGE_BUCKET", "s3://user:geheim@bucket"),
        ("MODEL_SERVER", "tfs://user:ge/heim@host:8500"),
    ],
)
def test_password_in_a_url_is_refused_and_not_shown(name: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, url)
    with pytest.raises(SettingsError, match=rf"{name} = '.*\*@.* password") as caught:
        load_settings()
    assert "heim" not in str(caught.value)


def test_wrong_secret_is_not_shown() -> None:
    Path("redis-consumer.toml").write_text("redis_password = [12345]\n")
    with pytest.raises(SettingsError, match="REDIS_PASSWORD") as caught:
        load_settings()
    assert "12345" not in str(caught.value)


def test_lower_case_variable_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("queue", "of a shell script")
    monkeypatch.setenv("QUEUE", "ours")
    assert load_settings().queue == "ours"
