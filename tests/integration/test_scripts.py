"""Every script of the queue with long lists: fields, children, entries of other jobs."""

from __future__ import annotations

from typing import Any

import pytest

from redis_consumer.job import Job
from redis_consumer.queue import JobQueue, admin, upkeep
from redis_consumer.queue.child_jobs import ChildJobs
from redis_consumer.redis import RedisClient
from support.queues import claimed, submit
from support.scenes import children

SIZES = [0, 1, 3_900, 4_100, 20_000]

sized = pytest.mark.parametrize("count", SIZES)


@pytest.fixture
def queue(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "predict", "pod-1")


@pytest.fixture
def zips(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "zips", "pod-1")


@pytest.fixture
def images(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "images", "pod-2")


def many(count: int) -> dict[str, str]:
    return {f"field-{number}": str(number) for number in range(count)}


def divided(db: Any, zips: JobQueue, count: int) -> Job:
    """A parent that waits for so many children."""
    submit(db, "a", "zips")
    parent = claimed(zips)
    child_jobs = ChildJobs(zips, parent)
    child_jobs.write_children(children(parent, count))
    child_jobs.fan_out("gather", {})
    return parent


def end_all(db: Any, child_jobs: ChildJobs) -> None:
    """End the children as workers do that know no families; a sweep finds it."""
    with db.pipeline(transaction=False) as pipe:
        for child in child_jobs.children():
            pipe.hset(child.id, "status", "done")
        pipe.delete("images")
        pipe.execute()


def sweep_all(queue: JobQueue) -> list[str]:
    swept: list[str] = []
    while found := upkeep.sweep(queue, every_s=0.001) or queue.redis.exists(queue.key("sweep")):
        swept += found if isinstance(found, list) else []
    return swept


@sized
def test_a_claim_gives_all_fields(queue: JobQueue, redis_db: Any, count: int) -> None:
    submit(redis_db, **many(count))
    assert many(count).items() <= claimed(queue).fields.items()


@sized
@pytest.mark.parametrize("write", ["update", "complete", "fail"])
def test_many_fields_are_written(queue: JobQueue, redis_db: Any, count: int, write: str) -> None:
    job_id = submit(redis_db)
    job = claimed(queue)
    if write == "update":
        queue.update(job, many(count))
    else:
        queue.complete(job, {"status": "done", **many(count)}, is_success=write == "complete")
    assert many(count).items() <= redis_db.hgetall(job_id).items()
    assert redis_db.llen(queue.processing) == (write == "update")


@sized
def test_a_job_is_given_back_from_a_long_list(queue: JobQueue, redis_db: Any, count: int) -> None:
    job_id = submit(redis_db)
    job = claimed(queue)
    fill(redis_db, "lpush", queue.processing, count)
    queue.give_back(job)
    assert redis_db.lrange("predict", 0, -1) == [job_id]
    assert redis_db.llen(queue.processing) == count


@sized
def test_a_job_with_many_fields_is_divided(zips: JobQueue, redis_db: Any, count: int) -> None:
    job_id = submit(redis_db, "a", "zips")
    ChildJobs(zips, claimed(zips)).fan_out("gather", many(count))
    assert many(count).items() <= redis_db.hgetall(job_id).items()


@sized
def test_children_with_many_fields_are_staged(zips: JobQueue, redis_db: Any, count: int) -> None:
    submit(redis_db, "a", "zips")
    parent = claimed(zips)
    ChildJobs(zips, parent).write_children(children(parent, 1, **many(count)))
    assert many(count).items() <= redis_db.hgetall(children(parent, 1)[0][0]).items()


