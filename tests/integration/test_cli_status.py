"""Does `redis-consumer status` say how jobs and queues are?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner, Result

from redis_consumer.cli.app import app
from support.redis_server import RedisServer

JOB = "predict:cells.tif:0"


@pytest.fixture
def status(redis_server: RedisServer, redis_db: redis.Redis, tmp_path: Path) -> Any:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["status", "--redis", f"127.0.0.1:{redis_server.port}", *arguments])

    return run


def test_job_in_full(status: Any, redis_db: redis.Redis) -> None:
    fields: Any = {"status": "predicting", "progress": "40", "created_at": "2020-02-27T17:44:01.123Z", "url": "[b]x"}
    redis_db.hset(JOB, mapping=fields)
    result = status(JOB)
    assert result.exit_code == 0
    assert "predicting (40 %), submitted" in result.stdout
    assert "[b]x" in result.stdout


def test_job_as_data(status: Any, redis_db: redis.Redis) -> None:
    redis_db.hset(JOB, mapping={"status": "done"})
    assert json.loads(status(JOB, "--json").stdout) == {"job": JOB, "age_s": None, "status": "done"}


def test_failed_job(status: Any, redis_db: redis.Redis) -> None:
    redis_db.hset(JOB, mapping={"status": "failed", "reason": "InvalidImage: a.tif: empty"})
    result = status(JOB)
    assert result.exit_code == 1
    assert "failed: InvalidImage: a.tif: empty" in result.stdout


def test_unknown_job(status: Any) -> None:
    result = status(JOB)
    assert result.exit_code == 1
    assert "no such job" in result.stderr


def test_key_that_is_no_job(status: Any, redis_db: redis.Redis) -> None:
    redis_db.lpush("predict", "x")
    result = status("predict")
    assert result.exit_code == 1
    assert "holds a list" in result.stderr


def test_queues(status: Any, redis_db: redis.Redis) -> None:
    redis_db.hset(JOB, mapping={"status": "new"})
    redis_db.hset("predict:b:1", mapping={"status": "predicting"})
    redis_db.lpush("predict", JOB)
    redis_db.lpush("processing-predict:pod-1", "predict:b:1")
    shown = json.loads(status("--json").stdout)
    assert shown["queues"] == [
        {"queue": "predict", "waiting": 1, "processing": 1, "workers": ["pod-1"]},
        {"queue": "predict-zip", "waiting": 0, "processing": 0, "workers": []},
    ]
    assert [(job["job_id"], job["status"]) for job in shown["jobs"]] == [("predict:b:1", "predicting"), (JOB, "new")]


def test_queues_as_a_table(status: Any, redis_db: redis.Redis) -> None:
    redis_db.lpush("track", "track:gone:1")
    result = status("--queue", "Track")
    assert result.exit_code == 0
    assert "track-zip" in result.stdout
    assert "track:gone:1" in result.stdout
