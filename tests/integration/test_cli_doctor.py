"""The doctor finds problems and says what to do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from support.cli import CommandLine
from support.redis_server import RedisServer, free_port


@pytest.fixture
def cli(tmp_path: Path, redis_server: RedisServer, redis_db: redis.Redis) -> CommandLine:
    return CommandLine.make(tmp_path, redis_server.port)


@pytest.fixture
def doctor(cli: CommandLine) -> Any:
    def run(*arguments: str, **settings: str) -> tuple[int, dict[str, dict[str, str]]]:
        changed = replace(cli, settings={**cli.settings, "NUCLEAR_MODEL": "NuclearSegmentation:1", **settings})
        result = changed.run("doctor", "--json", *arguments)
        assert "Traceback" not in result.stderr
        return result.returncode, {finding["name"]: finding for finding in json.loads(result.stdout)}

    return run


def test_all_is_well(doctor: Any) -> None:
    code, findings = doctor(CONSUMER_TYPE="image")
    assert code == 0
    assert findings["redis"]["text"].startswith("Redis at 127.0.0.1:")
    assert findings["NUCLEAR_MODEL NuclearSegmentation:1"]["outcome"] == "ok"


def test_redis_that_forgets_is_a_warning(doctor: Any) -> None:
    _, findings = doctor()
    assert findings["redis persistence"]["outcome"] == "warning"
    assert "appendonly yes" in findings["redis persistence"]["text"]


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"], "its memory is full"),
        (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"], "it is a replica"),
    ],
)
def test_a_redis_that_refuses_writes(doctor: Any, redis_db: Any, begin: list[str], end: list[str], said: str) -> None:
    redis_db.config_set("maxmemory-policy", "noeviction")
    redis_db.execute_command(*begin)
    try:
        code, findings = doctor()
    finally:
        redis_db.execute_command(*end)
    assert code != 0
    assert findings["redis"]["outcome"] == "ok"
    assert findings["redis writes"]["outcome"] == "unavailable"
    assert said in findings["redis writes"]["text"]


def test_absent_redis(doctor: Any) -> None:
    code, findings = doctor("--redis", f"127.0.0.1:{free_port()}")
    assert code == 3
    assert findings["redis"]["outcome"] == "unavailable"
    assert findings["bucket"]["outcome"] == "ok"


def test_absent_model(doctor: Any) -> None:
    code, findings = doctor(NUCLEAR_MODEL="Unheard:7", CONSUMER_TYPE="image")
    assert code == 1
    assert findings["NUCLEAR_MODEL Unheard:7"]["outcome"] == "failed"


def test_a_class_that_asks_no_model_needs_none(doctor: Any) -> None:
    code, findings = doctor(NUCLEAR_MODEL="Unheard:7")
    assert code == 0
    assert "NUCLEAR_MODEL Unheard:7" not in findings


def test_absent_model_server(doctor: Any) -> None:
    code, findings = doctor("--model-server", f"tfs://127.0.0.1:{free_port()}")
    assert code == 3
    assert findings["model server"]["outcome"] == "unavailable"


def test_unknown_consumer(doctor: Any) -> None:
    code, findings = doctor(CONSUMER_TYPE="teapot")
    assert code == 1
    assert "teapot" in findings["consumer"]["text"]


def test_writing_is_tried_only_when_asked_for(doctor: Any, tmp_path: Path) -> None:
    doctor()
    assert not any((tmp_path / "bucket").rglob("*.txt"))
    code, findings = doctor("--write")
    assert code == 0
    assert findings["bucket, writing"]["outcome"] == "ok"


def test_lines_to_read(cli: CommandLine) -> None:
    lines = cli.run("doctor").stdout.splitlines()
    assert lines[0].startswith("✓ settings: ")
    assert any(line.startswith("! redis persistence: ") for line in lines)