@sized
def test_many_children_are_staged_pushed_read_and_gathered(
    zips: JobQueue, images: JobQueue, redis_db: Any, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis_consumer.queue.child_jobs.CHUNK", 50_000)
    monkeypatch.setattr("redis_consumer.queue.upkeep.CHILDREN_LIMIT", 50_000)
    parent = divided(redis_db, zips, count)
    keys = [key for key, _ in children(parent, count)]
    assert redis_db.lrange("images", 0, -1)[::-1] == keys
    assert [child.id for child in ChildJobs(zips, parent).children()] == keys
    end_all(redis_db, ChildJobs(zips, parent))
    while redis_db.exists(f"redis-consumer:open:{parent.id}"):
        sweep_all(zips)
    parent = claimed(zips)
    zips.complete(parent, {"status": "done"}, is_success=True)
    assert redis_db.hget(parent.id, "status") == "done"
    assert redis_db.keys("redis-consumer:children:*") == redis_db.keys("redis-consumer:open:*") == []
    assert all(redis_db.ttl(key) > 0 for key in keys[:1] + keys[-1:])


@sized
def test_many_children_of_an_older_worker_are_adopted(zips: JobQueue, redis_db: Any, count: int) -> None:
    keys = [f"images:{number}.tif:1" for number in range(count)]
    with redis_db.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hset(key, "status", "new")
        pipe.execute()
    job_id = submit(redis_db, "a", "zips", children=",".join(keys))
    ChildJobs(zips, claimed(zips)).adopt("gather", {})
    assert redis_db.scard(f"redis-consumer:open:{job_id}") == count
    assert redis_db.lrange(f"redis-consumer:children:{job_id}", 0, -1) == keys


@sized
def test_what_was_staged_goes_with_a_failed_job(zips: JobQueue, redis_db: Any, count: int) -> None:
    submit(redis_db, "a", "zips")
    parent = claimed(zips)
    ChildJobs(zips, parent).write_children(children(parent, count))
    zips.complete(parent, {"status": "failed"})
    assert redis_db.keys("images:*") == redis_db.keys("redis-consumer:staged:*") == []


@sized
def test_a_job_with_many_children_is_cancelled(zips: JobQueue, images: JobQueue, redis_db: Any, count: int) -> None:
    parent = divided(redis_db, zips, count)
    assert admin.cancel(zips, parent.id) == "cancelled"
    assert redis_db.hget(parent.id, "status") == "failed"
    assert images.claim() is None
    assert redis_db.llen("images") == max(count - 1, 0)


@sized
def test_a_child_of_many_is_cancelled_given_up_and_tried_again(
    zips: JobQueue, images: JobQueue, redis_db: Any, count: int
) -> None:
    parent = divided(redis_db, zips, count + 2)
    images.complete(claimed(images), {"status": "failed"}, is_dead=True)
    assert admin.cancel(images, redis_db.lindex("images", 0)) == "cancelled"
    assert redis_db.scard(f"redis-consumer:open:{parent.id}") == count
    assert admin.retry(images, admin.dead_letters(images)[0])
    assert redis_db.llen("images") == count + 1


@sized
def test_a_dead_letter_among_many_is_tried_again(queue: JobQueue, redis_db: Any, count: int) -> None:
    job_id = submit(redis_db, **many(count))
    queue.complete(claimed(queue), {"status": "failed"}, is_dead=True)
    fill(redis_db, "lpush", queue.key("dead"), count)
    assert admin.retry(queue, job_id)
    assert (redis_db.lrange("predict", 0, -1), redis_db.llen(queue.key("dead"))) == ([job_id], count)


@sized
def test_the_sweep_returns_all_whose_lease_ran_out(queue: JobQueue, redis_db: Any, count: int) -> None:
    names = fill(redis_db, "lpush", queue.processing, count)
    with redis_db.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.zadd(queue.key("leases"), {name: 1})
            pipe.hset(queue.key("holders"), name, f"1 {queue.processing}")
        pipe.execute()
    assert sorted(sweep_all(queue)) == sorted(names)
    assert (redis_db.llen("predict"), redis_db.llen(queue.processing)) == (count, 0)


@sized
def test_the_sweep_returns_all_strays(
    queue: JobQueue, redis_db: Any, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("redis_consumer.queue.upkeep.ORPHAN_S", 0.0)
    monkeypatch.setattr("redis_consumer.queue.upkeep.SWEEP_LIMIT", 50_000)
    upkeep.register(queue)
    names = fill(redis_db, "lpush", queue.processing, count)
    sweep_all(queue)  # notes them
    while redis_db.exists(queue.processing):
        sweep_all(queue)
    assert sorted(redis_db.lrange("predict", 0, -1)) == sorted(names)


@sized
def test_many_leases_are_renewed(queue: JobQueue, redis_db: Any, count: int) -> None:
    jobs = [Job(f"predict:{number}.tif:1") for number in range(count)]
    with redis_db.pipeline(transaction=False) as pipe:
        for job in jobs[:-1]:
            pipe.hset(job.id, "status", "started")
            pipe.hset(queue.key("holders"), job.id, f"{job.attempt} {queue.processing}")
        pipe.execute()
    assert queue.renew(jobs) == [job.id for job in jobs[-1:]]
    assert redis_db.zcard(queue.key("leases")) == max(count - 1, 0)


@sized
def test_a_name_is_registered_among_many(queue: JobQueue, redis_db: Any, count: int) -> None:
    fill(redis_db, "sadd", queue.key("processing"), count)
    assert upkeep.register(queue) == 0
    assert redis_db.scard(queue.key("processing")) == count + 1


@sized
def test_all_leftovers_are_given(queue: JobQueue, redis_db: Any, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_consumer.queue.upkeep.ORPHANED_RESULTS_LIMIT", 50_000)
    with redis_db.pipeline(transaction=False) as pipe:
        for number in range(count):
            pipe.zadd(queue.key("leftovers"), {f"{number} predict:a.tif:1": 1})
        pipe.execute()
    assert len(upkeep.orphaned_results(queue)) == count


@sized
def test_a_job_that_was_given_back_often_ends(queue: JobQueue, redis_db: Any, count: int) -> None:
    job_id = submit(redis_db)
    redis_db.hset(queue.key("attempts"), job_id, count)
    redis_db.hset(queue.key("forgiven"), job_id, count)
    queue.complete(claimed(queue), {"status": "done"}, is_success=True)
    assert redis_db.zcard(queue.key("leftovers")) == min(count, 1_000)


def fill(db: Any, command: str, key: str, count: int) -> list[str]:
    """Put so many names into a list or set."""
    names = [f"other-{number}" for number in range(count)]
    for start in range(0, count, 1_000):
        getattr(db, command)(key, *names[start : start + 1_000])
    return names
