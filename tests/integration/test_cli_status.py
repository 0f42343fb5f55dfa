"""`redis-consumer status` shows the state of jobs and queues."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner, Result

from redis_consumer.cli.app import app
from redis_consumer.queue import JobQueue, upkeep
from redis_consumer.redis import RedisClient
from support.queues import claimed, submit
from support.redis_server import RedisServer

JOB = "predict:cells.tif:0"


@pytest.fixture
def queue(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "predict", "pod-1")


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
    assert json.loads(status(JOB, "--json").stdout) == {
        "job": JOB,
        "age_s": None,
        "position": None,
        "time_left_s": None,
        "attempt": None,
        "status": "done",
    }


def test_place_of_a_waiting_job_without_a_worker(status: Any, redis_db: redis.Redis) -> None:
    job_ids = [submit(redis_db, name) for name in "abc"]
    result = status(job_ids[1])
    assert result.exit_code == 0
    assert "2 of 3 in queue predict" in result.stdout
    assert "unknown: no worker serves queue predict" in result.stdout


def test_time_left_at_the_rate_of_the_queue(status: Any, queue: JobQueue, redis_db: redis.Redis) -> None:
    upkeep.register(queue)
    for number in range(3):
        submit(redis_db, str(number))
        queue.complete(claimed(queue), {"status": "done"}, is_success=True)
    found = json.loads(status(submit(redis_db), "--json").stdout)
    assert found["position"] == 1
    assert 10 < found["time_left_s"] < 60


def test_time_left_is_unknown_where_nothing_is_completed(status: Any, queue: JobQueue, redis_db: redis.Redis) -> None:
    upkeep.register(queue)
    assert "unknown: no job was completed in the last ten minutes" in status(submit(redis_db)).stdout


def test_running_job_with_its_attempt(status: Any, queue: JobQueue, redis_db: redis.Redis) -> None:
    job_id = submit(redis_db)
    claimed(queue)
    text = status(job_id).stdout
    assert "claimed by a worker" in text
    assert "attempt 1 on pod-1" in text
    found = json.loads(status(job_id, "--json").stdout)
    assert (found["position"], found["attempt"]) == (None, 1)


def test_new_job_that_is_in_another_queue(status: Any, redis_db: redis.Redis) -> None:
    job_id = submit(redis_db)
    redis_db.rename("predict", "other")
    assert "not in queue predict; if it waits in another queue" in status(job_id).stdout
    assert "1 of 1 in queue other" in status(job_id, "--queue", "Other").stdout


def test_job_whose_key_names_no_queue(status: Any, redis_db: redis.Redis) -> None:
    redis_db.hset("odd", "status", "new")
    assert json.loads(status("odd", "--json").stdout)["position"] is None


def test_keys_of_strangers_cannot_steer_the_terminal(status: Any, redis_db: redis.Redis) -> None:
    redis_db.hset(JOB, mapping={"status": "done", "original_name": "\x1b[2J"})
    assert "?[2J" in status(JOB).stdout


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
    # One that is alive and has no job, and one that is dead.
    redis_db.zadd("redis-consumer:workers:predict", {"pod-2": time.time() * 1000 + 60_000, "pod-3": 1})
    shown = json.loads(status("--json").stdout)
    assert shown["queues"] == [
        {"queue": "predict", "waiting": 1, "processing": 1, "workers": 1, "holders": ["pod-1"]},
        {"queue": "predict-zip", "waiting": 0, "processing": 0, "workers": 0, "holders": []},
    ]
    assert [(job["job_id"], job["status"]) for job in shown["jobs"]] == [("predict:b:1", "predicting"), (JOB, "new")]


def test_queues_as_a_table(status: Any, redis_db: redis.Redis) -> None:
    redis_db.lpush("track", "track:gone:1")
    result = status("--queue", "Track")
    assert result.exit_code == 0
    assert "track-zip" in result.stdout
    assert "track:gone:1" in result.stdout
