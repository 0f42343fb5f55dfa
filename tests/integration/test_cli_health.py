"""`redis-consumer health` reports the result of the probes as an exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from redis_consumer.cli.app import app
from support.redis_server import RedisServer, free_port
from support.worker import running_worker, variables, wait_for


def ask(monkeypatch: pytest.MonkeyPatch, address: str, *words: str) -> Result:
    monkeypatch.setenv("HEALTH_ADDRESS", address)
    return CliRunner().invoke(app, ["health", *words])


def test_a_worker_that_takes_jobs(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"0.0.0.0:{free_port()}"
    with running_worker(tmp_path, variables(redis_server, tmp_path, HEALTH_ADDRESS=address)):
        wait_for(lambda: ask(monkeypatch, address, "--ready").exit_code == 0, "a ready worker", tmp_path)
        result = ask(monkeypatch, address)
    assert result.exit_code == 0
    assert json.loads(result.stdout)["ready"] is True


def test_a_worker_without_redis_lives_but_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    with running_worker(tmp_path, variables(RedisServer(tmp_path), tmp_path, HEALTH_ADDRESS=address)):
        wait_for(lambda: ask(monkeypatch, address).exit_code == 0, "the worker", tmp_path)
        result = ask(monkeypatch, address, "--ready")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["redis"] is False


def test_no_worker_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    result = ask(monkeypatch, f"127.0.0.1:{free_port()}")
    assert result.exit_code == 1
    assert "no worker responds there" in result.stderr


def test_without_an_address_it_says_which_setting_is_missing() -> None:
    result = CliRunner().invoke(app, ["health"])
    assert result.exit_code == 2
    assert "HEALTH_ADDRESS is empty" in result.stderr
