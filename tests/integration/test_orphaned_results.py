"""Objects of runs that don't count are removed from the bucket, and the visible result never is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from redis_consumer.consumers import TensorFlowServingConsumer
from redis_consumer.consumers.claimed_job import Outcome
from redis_consumer.job import OrphanedResult
from redis_consumer.options import QueueOptions
from redis_consumer.queue import JobQueue, upkeep
from redis_consumer.redis import RedisClient
from redis_consumer.storage import Storage
from support.queues import claimed, submit

LEFTOVERS = "redis-consumer:leftovers:predict"


class Saving(TensorFlowServingConsumer):
    """Uploads a result and says so, as the documentation's example does."""

    def _consume(self, redis_hash: str) -> str:
        self.before_upload()
        key, url = self.save_output(np.zeros((4, 4, 1), np.float32), "cells")
        self.update_key(redis_hash, {"status": self.final_status, "output_file_name": key, "output_url": url})
        return self.final_status

    def before_upload(self) -> None:
        """Replaced by tests."""


@pytest.fixture
def queue(redis_client: RedisClient) -> JobQueue:
    return JobQueue(redis_client, "predict", "pod-2")


@pytest.fixture
def consumer(redis_client: RedisClient, tmp_path: Path) -> Saving:
    folder = tmp_path / "bucket"
    folder.mkdir()
    return Saving(redis_client, Storage(folder.as_uri()), "predict", name="pod-1")


def lose(queue: JobQueue, db: Any) -> None:
    """Let the lease of the running job end, and sweep it."""
    db.zadd(queue.key("leases"), dict.fromkeys(db.zrange(queue.key("leases"), 0, -1), 1))
    db.delete(queue.key("sweep"))
    assert upkeep.sweep(queue)


def make_due(db: Any) -> None:
    db.zadd(LEFTOVERS, dict.fromkeys(db.zrange(LEFTOVERS, 0, -1), 1))


def objects(consumer: Saving) -> list[str]:
    return sorted(path.relative_to(consumer.storage.bucket).as_posix() for path in _zips(consumer))


def _zips(consumer: Saving) -> list[Path]:
    return list(Path(consumer.storage.bucket).rglob("*.zip"))


def test_the_zip_of_a_late_run_goes_and_the_visible_one_stays(
    consumer: Saving, queue: JobQueue, redis_db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = submit(redis_db)
    late = claimed(consumer.job_queue)
    monkeypatch.setattr(consumer, "before_upload", lambda: lose(queue, redis_db))
    assert consumer.run(late) is Outcome.LOST
    monkeypatch.setattr(consumer, "before_upload", lambda: None)
    assert consumer.run(claimed(consumer.job_queue)) is Outcome.SETTLED
    visible = redis_db.hget(job_id, "output_file_name")
    assert len(objects(consumer)) == 2
    make_due(redis_db)
    consumer._clean_up()
    assert objects(consumer) == [visible]
    assert not redis_db.exists(LEFTOVERS)


def test_the_zip_of_a_run_that_was_killed_goes(consumer: Saving, queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db)
    consumer._hold(claimed(consumer.job_queue))
    consumer.save_output(np.zeros((4, 4, 1), np.float32), "cells")
    consumer.save_output(np.zeros((4, 4, 1), np.float32), "more")
    consumer._hold(None)
    lose(queue, redis_db)
    queue.complete(claimed(queue), {"status": "done"}, is_success=True)
    assert len(objects(consumer)) == 2
    make_due(redis_db)
    consumer._clean_up()
    assert objects(consumer) == []


def test_attempts_of_a_dead_letter_leave_nothing(redis_client: RedisClient, redis_db: Any) -> None:
    queue = JobQueue(redis_client, "predict", "pod-2", QueueOptions(max_attempts=2))
    job_id = submit(redis_db)
    for _ in range(2):
        queue.give_back(claimed(queue), is_crash=True)
    assert queue.claim() is None
    assert sorted(redis_db.zrange(LEFTOVERS, 0, -1)) == [f"1 {job_id}", f"2 {job_id}"]


def test_they_are_left_until_late_runs_are_over(queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db)
    upkeep.note_orphaned_result(queue, claimed(queue))
    assert upkeep.orphaned_results(queue) == []


def test_a_job_that_runs_again_keeps_what_it_has(queue: JobQueue, redis_db: Any) -> None:
    submit(redis_db)
    upkeep.note_orphaned_result(queue, claimed(queue))
    make_due(redis_db)
    assert upkeep.orphaned_results(queue) == []
    assert redis_db.zcard(LEFTOVERS) == 1


def test_a_job_that_is_gone_leaves_nothing(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db)
    job = claimed(queue)
    upkeep.note_orphaned_result(queue, job)
    redis_db.delete(job_id)
    make_due(redis_db)
    [orphan] = upkeep.orphaned_results(queue)
    assert (orphan.job.id, orphan.job.attempt, orphan.visible) == (job_id, 1, "")


def test_one_that_could_not_be_removed_comes_again_later(queue: JobQueue, redis_db: Any) -> None:
    job_id = submit(redis_db, status="done")
    redis_db.zadd(LEFTOVERS, {f"1 {job_id}": 1})
    [orphan] = upkeep.orphaned_results(queue)
    assert upkeep.orphaned_results(queue) == []
    make_due(redis_db)
    assert upkeep.orphaned_results(queue) == [orphan]
    upkeep.forget_orphaned_result(queue, orphan)
    assert not redis_db.exists(LEFTOVERS)


def test_a_bucket_that_cannot_delete_is_left_alone(redis_client: RedisClient, queue: JobQueue, redis_db: Any) -> None:
    consumer = Saving(redis_client, object(), "predict", name="pod-1")
    submit(redis_db)
    consumer.discard(OrphanedResult(claimed(queue), ""))
