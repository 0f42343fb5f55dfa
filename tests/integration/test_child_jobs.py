"""Parents and children on a real Redis: who waits for whom, and what happens where one of them doesn't end well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from redis_consumer.errors import JobCancelled, LeaseLost, RedisUnavailable
from redis_consumer.job import Job
from redis_consumer.queue import JobQueue, admin, upkeep
from redis_consumer.queue.child_jobs import MAX_LIST_BYTES, ChildJobs, child_key
from redis_consumer.redis import RedisClient
from support.queues import claimed, submit

PARENT = "zips:a.tif:1"


@pytest.fixture
def zips(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "zips", "pod-1")


@pytest.fixture
def images(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "images", "pod-2")


def stage(queue: JobQueue, job: Job, count: int, to: str = "images") -> ChildJobs:
    child_jobs = ChildJobs(queue, job)
    keys = [child_key(job, to, f"{index}.tif", index) for index in range(count)]
    if count:
        child_jobs.write_children([(key, {"status": "new", "input_file_name": "x"}) for key in keys])
    return child_jobs


def divide(queue: JobQueue, job: Job, count: int, to: str = "images") -> list[str]:
    """Fan a claimed job out; give the keys of the children."""
    child_jobs = stage(queue, job, count, to)
    child_jobs.fan_out("gather", {})
    return [child.id for child in child_jobs.children()]


@pytest.fixture
def fanned(redis_db: Any, zips: JobQueue) -> Callable[[int], list[str]]:
    """Submits a parent and fans it out."""

    def fanned(count: int) -> list[str]:
        submit(redis_db, "a", "zips")
        return divide(zips, claimed(zips), count)

    return fanned


Fanned = Callable[[int], list[str]]


def end(queue: JobQueue, status: str = "done", **fields: Any) -> str:
    job = claimed(queue)
    queue.complete(job, {"status": status, **fields}, is_success=status == "done")
    return job.id


def sweep(queue: JobQueue, db: Any) -> None:
    db.delete(queue.key("sweep"))
    upkeep.sweep(queue)


def own_keys(db: Any) -> list[str]:
    """Keys of families that are left."""
    kinds = ("family", "children", "open", "staged", "waiting")
    return sorted(key for kind in kinds for key in db.keys(f"redis-consumer:{kind}:*"))


def test_children_are_pushed_in_order_and_the_parent_waits(fanned: Fanned, redis_db: Any) -> None:
    keys = fanned(3)
    assert redis_db.lrange("images", 0, -1)[::-1] == keys
    fields = redis_db.hgetall(PARENT)
    assert (fields["status"], fields["progress"], fields["total_jobs"]) == ("waiting", "0", "3")
    assert fields["children"].split(",") == keys
    assert redis_db.keys("processing-*") + redis_db.lrange("zips", 0, -1) == []


def test_nothing_is_pushed_before_all_children_are_staged(redis_db: Any, zips: JobQueue) -> None:
    submit(redis_db, "a", "zips")
    stage(zips, claimed(zips), 5)
    assert not redis_db.exists("images")


@pytest.mark.parametrize("ends", [("done", "done"), ("done", "failed"), ("failed", "failed")])
def test_the_last_child_brings_the_parent_back(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any, ends: tuple[str, str]
) -> None:
    fanned(2)
    end(images, ends[0])
    assert not redis_db.exists("zips")
    end(images, ends[1])
    job = claimed(zips)
    assert (job.id, job.get("next_phase"), job.get("status")) == (PARENT, "gather", "waiting")
    assert sorted(child.status for child in ChildJobs(zips, job).children()) == sorted(ends)


def test_a_parent_that_comes_back_is_the_next_in_line(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    fanned(1)
    submit(redis_db, "later", "zips")
    end(images)
    assert claimed(zips).id == PARENT


def test_a_parent_without_children_goes_on_at_once(fanned: Fanned, zips: JobQueue) -> None:
    assert fanned(0) == []
    assert claimed(zips).get("next_phase") == "gather"


def test_progress_is_the_mean_of_the_children_and_never_falls(fanned: Fanned, images: JobQueue, redis_db: Any) -> None:
    fanned(4)
    seen = []
    job = claimed(images)
    for percent in (50, 30, 99):
        images.update(job, {"progress": percent})
        seen.append(redis_db.hget(PARENT, "progress"))
    images.complete(job, {"status": "done", "progress": 100})
    seen.append(redis_db.hget(PARENT, "progress"))
    end(images, "failed")
    assert [*seen, redis_db.hget(PARENT, "progress")] == ["12", "12", "24", "25", "50"]


@pytest.mark.parametrize("status", ["done", "failed"])
def test_a_parent_that_a_foreign_worker_has_ended_is_left_alone(
    fanned: Fanned, images: JobQueue, redis_db: Any, status: str
) -> None:
    fanned(2)
    redis_db.hset(PARENT, "status", status)
    end(images)
    end(images)
    assert not redis_db.exists("zips")
    assert own_keys(redis_db) == []


def test_children_may_stand_for_a_share_of_the_progress(zips: JobQueue, images: JobQueue, redis_db: Any) -> None:
    submit(redis_db, "a", "zips")
    stage(zips, claimed(zips), 2).fan_out("gather", {}, share=90)
    seen = []
    for _ in range(2):
        end(images)
        seen.append(redis_db.hget(PARENT, "progress"))
    assert seen == ["45", "90"]


@pytest.mark.parametrize("odd", ["", "half", "-5", "nan", "1e999"])
def test_odd_progress_does_no_harm(fanned: Fanned, images: JobQueue, redis_db: Any, odd: str) -> None:
    fanned(2)
    job = claimed(images)
    images.update(job, {"progress": odd})
    assert 0 <= int(redis_db.hget(PARENT, "progress")) <= 100
    images.complete(job, {"status": "done"})
    assert int(redis_db.hget(PARENT, "progress")) == 50


def test_the_attempts_go_on_so_that_no_token_comes_twice(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    fanned(1)
    end(images)
    job = claimed(zips)
    assert job.attempt == 2
    with pytest.raises(LeaseLost):
        zips.complete(Job(PARENT, attempt=1), {"status": "done"})


def test_each_phase_has_all_its_attempts(fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any) -> None:
    fanned(1)
    end(images)
    for _ in range(zips.options.max_attempts):
        zips.give_back(claimed(zips), is_crash=True, error="crash")
    assert zips.claim() is None
    assert f"in each of {zips.options.max_attempts} attempts (the last time: crash)" in redis_db.hget(PARENT, "reason")


def test_a_repeated_fan_out_is_carried_out_once(redis_db: Any, zips: JobQueue) -> None:
    submit(redis_db, "a", "zips")
    child_jobs = stage(zips, claimed(zips), 2)
    child_jobs.fan_out("gather", {})
    child_jobs.fan_out("gather", {})
    assert redis_db.llen("images") == 2


def test_repeated_staging_is_carried_out_once(redis_db: Any, zips: JobQueue) -> None:
    submit(redis_db, "a", "zips")
    job = claimed(zips)
    child_jobs = stage(zips, job, 2)
    for _ in range(2):
        child_jobs._written = 2  # the reply of the first call was lost
        child_jobs.write_children([("images:c:3", {"status": "new"})])
    child_jobs.fan_out("gather", {})
    assert redis_db.llen("images") == 3


def test_a_first_phase_that_runs_again_makes_the_same_children(redis_db: Any, zips: JobQueue) -> None:
    submit(redis_db, "a", "zips")
    job = claimed(zips)
    stage(zips, job, 3)
    before = sorted(redis_db.keys("images:*"))
    zips.give_back(job, is_crash=True)
    keys = divide(zips, claimed(zips), 3)
    assert redis_db.lrange("images", 0, -1)[::-1] == keys
    assert sorted(redis_db.keys("images:*")) == sorted(keys) == before


def test_who_lost_the_parent_changes_no_child(redis_db: Any, zips: JobQueue) -> None:
    submit(redis_db, "a", "zips")
    late = claimed(zips)
    zips.give_back(late, is_crash=True)
    divide(zips, claimed(zips), 2)
    child_jobs = ChildJobs(zips, late)
    with pytest.raises(LeaseLost):
        child_jobs.write_children([(redis_db.lindex("images", 0), {"status": "odd"})])
    with pytest.raises(LeaseLost):
        child_jobs.fan_out("gather", {})
    assert {redis_db.hget(key, "status") for key in redis_db.keys("images:*")} == {"new"}


def test_lost_staged_children_are_noticed(redis_db: Any, zips: JobQueue) -> None:
    submit(redis_db, "a", "zips")
    child_jobs = stage(zips, claimed(zips), 2)
    redis_db.delete(f"redis-consumer:staged:{PARENT}")
    with pytest.raises(RedisUnavailable, match="missing"):
        child_jobs.fan_out("gather", {})


def test_a_failed_first_phase_leaves_no_children(redis_db: Any, zips: JobQueue) -> None:
    submit(redis_db, "a", "zips")
    job = claimed(zips)
    stage(zips, job, 250)
    zips.complete(job, {"status": "failed", "reason": "x"})
    assert redis_db.keys("images:*") + own_keys(redis_db) == []


@pytest.mark.parametrize("how", ["attempts", "bug"])
def test_a_dead_letter_child_counts_as_failed(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any, how: str
) -> None:
    fanned(1)
    if how == "bug":
        images.complete(claimed(images), {"status": "failed", "reason": "x"}, is_dead=True)
    else:
        for _ in range(images.options.max_attempts):
            images.give_back(claimed(images), is_crash=True)
        assert images.claim() is None
    assert claimed(zips).id == PARENT


def test_a_cancelled_child_counts_as_failed(fanned: Fanned, zips: JobQueue, images: JobQueue) -> None:
    (key,) = fanned(1)
    assert admin.cancel(images, key) == "cancelled"
    assert claimed(zips).id == PARENT


@pytest.mark.parametrize("expired", [1, 3])
def test_expired_children_count_as_failed_at_the_next_sweep(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any, expired: int
) -> None:
    keys = fanned(3)
    for _ in range(3 - expired):
        end(images)
    for key in keys[3 - expired :]:
        redis_db.delete(key)
    assert images.claim() is None
    sweep(zips, redis_db)
    job = claimed(zips)
    assert [child.status for child in ChildJobs(zips, job).children()] == ["done"] * (3 - expired) + [""] * expired


@pytest.mark.parametrize("status", ["done", "failed"])
def test_a_child_that_a_foreign_worker_ended_is_noticed_by_the_sweep(
    fanned: Fanned, zips: JobQueue, redis_db: Any, status: str
) -> None:
    (key,) = fanned(1)
    redis_db.rpop("images")
    redis_db.hset(key, "status", status)
    sweep(zips, redis_db)
    assert claimed(zips).id == PARENT


def test_a_parent_whose_family_was_deleted_before_its_children_ended_comes_back(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    fanned(2)
    redis_db.delete(f"redis-consumer:family:{PARENT}")
    end(images)
    end(images)
    sweep(zips, redis_db)
    job = claimed(zips)
    assert (job.id, job.get("next_phase")) == (PARENT, "gather")
    assert [child.status for child in ChildJobs(zips, job).children()] == ["done", "done"]


def test_a_large_family_is_swept_some_at_a_time(fanned: Fanned, zips: JobQueue, redis_db: Any) -> None:
    keys = fanned(2500)
    with redis_db.pipeline() as pipe:
        for key in keys:
            pipe.hset(key, "status", "done")
        pipe.delete("images").execute()
    sweep(zips, redis_db)
    assert 0 < redis_db.scard(f"redis-consumer:open:{PARENT}") < 2500
    for _ in range(6):
        sweep(zips, redis_db)
    assert claimed(zips).id == PARENT


def test_the_sweep_leaves_running_children_alone(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    fanned(2)
    job = claimed(images)
    sweep(zips, redis_db)
    images.complete(job, {"status": "done"})
    assert not redis_db.exists("zips")


def test_cancelling_a_waiting_parent_reaches_waiting_and_running_children(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    keys = fanned(3)
    running = claimed(images)
    assert admin.cancel(zips, PARENT) == "cancelled"
    with pytest.raises(JobCancelled):
        images.update(running, {"status": "started"})
    with pytest.raises(JobCancelled):
        images.complete(running, {"status": "done"}, is_success=True)
    images.complete(running, {"status": "failed", "reason": "JobCancelled"})
    while redis_db.llen("images"):
        assert images.claim() is None
    assert [redis_db.hget(key, "status") for key in keys] == ["failed"] * 3
    assert "its parent job was cancelled" in redis_db.hget(keys[2], "reason")
    assert redis_db.hget(PARENT, "status") == "failed"
    assert redis_db.lrange("zips", 0, -1) + own_keys(redis_db) == []


def test_children_of_an_expired_parent_are_dropped(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    keys = fanned(2)
    redis_db.delete(PARENT)
    sweep(zips, redis_db)
    while redis_db.llen("images"):
        assert images.claim() is None
    assert [redis_db.hget(key, "status") for key in keys] == ["failed"] * 2
    assert not redis_db.exists(PARENT)
    assert redis_db.lrange("zips", 0, -1) + own_keys(redis_db) == []


def test_a_late_write_to_an_expired_parent_does_not_bring_it_back(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    fanned(1)
    redis_db.delete(PARENT)
    sweep(zips, redis_db)
    redis_db.hset(PARENT, "updated_by", "a stranger")
    assert images.claim() is None
    assert not redis_db.exists("zips", "redis-consumer:attempts:zips")


def test_nested_families_come_back_level_by_level(
    redis_client: RedisClient, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    middle = JobQueue(redis_client, "middle", "pod-3")
    submit(redis_db, "a", "zips")
    divide(zips, claimed(zips), 2, to="middle")
    for _ in range(2):
        divide(middle, claimed(middle), 2)
    job = claimed(images)
    images.update(job, {"progress": 50})
    assert redis_db.hget(PARENT, "progress") == "12"
    images.complete(job, {"status": "done"})
    for _ in range(3):
        end(images)
    assert redis_db.hget(PARENT, "progress") == "100"
    assert not redis_db.exists("zips")
    for _ in range(2):
        end(middle)
    assert claimed(zips).id == PARENT


def test_cancelling_reaches_grandchildren(
    redis_client: RedisClient, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    middle = JobQueue(redis_client, "middle", "pod-3")
    submit(redis_db, "a", "zips")
    divide(zips, claimed(zips), 1, to="middle")
    divide(middle, claimed(middle), 2)
    admin.cancel(zips, PARENT)
    while redis_db.llen("images") or redis_db.llen("middle"):
        assert images.claim() is None
        assert middle.claim() is None
    assert own_keys(redis_db) == []


def test_a_loop_of_parents_ends(redis_db: Any, images: JobQueue) -> None:
    for name, parent in (("a", "images:b.tif:1"), ("b", "images:a.tif:1")):
        redis_db.hset(submit(redis_db, name, "images"), mapping={"parent": parent, "next_phase": "x"})
        redis_db.sadd(f"redis-consumer:open:{parent}", f"images:{name}.tif:1")
        redis_db.hset(f"redis-consumer:family:{parent}", mapping={"state": "waiting", "total": 1, "queue": "images"})
    assert images.claim() is None


def test_a_copied_parent_field_means_nothing(fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any) -> None:
    """An older worker copies all fields of a job to its children."""
    fanned(1)
    copy = submit(redis_db, "copy", "images", parent=PARENT)
    redis_db.lmove("images", "images", "LEFT", "RIGHT")
    admin.cancel(zips, PARENT)
    assert end(images) == copy
    assert images.claim() is None


def test_a_parent_that_a_stranger_ends_before_its_second_phase_leaves_nothing(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    fanned(1)
    end(images)
    redis_db.hset(PARENT, "status", "done")
    assert zips.claim() is None
    assert own_keys(redis_db) == []


def test_a_parent_that_a_stranger_pushes_while_it_waits_is_dropped(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    fanned(1)
    redis_db.lpush("zips", PARENT)
    assert zips.claim() is None
    end(images)
    assert claimed(zips).attempt == 2


def test_a_child_twice_in_the_queue_counts_once(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    keys = fanned(2)
    redis_db.rpush("images", keys[0])
    end(images)
    assert images.claim() is None
    assert not redis_db.exists("zips")


def test_a_retried_child_is_waited_for_again(fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any) -> None:
    fanned(2)
    dead = claimed(images)
    images.complete(dead, {"status": "failed", "reason": "bug"}, is_dead=True)
    assert admin.retry(images, dead.id)
    end(images)
    assert not redis_db.exists("zips")
    end(images)
    assert claimed(zips).id == PARENT
    assert redis_db.hget(PARENT, "progress") == "100"


def test_a_child_retried_after_its_parent_runs_by_itself(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    fanned(1)
    dead = claimed(images)
    images.complete(dead, {"status": "failed", "reason": "bug"}, is_dead=True)
    end(zips)
    assert admin.retry(images, dead.id)
    assert end(images) == dead.id


def test_a_retried_parent_goes_on_with_its_second_phase(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    (key,) = fanned(1)
    end(images)
    zips.complete(claimed(zips), {"status": "failed", "reason": "bug"}, is_dead=True)
    assert admin.retry(zips, PARENT)
    job = claimed(zips)
    assert job.get("next_phase") == "gather"
    assert [child.id for child in ChildJobs(zips, job).children()] == [key]


def test_a_retried_parent_whose_family_is_forgotten_begins_anew(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    fanned(1)
    end(images)
    zips.complete(claimed(zips), {"status": "failed", "reason": "bug"}, is_dead=True)
    redis_db.delete(f"redis-consumer:family:{PARENT}")
    assert admin.retry(zips, PARENT)
    assert claimed(zips).get("next_phase") == ""


def test_the_end_of_the_parent_lets_its_children_expire(
    fanned: Fanned, zips: JobQueue, images: JobQueue, redis_db: Any
) -> None:
    keys = fanned(2)
    end(images)
    end(images)
    end(zips)
    assert {redis_db.ttl(key) for key in keys} <= {zips.options.child_expire_s, zips.options.child_expire_s - 1}
    assert own_keys(redis_db) == []


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_a_parent_of_an_older_worker_is_adopted(zips: JobQueue, images: JobQueue, redis_db: Any, finished: int) -> None:
    keys = [submit(redis_db, name, "images") for name in ("x", "y")]
    for _ in range(finished):
        end(images)
    submit(redis_db, "a", "zips", children=",".join(keys))
    redis_db.hset(PARENT, "status", "waiting")
    ChildJobs(zips, claimed(zips)).adopt("gather", {})
    assert redis_db.llen("images") == 2 - finished
    assert redis_db.hget(PARENT, "progress") == str(50 * finished)
    for _ in range(2 - finished):
        end(images)
    job = claimed(zips)
    assert [child.id for child in ChildJobs(zips, job).children()] == keys


def test_the_parents_hash_stays_small_with_many_children(fanned: Fanned, redis_db: Any) -> None:
    fanned(3000)
    fields = redis_db.hgetall(PARENT)
    assert "children" not in fields
    assert sum(map(len, fields.values())) < MAX_LIST_BYTES
    assert fields["total_jobs"] == "3000"


@pytest.mark.parametrize("name", ["a,b.tif", "a\nb.tif", "a b.tif", "ü" * 500, "\udc80.tif", ":::"])
def test_any_name_gives_a_key_that_fits(name: str) -> None:
    key = child_key(Job("zips:a:1"), "images", name, 0)
    assert "," not in key
    assert key.startswith("images:")
    assert len(key.encode()) < 600
