"""The clock of Redis is set while workers live and die: deadlines are written as such a clock leaves them."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from redis_consumer.cli.app import app
from redis_consumer.job import Job
from redis_consumer.options import QueueOptions
from redis_consumer.queue import JobQueue, upkeep
from redis_consumer.redis import RedisClient
from support.queues import claimed, submit
from support.redis_server import RedisServer
from support.worker import JOB, running_worker, status_is, variables, wait_for

LEASE_S = 2.0
HOUR_MS = 3_600_000
LEASES, WORKERS = "redis-consumer:leases:predict", "redis-consumer:workers:predict"


def seen_by(client: RedisClient, worker: str, lease_s: float = LEASE_S) -> JobQueue:
    return JobQueue(client, "predict", worker, QueueOptions(lease_s=lease_s))


@pytest.fixture
def queue(redis_client: RedisClient) -> JobQueue:
    return seen_by(redis_client, "pod-1")


@pytest.fixture
def other(redis_client: RedisClient) -> JobQueue:
    return seen_by(redis_client, "pod-2")


@pytest.fixture
def job(queue: JobQueue, redis_db: Any) -> Job:
    """A job that runs."""
    upkeep.register(queue)
    submit(redis_db)
    return claimed(queue)


def set_clock(db: Any, by_ms: int) -> None:
    """Set what was written so far as far into the past as the clock is set forward, or into the future."""
    for key in (LEASES, WORKERS, "redis-consumer:waiting:predict"):
        for name, score in db.zrange(key, 0, -1, withscores=True):
            db.zadd(key, {name: score - by_ms})
    swept = db.get("redis-consumer:swept:predict")
    if swept:
        db.set("redis-consumer:swept:predict", int(swept) - by_ms)
    for name, since in db.hgetall("redis-consumer:orphans:predict").items():
        db.hset("redis-consumer:orphans:predict", name, int(since.partition(" ")[0]) - by_ms)


@pytest.mark.parametrize("by_ms", [-HOUR_MS, HOUR_MS, -2_000])
def test_a_dead_workers_job_comes_back_soon(other: JobQueue, redis_db: Any, job: Job, by_ms: int) -> None:
    upkeep.sweep(other, every_s=0.001)
    set_clock(redis_db, by_ms)
    assert wait_for(lambda: upkeep.sweep(other, every_s=0.001), "the job") == [job.id]


@pytest.mark.parametrize("by_ms", [-HOUR_MS, HOUR_MS, 1_000])
def test_a_living_worker_keeps_its_job(queue: JobQueue, other: JobQueue, redis_db: Any, job: Job, by_ms: int) -> None:
    upkeep.sweep(other, every_s=0.001)
    set_clock(redis_db, by_ms)
    renew_at = time.monotonic() + LEASE_S / 4
    renewals = 0
    while renewals < 5:
        if time.monotonic() > renew_at:
            assert queue.renew([job]) == []
            renewals += 1
            renew_at = time.monotonic() + LEASE_S / 4
        assert upkeep.sweep(other, every_s=0.001) == []
        time.sleep(0.01)
    queue.complete(job, {"status": "done"})
    assert redis_db.hget(job.id, "status") == "done"


def test_a_lease_of_another_length_is_no_lease_of_another_time(
    redis_client: RedisClient, other: JobQueue, redis_db: Any
) -> None:
    patient = seen_by(redis_client, "pod-3", lease_s=600)
    upkeep.register(patient)
    submit(redis_db)
    claimed(patient)
    end = time.monotonic() + 2 * other.doubt_s
    while time.monotonic() < end:
        assert upkeep.sweep(other, every_s=0.001) == []
        time.sleep(0.01)
    assert not other.has_doubts
    assert redis_db.zscore(WORKERS, "pod-3")


def test_a_worker_that_had_stopped_before_the_last_sweep_gets_no_more_time(
    other: JobQueue, redis_db: Any, job: Job
) -> None:
    redis_db.zadd(LEASES, {job.id: 1 + 1000 * LEASE_S / 2})
    redis_db.set("redis-consumer:swept:predict", 1)
    assert upkeep.sweep(other, every_s=0.001) == [job.id]


def test_a_dead_workers_name_is_free_soon(queue: JobQueue, redis_client: RedisClient, redis_db: Any) -> None:
    upkeep.register(queue)
    set_clock(redis_db, -HOUR_MS)
    successor = seen_by(redis_client, "pod-1")
    assert 0 < upkeep.register(successor) <= LEASE_S
    wait_for(lambda: upkeep.register(successor) == 0, "the name")


def test_a_living_workers_name_stays_its_own(queue: JobQueue, redis_client: RedisClient, redis_db: Any) -> None:
    upkeep.register(queue)
    set_clock(redis_db, -HOUR_MS)
    successor = seen_by(redis_client, "pod-1")
    end = time.monotonic() + 2 * successor.doubt_s
    while time.monotonic() < end:
        queue.renew()
        assert upkeep.register(successor) > 0
        time.sleep(0.01)


def test_a_dead_worker_is_counted_no_longer(queue: JobQueue, other: JobQueue, redis_db: Any) -> None:
    upkeep.register(queue)
    set_clock(redis_db, -HOUR_MS)

    def is_gone() -> bool:
        upkeep.sweep(other, every_s=0.001)
        return not redis_db.zscore(WORKERS, "pod-1")

    wait_for(is_gone, "the end of the registration")


def test_a_sweep_from_before_holds_nobody_up(queue: JobQueue, other: JobQueue, redis_db: Any, job: Job) -> None:
    upkeep.sweep(other, every_s=1)
    redis_db.pexpire("redis-consumer:sweep:predict", HOUR_MS)
    redis_db.zadd(LEASES, {job.id: 1})
    assert upkeep.sweep(other, every_s=1) == [job.id]


def test_an_entry_without_a_lease_comes_back_soon(
    queue: JobQueue, other: JobQueue, redis_db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis_consumer.queue.upkeep.ORPHAN_S", 0.1)
    upkeep.register(queue)
    job_id = submit(redis_db)
    redis_db.lmove("predict", queue.processing, "RIGHT", "LEFT")
    upkeep.sweep(other, every_s=0.001)
    set_clock(redis_db, -HOUR_MS)
    assert wait_for(lambda: upkeep.sweep(other, every_s=0.001), "the job") == [job_id]


def test_parents_that_wait_are_looked_at_in_turn(other: JobQueue, redis_db: Any) -> None:
    redis_db.zadd("redis-consumer:waiting:predict", {"predict:parent:1": 9e15})
    redis_db.hset("redis-consumer:family:predict:parent:1", "state", "waiting")
    upkeep.sweep(other, every_s=0.001)
    score = redis_db.zscore("redis-consumer:waiting:predict", "predict:parent:1")
    assert score is None or score < 9e15


def test_the_command_waits_for_living_workers(redis_server: RedisServer, redis_db: Any, job: Job) -> None:
    redis_db.set("redis-consumer:swept:predict", 1)
    redis_db.zadd(LEASES, {job.id: 1 + 1000 * LEASE_S})
    result = CliRunner().invoke(app, ["sweep", "--redis", f"127.0.0.1:{redis_server.port}"])
    assert (result.exit_code, result.stdout) == (0, f"{job.id}\n")
    assert "to renew their leases" in result.stderr


@pytest.mark.parametrize("is_same_name", [True, False])
def test_another_worker_runs_the_job_of_a_dead_one(
    redis_server: RedisServer, redis_db: Any, tmp_path: Path, is_same_name: bool
) -> None:
    settings = {"LEASE_TIMEOUT": "1.5", "RENEW_INTERVAL": "0.3", "SWEEP_INTERVAL": "0.3"}
    with running_worker(tmp_path, variables(redis_server, tmp_path, **settings)) as first:
        submit(redis_db, seconds="600")
        wait_for(status_is(redis_db, "started"), "the job's start", tmp_path)
        redis_db.hset(JOB, "seconds", "0")
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    set_clock(redis_db, -HOUR_MS)
    name = "pod-1" if is_same_name else "pod-2"
    with running_worker(tmp_path, variables(redis_server, tmp_path, HOSTNAME=name, **settings)):
        wait_for(status_is(redis_db, "done"), "the job's second run", tmp_path)
