"""`redis-consumer sweep` returns the jobs of dead workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from redis_consumer.cli.app import app
from redis_consumer.queue import JobQueue, upkeep
from redis_consumer.redis import RedisClient
from support.queues import claimed, submit
from support.redis_server import RedisServer


@pytest.fixture
def queue(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "predict", "pod-1")


@pytest.fixture
def sweep(redis_server: RedisServer, redis_db: Any, tmp_path: Path) -> Any:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["sweep", "--redis", f"127.0.0.1:{redis_server.port}", *arguments])

    return run


def strand(db: Any, queue: JobQueue, name: str = "a") -> str:
    """Claim a job with a lease that has run out."""
    job_id = submit(db, name, queue.name)
    claimed(queue)
    db.zadd(queue.key("leases"), {job_id: 1})
    return job_id


def test_job_whose_lease_ran_out_comes_back(sweep: Any, queue: JobQueue, redis_db: Any) -> None:
    job_id = strand(redis_db, queue)
    result = sweep()
    assert (result.exit_code, result.stdout) == (0, f"{job_id}\n")
    assert "1 job returned" in result.stderr
    assert claimed(queue).attempt == 2


def test_all_queues_are_swept(sweep: Any, redis_client: RedisClient, redis_db: Any) -> None:
    names = ("predict", "predict-zip")
    job_ids = [strand(redis_db, JobQueue(redis_client, name, "pod-1")) for name in names]
    assert json.loads(sweep("--json").stdout) == [
        {"job": job_id, "queue": name} for job_id, name in zip(job_ids, names, strict=True)
    ]


def test_sweep_of_a_worker_just_before_does_not_matter(sweep: Any, queue: JobQueue, redis_db: Any) -> None:
    upkeep.sweep(queue, every_s=60)
    job_id = strand(redis_db, queue)
    assert sweep().stdout == f"{job_id}\n"


def test_more_jobs_than_one_sweep_takes(sweep: Any, queue: JobQueue, redis_db: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("redis_consumer.queue.upkeep.SWEEP_LIMIT", 2)
    job_ids = {strand(redis_db, queue, name) for name in "abcde"}
    assert set(sweep().stdout.split()) == job_ids


def test_running_job_stays(sweep: Any, queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db)
    claimed(queue)
    result = sweep()
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No jobs to return" in result.stderr


def test_entry_without_lease_is_noted_then_returned(sweep: Any, queue: JobQueue, redis_db: Any) -> None:
    upkeep.register(queue)
    job_id = submit(redis_db)
    redis_db.lmove("predict", queue.processing, "RIGHT", "LEFT")
    first = sweep()
    assert first.stdout == ""
    assert "1 job without a lease; sweep again in 5 s" in first.stderr
    name = f"{queue.processing} {job_id}"
    seen_ms = int(redis_db.hget(queue.key("orphans"), name))
    redis_db.hset(queue.key("orphans"), name, seen_ms - round(1000 * upkeep.ORPHAN_S))
    second = sweep()
    assert second.stdout == f"{job_id}\n"
    assert "noted" not in second.stderr
