from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from redis_consumer.consumers import Child, Consumer, second_phase
from redis_consumer.consumers.claimed_job import Outcome
from redis_consumer.consumers.fan_out import inherited
from redis_consumer.consumers.local_jobs import JobHashes, LocalChildJobs, LocalJobs, LocalQueue
from redis_consumer.errors import InvalidImage, JobCancelled, LeaseLost, PermanentError, StorageUnavailable
from redis_consumer.job import Job
from redis_consumer.queue import JobQueue, admin
from redis_consumer.queue.child_jobs import ChildJobs
from redis_consumer.redis import RedisClient
from support.queues import claimed


class Sum(Consumer):
    """Divides a number into its digits, twice over, and adds what the children give."""

    def _consume(self, redis_hash: str) -> str:
        return self._divide("again")

    def _divide(self, then: str) -> str:
        job = self.job or Job("")
        children = (Child("digits", digit, fields={**inherited(job), "digit": digit}) for digit in job.get("number"))
        return self.fan_out(children, then=then)

    @second_phase
    def again(self, redis_hash: str) -> str:
        return self._divide("add")

    @second_phase
    def add(self, redis_hash: str) -> str:
        values = [int(child.get("value")) for child in self.child_jobs()]
        self.update_key(redis_hash, {"status": self.final_status, "values": values})
        return self.final_status


class Double(Consumer):
    """Doubles a digit."""

    def _consume(self, redis_hash: str) -> str:
        digit = self.redis.hget(redis_hash, "digit")
        self.update_key(redis_hash, {"status": "started"})
        self.redis.hset(redis_hash, "value", 2 * int(digit))
        return self.final_status


class Failing(Consumer):
    """Raises what the test wants."""

    error: Exception

    def _consume(self, redis_hash: str) -> str:
        raise self.error


def make(job: Job, *kinds: type[Consumer], on_write: Callable[[Job], None] | None = None) -> LocalJobs:
    """A job that waits for the first of these consumers; its children go to the last one."""
    jobs = LocalJobs(JobHashes(on_write), lambda each, _: consumers[0 if each.id == job.id else -1])
    consumers = [jobs.seat(kind(jobs.redis, object(), kind.__name__, name="here")) for kind in kinds]
    jobs.redis.hset(job.id, mapping=job.fields)
    jobs.submit(consumers[0].queue, job.id)
    return jobs


def run(job: Job, *kinds: type[Consumer], on_write: Callable[[Job], None] | None = None) -> Job:
    jobs = make(job, *kinds, on_write=on_write)
    assert jobs.run()
    return Job(job.id, jobs.redis.hgetall(job.id))


def test_a_divided_job_runs_with_its_children_through_all_phases() -> None:
    ended = run(Job("sum:1", {"number": "123", "status": "new"}), Sum, Double)
    assert (ended.status, ended.get("values")) == ("done", "[2, 4, 6]")
    assert ended.get("total_jobs") == "3"


def test_a_job_without_children_goes_on_at_once() -> None:
    assert run(Job("sum:1", {"number": "", "status": "new"}), Sum).get("values") == "[]"


def test_children_of_children_have_an_end() -> None:
    with pytest.raises(PermanentError, match="is a child of children, 16 deep"):
        run(Job("sum:1", {"number": "1", "status": "new"}), Sum)


def test_each_write_is_told() -> None:
    seen: list[str] = []
    run(Job("digits:1", {"digit": "4", "status": "new"}), Double, on_write=lambda job: seen.append(job.status))
    assert seen == ["started", "started", "done"]


def test_bad_input_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Failing, "error", InvalidImage("a.tif: is damaged"), raising=False)
    ended = run(Job("a:1"), Failing)
    assert (ended.status, ended.get("reason")) == ("failed", "InvalidImage: a.tif: is damaged")


def test_what_is_away_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Failing, "error", StorageUnavailable("bucket: away"), raising=False)
    jobs = make(Job("a:1"), Failing)
    assert not jobs.run()
    assert (jobs.outcomes, jobs.last_error) == ({"a:1": Outcome.GIVEN_BACK}, "StorageUnavailable: bucket: away")


def test_there_is_no_more_of_redis() -> None:
    with pytest.raises(PermanentError, match=r"redis\.lpush: this run has no Redis"):
        _: Any = JobHashes().lpush


def story(
    redis: Any,
    queue_of: Callable[[str], JobQueue],
    push: Callable[[str, str], object],
    cancel: Callable[[str], object],
    child_jobs: Callable[[JobQueue, Job], ChildJobs],
) -> list[object]:
    """All that a consumer can see of the claims, children and fields of a job."""
    zips, images = queue_of("zip"), queue_of("predict")
    seen: list[object] = [zips.claim()]
    redis.hset("zip:ä.zip:1", mapping={"status": "new", "original_name": "ä.zip"})
    push("zip", "zip:ä.zip:1")
    job = claimed(zips)
    seen += [job.id, job.get("original_name"), job.attempt]
    zips.give_back(job, is_next=True)
    job = claimed(zips)
    zips.update(job, {"status": "started"})
    children = child_jobs(zips, job)
    children.write_children([("predict:a:1", {"status": "new"}), ("predict:b:1", {"status": "new"})])
    children.fan_out("gather", {"note": None})
    with pytest.raises(LeaseLost):
        zips.update(job, {"status": "late"})
    for end in ("done", "failed"):
        seen.append(zips.claim())
        child = claimed(images)
        images.update(child, {"progress": 50})
        images.complete(child, {"status": end}, is_success=end == "done")
        seen.append(sorted(redis.hgetall(child.id)))
    job = claimed(zips)
    seen += [
        job.attempt,
        job.get("next_phase"),
        *((child.id, child.status) for child in child_jobs(zips, job).children()),
    ]
    cancel(job.id)
    with pytest.raises(JobCancelled):
        zips.update(job, {"status": "saving-results"})
    with pytest.raises(JobCancelled):
        zips.complete(job, {"status": "done"}, is_success=True)
    zips.complete(job, {"status": "failed"})
    with pytest.raises(LeaseLost):
        zips.update(job, {"status": "started"})
    hash_now = redis.hgetall(job.id)
    return [
        *seen,
        sorted(hash_now),
        *(hash_now[name] for name in ("status", "total_jobs", "children", "note", "updated_by")),
    ]


def test_it_tells_the_same_story_as_the_scripts_in_a_real_redis(redis_client: RedisClient) -> None:
    def queue_of(name: str) -> JobQueue:
        return JobQueue(redis_client, name, "pod-1")

    real = story(
        redis_client, queue_of, redis_client.lpush, lambda job_id: admin.cancel(queue_of("zip"), job_id), ChildJobs
    )
    jobs = LocalJobs(JobHashes(), lambda *_: pytest.fail("no consumer runs"))
    local = story(jobs.redis, lambda name: LocalQueue(jobs, name, "pod-1"), jobs.submit, jobs.cancel, LocalChildJobs)
    assert local == real
