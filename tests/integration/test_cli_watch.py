"""Jobs are watched with few commands until all are final."""

from __future__ import annotations

import pytest
import redis

from redis_consumer.client.watch import MAX_PAUSE_S, read_states, watch
from redis_consumer.redis import RedisClient


def test_many_jobs_by_few_commands(redis_client: RedisClient, redis_db: redis.Redis) -> None:
    job_ids = [f"predict:{number}" for number in range(1200)]
    for job_id in job_ids:
        redis_db.hset(job_id, "status", "new")
    before = redis_db.info("commandstats").get("cmdstat_eval", {"calls": 0})["calls"]
    assert [state.job_id for state in read_states(redis_client, job_ids)] == job_ids
    assert redis_db.info("commandstats")["cmdstat_eval"]["calls"] - before == 3


def test_changes_are_told_once(redis_client: RedisClient, redis_db: redis.Redis) -> None:
    redis_db.hset("predict:a", "status", "new")
    redis_db.hset("predict:b", "status", "done")
    steps = iter(["new", "started", "started", "done"])

    def sleep(_: float) -> None:
        redis_db.hset("predict:a", "status", next(steps))

    told = [(state.job_id, state.status) for state in watch(redis_client, ["predict:a", "predict:b"], sleep=sleep)]
    assert told == [("predict:a", "new"), ("predict:b", "done"), ("predict:a", "started"), ("predict:a", "done")]


def test_pauses_grow_while_nothing_happens(redis_client: RedisClient, redis_db: redis.Redis) -> None:
    redis_db.hset("predict:a", "status", "new")
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 12:
            redis_db.hset("predict:a", "status", "failed")

    list(watch(redis_client, ["predict:a"], sleep=sleep))
    assert pauses[0] == pytest.approx(0.05)
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_PAUSE_S


def test_no_jobs_are_all_final(redis_client: RedisClient) -> None:
    assert list(watch(redis_client, [])) == []


def test_time_that_is_up_ends_the_watch(redis_client: RedisClient, redis_db: redis.Redis) -> None:
    redis_db.hset("predict:a", "status", "new")
    states = list(watch(redis_client, ["predict:a"], timeout_s=1e-9))
    assert [state.status for state in states] == ["new"]
