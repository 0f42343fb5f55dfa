"""`redis-consumer settings` shows values and sources, and no secrets."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from redis_consumer.cli.app import app
from redis_consumer.settings import Settings


def test_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE", "track")
    shown = {row["name"]: row for row in json.loads(CliRunner().invoke(app, ["settings", "--json"]).stdout)}
    assert (shown["QUEUE"]["value"], shown["QUEUE"]["source"]) == ("track", "environment")
    assert (shown["REDIS_PORT"]["value"], shown["REDIS_PORT"]["source"]) == (6379, "default")


def test_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE", "[b]track")
    output = CliRunner().invoke(app, ["settings"]).stdout
    assert "[b]track" in output
    assert "MAX_IMAGE_HEIGHT" in output


@pytest.mark.parametrize("consumer", ["image", "zip", "tracking", "caliban", "format_converter:FormatConverter"])
def test_at_most_60_settings_are_shown(consumer: str) -> None:
    rows = json.loads(CliRunner().invoke(app, ["settings", "--consumer", consumer, "--json"]).stdout)
    assert 30 < len(rows) <= 60
    assert all(row["read_by"] for row in rows)


def test_the_consumer_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUMER_TYPE", "zip")
    output = CliRunner().invoke(app, ["settings"]).stdout
    assert "MAX_ARCHIVE_BYTES" in output
    assert "NUCLEAR_MODEL" not in output


def test_what_has_no_effect_is_shown_if_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_BUCKET", "file:///bucket")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    output = CliRunner().invoke(app, ["settings"]).stdout
    assert "AWS_REGION" in output
    assert "AWS_ENDPOINT_URL" not in output


def test_all_names_who_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = json.loads(CliRunner().invoke(app, ["settings", "--all", "--json"]).stdout)
    readers = {row["name"]: row["read_by"] for row in rows}
    assert set(readers) == {name.upper() for name in Settings.model_fields}
    assert readers["REDIS_PORT"] == ["all consumers"]
    assert readers["MAX_DISTANCE"] == ["tracking", "caliban"]
    assert readers["DP_HOST"] == []
    lines = CliRunner().invoke(app, ["settings", "--all"]).stdout.splitlines()
    assert any(re.match(r"DP_HOST .* nothing ", line) for line in lines)


def test_an_unknown_consumer_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(app, ["settings", "--consumer", "teapot", "--json"])
    assert len(json.loads(result.stdout)) == len(Settings.model_fields)
    assert 'Invalid `consumer_type`: "teapot"' in result.stderr


def test_only_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE", "track")
    rows = json.loads(CliRunner().invoke(app, ["settings", "--given", "--json"]).stdout)
    assert [row["name"] for row in rows] == ["QUEUE"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch, options: list[str]) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    result = CliRunner().invoke(app, ["settings", *options])
    assert result.exit_code == 0
    assert "geheim" not in result.output
