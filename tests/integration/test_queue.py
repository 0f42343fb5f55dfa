from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

import pytest

from redis_consumer.errors import LeaseLost
from redis_consumer.job import Job
from redis_consumer.queue import JobQueue
from redis_consumer.redis import RedisClient
from support.redis_server import RedisServer


@pytest.fixture
def queue(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "Predict", "pod-1")


def submit(db: Any, name: str = "a", **fields: str) -> str:
    """What the frontend does: hash first, then its key to the left of the list."""
    job_id = f"predict:{name}.tif:1"
    db.hset(job_id, mapping={"status": "new", "input_file_name": f"uploads/{name}.tif", **fields})
    db.lpush("predict", job_id)
    return job_id


def claimed(queue: JobQueue) -> Job:
    job = queue.claim()
    assert job is not None
    return job


def test_the_oldest_job_is_claimed_first(queue: JobQueue, redis_db: Any) -> None:
    first, second = submit(redis_db, "a"), submit(redis_db, "b")
    assert [claimed(queue).id, claimed(queue).id] == [first, second]
    assert queue.claim() is None


def test_a_claimed_job_is_in_the_processing_list_and_stamped(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    job = claimed(queue)
    assert redis_db.lrange("processing-predict:pod-1", 0, -1) == [job_id]
    assert job.fields["updated_by"] == "pod-1"
    updated_at = datetime.fromisoformat(redis_db.hget(job_id, "updated_at") or "")
    assert updated_at.tzinfo is not None  # the janitor subtracts it from its own time


def test_a_waiting_claim_takes_a_job_that_comes_later(queue: JobQueue, redis_db: Any) -> None:
    timer = threading.Timer(0.1, submit, [redis_db])
    timer.start()
    job = queue.claim(20.0)
    timer.join()
    assert job is not None


def test_an_empty_queue_gives_none_after_the_timeout(queue: JobQueue) -> None:
    assert queue.claim(0.1) is None


def test_a_key_without_hash_is_dropped(queue: JobQueue, redis_db: Any, caplog: pytest.LogCaptureFixture) -> None:
    redis_db.lpush("predict", "predict:gone.tif:1")
    assert queue.claim() is None
    assert not redis_db.exists("predict", "processing-predict:pod-1", "predict:gone.tif:1")
    assert "its hash is gone" in caplog.text


def test_a_key_that_is_no_hash_is_dropped(queue: JobQueue, redis_db: Any, caplog: pytest.LogCaptureFixture) -> None:
    redis_db.set("predict:odd.tif:1", "text")
    redis_db.lpush("predict", "predict:odd.tif:1")
    assert queue.claim() is None
    assert redis_db.get("predict:odd.tif:1") == "text"
    assert not redis_db.exists("processing-predict:pod-1")
    assert "holds a string, not a hash" in caplog.text


@pytest.mark.parametrize("status", ["done", "failed"])
def test_a_job_that_has_its_result_is_dropped(queue: JobQueue, redis_db: Any, status: str) -> None:
    job_id = submit(redis_db, status=status)
    before = redis_db.hgetall(job_id)
    assert queue.claim() is None
    assert redis_db.hgetall(job_id) == before
    assert not redis_db.exists("processing-predict:pod-1")


def test_update_writes_texts(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    queue.update(claimed(queue), {"status": "started", "progress": 5, "reason": None})
    fields = redis_db.hgetall(job_id)
    assert (fields["status"], fields["progress"], fields["reason"]) == ("started", "5", "")


def test_complete_writes_the_result_and_ends_the_claim(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    queue.complete(claimed(queue), {"status": "done", "output_file_name": "output/x.zip"})
    assert redis_db.hget(job_id, "status") == "done"
    assert redis_db.hget(job_id, "output_file_name") == "output/x.zip"
    assert not redis_db.exists("processing-predict:pod-1")


def test_who_lost_the_job_writes_nothing(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    job = claimed(queue)
    redis_db.lrem("processing-predict:pod-1", 1, job_id)
    before = redis_db.hgetall(job_id)
    with pytest.raises(LeaseLost, match="result is dropped"):
        queue.complete(job, {"status": "done"})
    with pytest.raises(LeaseLost):
        queue.update(job, {"status": "started"})
    with pytest.raises(LeaseLost):
        queue.give_back(job)
    assert redis_db.hgetall(job_id) == before
    assert not redis_db.exists("predict")


def test_an_expired_hash_does_not_come_back(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    job = claimed(queue)
    redis_db.delete(job_id)
    with pytest.raises(LeaseLost):
        queue.update(job, {"status": "started"})
    with pytest.raises(LeaseLost):
        queue.complete(job, {"status": "done"})
    assert not redis_db.exists(job_id, "processing-predict:pod-1")


def test_a_repeated_complete_whose_reply_was_lost_counts_as_done(
    queue: JobQueue, redis_db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(redis_db)
    job = claimed(queue)
    monkeypatch.setattr("redis_consumer.queue.timestamp", lambda: "2026-01-01T00:00:00+00:00")
    queue.complete(job, {"status": "done"})
    queue.complete(job, {"status": "done"})


@pytest.mark.parametrize(("is_next", "order"), [(True, ["a", "b"]), (False, ["b", "a"])])
def test_give_back_goes_to_the_asked_end(queue: JobQueue, redis_db: Any, is_next: bool, order: list[str]) -> None:
    submit(redis_db, "a")
    submit(redis_db, "b")
    queue.give_back(claimed(queue), is_next=is_next)
    assert not redis_db.exists("processing-predict:pod-1")
    assert [claimed(queue).id for _ in order] == [f"predict:{name}.tif:1" for name in order]


def test_recover_returns_stranded_jobs_in_their_order(queue: JobQueue, redis_db: Any) -> None:
    ids = [submit(redis_db, name) for name in "abc"]
    taken = [claimed(queue).id for _ in ids]
    assert queue.recover() == 3
    assert [claimed(queue).id for _ in ids] == taken


def test_scripts_survive_a_server_that_forgot_them(queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db)
    redis_db.script_flush()
    queue.complete(claimed(queue), {"status": "done"})


def test_a_plain_client_will_do(redis_server: RedisServer, redis_db: Any) -> None:
    submit(redis_db)
    queue = JobQueue(redis_db, "predict", "pod-2")
    queue.complete(claimed(queue), {"status": "done"})
