"""`ZipFileConsumer` in this process, on a real Redis and a real bucket: where it stops when nobody wants its job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redis_consumer.consumers import ZipFileConsumer, claimed_job
from redis_consumer.job import Job
from redis_consumer.ordered_pool import AT_ONCE
from redis_consumer.queue import admin, upkeep
from redis_consumer.redis import RedisClient
from redis_consumer.storage import Storage
from support.archives import TIF, make_zip
from support.queues import claimed

JOB = "predict-zip:a.zip:1"


class Cancelled(ZipFileConsumer):
    """Is cancelled at the third file, or the third child, that it looks at."""

    seen = 0

    def why_skipped(self, name: str) -> str:
        self._look_at_one()
        return super().why_skipped(name)

    def child_jobs(self) -> Iterator[Job]:
        for child in super().child_jobs():
            self._look_at_one()
            yield child

    def _look_at_one(self) -> None:
        self.seen += 1
        if self.seen == 3:
            admin.cancel(self.job_queue, JOB)


@pytest.fixture
def parts(
    redis_client: RedisClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[RedisClient, Storage, str]:
    """What a consumer is made of; each step looks whether the job is wanted."""
    monkeypatch.setattr(claimed_job, "PROGRESS_S", 0.0)
    return redis_client, Storage(tmp_path.as_uri()), "predict"


def submit(db: Any, storage: Storage, names: list[str]) -> None:
    storage.write_bytes("uploads/a.zip", make_zip(dict.fromkeys(names, TIF)))
    db.hset(JOB, mapping={"status": "new", "input_file_name": "uploads/a.zip"})
    db.lpush("predict-zip", JOB)


def reason(db: Any) -> str:
    return str(db.hget(JOB, "reason")).partition(":")[0]


@pytest.mark.parametrize("end", ["txt", "tif"])
def test_it_unpacks_no_further(parts: Any, redis_db: Any, end: str) -> None:
    consumer = Cancelled(*parts, name="pod-1")
    submit(redis_db, parts[1], [f"{number}.{end}" for number in range(90)])
    consumer.run(claimed(consumer.job_queue))
    assert reason(redis_db) == "JobCancelled"
    assert consumer.seen == 3
    assert redis_db.keys("predict:*") == []


def test_it_merges_no_further(parts: Any, redis_db: Any) -> None:
    first, consumer = ZipFileConsumer(*parts, name="pod-1"), Cancelled(*parts, name="pod-1")
    submit(redis_db, parts[1], [f"{number}.tif" for number in range(90)])
    first.run(claimed(first.job_queue))
    for child in redis_db.lrange("predict", 0, -1):
        redis_db.hset(child, mapping={"status": "failed", "reason": "bad"})
    for _ in range(2):
        redis_db.delete(first.job_queue.key("sweep"))
        upkeep.sweep(first.job_queue)
    consumer.run(claimed(consumer.job_queue))
    assert reason(redis_db) == "JobCancelled"
    assert consumer.seen <= 2 * AT_ONCE + 1
    assert not redis_db.hexists(JOB, "output_file_name")
