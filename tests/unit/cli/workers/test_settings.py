"""Does `redis-consumer settings` show values, sources and no secrets?"""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from redis_consumer.cli.app import app


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
