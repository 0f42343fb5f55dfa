"""`redis-consumer consumers` shows consumers and their options, and a worker with a wrong option doesn't start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from redis_consumer.cli.app import app
from support.redis_server import RedisServer
from support.worker import environment

COUNTER = '''
from typing import Annotated

from pydantic import Field
from redis_consumer.consumers import ConsumerOptions, ImageFileConsumer, per_job


class Counter(ImageFileConsumer):
    """Counts nuclei."""

    class Options(ConsumerOptions):
        min_size: Annotated[int, per_job] = Field(default=10, ge=0, description="Pixels of the smallest nucleus")
        threshold: Annotated[float, per_job] = Field(description="Above it is a nucleus")
        program: str = Field(default="cellfinder", description="Program that is run")
'''


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shown_counter.py").write_text(COUNTER)
    monkeypatch.delitem(sys.modules, "shown_counter", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_all_consumers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUMER_TYPE", "shown_counter:Counte")
    output = invoke("consumers").stdout
    assert "image" in output
    assert "✗ shown_counter:Counte can't be imported" in output
    rows = {row["name"]: row for row in json.loads(invoke("consumers", "--json").stdout)}
    assert rows["zip"]["origin"] == "built in"
    assert rows["shown_counter:Counte"]["error"].endswith("did you mean Counter?")


def test_one_consumer() -> None:
    output = invoke("consumers", "shown_counter:Counter").stdout
    assert "Counts nuclei." in output
    assert "int, at least 0" in output
    assert "must be given" in output
    shown = json.loads(invoke("consumers", "shown_counter:Counter", "--json").stdout)
    assert [(option["variable"], option["field"]) for option in shown["options"]] == [
        ("MIN_SIZE", "min_size"),
        ("THRESHOLD", "threshold"),
        ("PROGRAM", None),
    ]
    row = next(line for line in output.splitlines() if line.startswith("PROGRAM"))
    assert row.split()[1:3] == ["operator", "only"]
    assert "no options" in invoke("consumers", "zip").stdout


def test_one_that_is_not_there() -> None:
    result = invoke("consumers", "imge")
    assert result.exit_code == 2
    assert "did you mean image?" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--consumer", "shown_counter:Counter"], ["--consumer=shown_counter:Counter"], []]
)
def test_the_help_of_run_shows_the_options(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    if not arguments:
        monkeypatch.setenv("CONSUMER_TYPE", "shown_counter:Counter")
    output = invoke("run", *arguments, "--help").stdout
    assert "Exit codes" in output
    assert "Pixels of the smallest nucleus" in output


def test_the_help_of_run_says_why_it_shows_none() -> None:
    assert "Options" not in invoke("run", "--help").stdout.replace("Options ─", "")
    assert "has no options" in invoke("run", "-c", "zip", "--help").stdout
    assert "No module named" in invoke("run", "-c", "not_there:X", "--help").stderr


def test_doctor_looks_at_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSUMER_TYPE", "shown_counter:Counter")
    monkeypatch.setenv("MIN_SIZE", "few")
    monkeypatch.setenv("STORAGE_BUCKET", "memory://")
    monkeypatch.setenv("MODEL_SERVER", "onnx://")
    findings = json.loads(invoke("doctor", "--json", "--redis", "127.0.0.1:1").stdout)
    (consumer,) = [finding for finding in findings if finding["name"] == "consumer"]
    assert consumer["outcome"] == "failed"
    assert consumer["text"].startswith("MIN_SIZE = 'few' (environment): must be a valid integer")


def test_a_wrong_variable_refuses_the_start(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = environment(redis_server, "memory://", CONSUMER_TYPE="shown_counter:Counter", MIN_SIZE="few")
    command = [sys.executable, "-m", "redis_consumer", "run"]
    ended = subprocess.run(
        command, env=variables, cwd=os.getcwd(), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert "MIN_SIZE = 'few' (environment): must be a valid integer" in ended.stderr
