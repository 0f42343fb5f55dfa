"""`redis-consumer cancel` ends waiting jobs and stops running ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from redis_consumer.cli.app import app
from redis_consumer.errors import JobCancelled
from redis_consumer.queue import JobQueue
from redis_consumer.redis import RedisClient
from support.queues import claimed, submit
from support.redis_server import RedisServer


@pytest.fixture
def queue(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "predict", "pod-1")


@pytest.fixture
def cancel(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> Any:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["cancel", "--redis", f"127.0.0.1:{redis_server.port}", *arguments])

    return run


def test_waiting_job_is_taken_out(cancel: Any, queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    result = cancel(job_id)
    assert (result.exit_code, result.stdout) == (0, f"{job_id}: cancelled; it was not running\n")
    assert queue.claim() is None
    assert redis_db.hget(job_id, "status") == "failed"
    assert "JobCancelled" in redis_db.hget(job_id, "reason")
    assert redis_db.hget(job_id, "updated_by").startswith("command-line-")


def test_running_job_stops_at_its_next_step(cancel: Any, queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db)
    job = claimed(queue)
    result = cancel(job.id)
    assert result.exit_code == 0
    assert "stops it at the next step" in result.stdout
    with pytest.raises(JobCancelled):
        queue.update(job, {"progress": 50})


@pytest.mark.parametrize("status", ["done", "failed"])
def test_job_that_has_ended(cancel: Any, redis_db: Any, status: str) -> None:
    job_id = submit(redis_db, status=status)
    result = cancel(job_id)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "has already ended" in result.stderr
    assert redis_db.hget(job_id, "status") == status


def test_unknown_job(cancel: Any, redis_db: Any) -> None:
    result = cancel("predict:a.tif:1")
    assert result.exit_code == 1
    assert "no such job" in result.stderr
    assert not redis_db.exists("predict:a.tif:1")


def test_key_that_is_no_job(cancel: Any, redis_db: Any) -> None:
    redis_db.lpush("predict:list", "x")
    result = cancel("predict:list")
    assert result.exit_code == 1
    assert "does not hold a job" in result.stderr


def test_several_jobs_as_data(cancel: Any, redis_db: Any) -> None:
    job_id = submit(redis_db, queue="track")
    result = cancel("--json", job_id, "predict:gone.tif:1", job_id)
    assert result.exit_code == 1
    assert json.loads(result.stdout) == [
        {"job": job_id, "queue": "track", "outcome": "cancelled"},
        {"job": "predict:gone.tif:1", "queue": "predict", "outcome": "gone"},
    ]


def test_queue_that_the_key_does_not_name(cancel: Any, redis_db: Any) -> None:
    redis_db.hset("odd", "status", "new")
    redis_db.lpush("predict", "odd")
    assert cancel("odd").exit_code == 2
    assert cancel("odd", "--queue", "Predict").exit_code == 0
    assert not redis_db.exists("predict")
