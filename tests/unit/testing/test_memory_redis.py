"""The queue does in memory what it does in a real Redis."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest
from fakeredis import FakeRedis, FakeServer

from redis_consumer.errors import JobCancelled, LeaseLost, SettingsError
from redis_consumer.queue import JobQueue, admin, upkeep
from redis_consumer.queue.child_jobs import ChildJobs
from redis_consumer.redis import RedisClient
from redis_consumer.testing.memory_redis import MemoryRedis


def story(redis: Any, name: str = "caf\udce9.zip") -> list[object]:
    """All that a job and its child can live through; what was seen of it."""
    queue, children = JobQueue(redis, "zip", "pod-1"), JobQueue(redis, "predict", "pod-1")
    seen: list[object] = [upkeep.register(queue), queue.claim()]
    redis.hset("zip:ä.zip:1", mapping={"status": "new", "original_name": name})
    redis.lpush("zip", "zip:ä.zip:1")
    job = queue.claim()
    assert job is not None
    seen += [job.id, job.get("original_name"), job.attempt]
    queue.give_back(job, is_next=True)
    job = queue.claim()
    assert job is not None
    queue.update(job, {"status": "started"})
    child_jobs = ChildJobs(queue, job)
    child_jobs.write_children([("predict:a:1", {"status": "new"}), ("predict:b:1", {"status": "new"})])
    child_jobs.fan_out("gather", {})
    for end in ("done", "failed"):
        child = children.claim()
        assert child is not None
        children.update(child, {"progress": 50})
        seen.append(redis.hget(job.id, "progress"))
        children.complete(child, {"status": end}, is_success=end == "done")
    job = queue.claim()
    assert job is not None
    seen += [(child.id, child.status) for child in ChildJobs(queue, job).children()]
    seen.append(admin.cancel(queue, job.id))
    with pytest.raises(JobCancelled):
        queue.complete(job, {"status": "done"}, is_success=True)
    queue.complete(job, {"status": "failed"}, is_dead=True)
    with pytest.raises(LeaseLost):
        queue.update(job, {"status": "started"})
    seen.append(upkeep.sweep(queue))
    seen += [
        admin.dead_letters(queue),
        admin.retry(queue, job.id),
        queue.has_work(["zip"]),
        sorted(redis.hkeys(job.id)),
    ]
    return seen


def test_it_tells_the_same_story_as_a_real_one(redis_client: RedisClient) -> None:
    assert story(MemoryRedis()) == story(redis_client)


def test_a_plain_fakeredis_runs_the_scripts_too(redis_client: RedisClient) -> None:
    """Tests of older consumers hand one to their consumer."""
    plain = FakeRedis(server=FakeServer(), decode_responses=True)
    assert story(plain, "a.zip") == story(redis_client, "a.zip")


def test_commands_are_told_but_not_those_of_the_listener() -> None:
    redis = MemoryRedis()
    told: list[object] = []
    redis.on_command = lambda: told.append(redis.get("a"))
    redis.set("a", "1")
    redis.batch(("SET", "a", "2"), ("GET", "a"))
    assert told == ["1", "2", "2"]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fakeredis", None)
    with pytest.raises(SettingsError, match=r"pip install 'kiosk-redis-consumer\[testing\]'"):
        MemoryRedis().get("a")


def test_nothing_is_left_of_it_once_it_is_dropped() -> None:
    def servers() -> int:
        gc.collect()
        return sum(isinstance(each, FakeServer) for each in gc.get_objects())

    before = servers()
    MemoryRedis().hset("predict:a.tif:1", "status", "new")
    assert servers() == before
