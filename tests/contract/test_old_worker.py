"""Workers of the old software on the same queue: they know no leases, and neither side does the other's work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redis_consumer.queue import JobQueue, upkeep
from redis_consumer.redis import RedisClient
from support.neighbours import Frontend, Janitor, OldWorker
from support.worker import is_idle, running_worker, status_is, wait_for

BODY = {"jobType": "predict", "imageName": "a.tif"}
Gated = Callable[..., dict[str, str]]


@pytest.fixture
def queue(redis_client: RedisClient) -> JobQueue:
    """The queue as a worker of ours sees it that shares its name with an old pod."""
    return JobQueue(redis_client, "predict", "pod-1")


@pytest.fixture
def old(redis_db: Any) -> OldWorker:
    return OldWorker(redis_db, "old-1")


def sweep_again(queue: JobQueue, db: Any) -> list[str]:
    """One that isn't held up by the last one's lock."""
    db.delete(queue.key("sweep"))
    return upkeep.sweep(queue)


def taken(old: OldWorker) -> str:
    key = old.take()
    assert key is not None
    return key


def test_both_share_the_work_of_one_queue(
    redis_db: Any, frontend: Frontend, gated: Gated, old: OldWorker, tmp_path: Path
) -> None:
    keys = [frontend.predict(BODY) for _ in range(20)]
    with running_worker(tmp_path, gated()):
        wait_for(status_is(redis_db, "started", keys[0]), "our first job", tmp_path)
        done_by_old = [taken(old)]
        for key in keys:
            redis_db.hset(key, "gate", "open")
        old.finish(done_by_old[0], output_url="by old-1")
        while (job := old.take()) is not None:
            done_by_old.append(job)
            old.finish(job, output_url="by old-1")
        wait_for(lambda: {redis_db.hget(key, "status") for key in keys} == {"done"}, "the end of all jobs", tmp_path)
    done_by_us = [run.split(" ", 2)[2] for run in redis_db.lrange("runs", 0, -1)]
    assert sorted(done_by_us + done_by_old) == sorted(keys)
    assert {redis_db.hget(key, "output_url") for key in done_by_old} == {"by old-1"}
    assert redis_db.keys("processing-*") == []


def test_an_old_worker_leaves_our_running_job_alone(
    redis_db: Any, frontend: Frontend, gated: Gated, old: OldWorker, tmp_path: Path
) -> None:
    with running_worker(tmp_path, gated()):
        key = frontend.predict(BODY)
        wait_for(status_is(redis_db, "started", key), "the job's start", tmp_path)
        assert old.take() is None
        assert redis_db.lrange("processing-predict:pod-1", 0, -1) == [key]


def test_a_job_that_an_old_worker_runs_is_left_alone(
    frontend: Frontend, old: OldWorker, queue: JobQueue, redis_db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes: whether its pod lives only the janitor knows."""
    monkeypatch.setattr("redis_consumer.queue.upkeep.ORPHAN_S", 0.0)
    frontend.predict(BODY)
    key = taken(old)
    upkeep.register(queue)
    assert [sweep_again(queue, redis_db) for _ in range(3)] == [[], [], []]
    assert queue.claim() is None
    assert redis_db.lrange(old.processing, 0, -1) == [key]


def test_a_job_that_an_old_worker_finished_is_not_done_again(
    frontend: Frontend, old: OldWorker, queue: JobQueue, redis_db: Any
) -> None:
    frontend.predict(BODY)
    key = taken(old)
    redis_db.lpush("predict", key)  # delivered twice
    old.finish(key, output_url="by old-1")
    ended = redis_db.hgetall(key)
    assert queue.claim() is None
    assert redis_db.hgetall(key) == ended
    assert redis_db.keys("processing-*") + redis_db.lrange("predict", 0, -1) == []


def test_a_job_that_an_old_worker_put_back_is_ours(
    frontend: Frontend, old: OldWorker, queue: JobQueue, redis_db: Any
) -> None:
    key = frontend.predict(BODY)
    taken(old)
    old.put_back()
    job = queue.claim()
    assert job is not None
    queue.complete(job, {"status": "done"})
    assert redis_db.hget(key, "status") == "done"


def test_what_a_dead_old_pod_left_comes_back_by_the_janitor(
    redis_db: Any, frontend: Frontend, gated: Gated, old: OldWorker, tmp_path: Path
) -> None:
    key = frontend.predict(BODY)
    redis_db.hset(key, "gate", "open")
    taken(old)
    with running_worker(tmp_path, gated()):
        wait_for(lambda: is_idle(redis_db), "our worker", tmp_path)
        Janitor(redis_db, pods=["pod-1"], ahead_s=60).clean()
        wait_for(status_is(redis_db, "done", key), "our run", tmp_path)
    assert redis_db.hget(key, "output_url") == "by pod-1 in attempt 1"
    assert redis_db.keys("processing-*") == []


def test_what_an_old_pod_left_is_run_by_its_successor_of_the_same_name(
    redis_db: Any, frontend: Frontend, gated: Gated, tmp_path: Path
) -> None:
    key = frontend.predict(BODY)
    redis_db.hset(key, "gate", "open")
    taken(OldWorker(redis_db, "pod-1"))
    with running_worker(tmp_path, gated(SWEEP_INTERVAL="0.3")):
        wait_for(status_is(redis_db, "done", key), "our run", tmp_path)
    assert redis_db.lrange("runs", 0, -1) == [f"pod-1 1 {key}"]
    assert redis_db.keys("processing-*") == []


def test_an_entry_without_a_lease_is_left_alone_for_a_while(frontend: Frontend, queue: JobQueue, redis_db: Any) -> None:
    """The predecessor of the same name may still be at its end."""
    frontend.predict(BODY)
    predecessor = OldWorker(redis_db, "pod-1")
    upkeep.register(queue)
    key = taken(predecessor)
    assert [sweep_again(queue, redis_db) for _ in range(3)] == [[], [], []]
    predecessor.finish(key, output_url="by its predecessor")
    assert sweep_again(queue, redis_db) == []
    assert queue.claim() is None
    assert redis_db.hget(key, "output_url") == "by its predecessor"


@pytest.mark.parametrize("is_ours_first", [True, False])
def test_our_running_job_that_the_janitor_gives_to_an_old_worker_has_its_result(
    frontend: Frontend, old: OldWorker, redis_db: Any, gated: Gated, tmp_path: Path, is_ours_first: bool
) -> None:
    with running_worker(tmp_path, gated()):
        key = frontend.predict(BODY)
        wait_for(status_is(redis_db, "started", key), "the job's start", tmp_path)
        Janitor(redis_db, ahead_s=60).clean()
        assert taken(old) == key
        if not is_ours_first:
            old.finish(key, output_url="by old-1")
        redis_db.hset(key, "gate", "open")
        wait_for(lambda: "Lost job" in (tmp_path / "worker.log").read_text(), "the end of our run", tmp_path)
        if is_ours_first:
            assert redis_db.hget(key, "status") == "started"
            old.finish(key, output_url="by old-1")
    assert (redis_db.hget(key, "status"), redis_db.hget(key, "output_url")) == ("done", "by old-1")
    assert redis_db.keys("processing-*") + redis_db.lrange("predict", 0, -1) == []
