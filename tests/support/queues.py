"""Puts jobs into queues and brings them into states, as producers and workers do."""

from __future__ import annotations

from typing import Any

from redis_consumer.job import Job
from redis_consumer.queue import JobQueue


def submit(db: Any, name: str = "a", queue: str = "predict", **fields: str) -> str:
    """What the frontend does: hash first, then its key to the left of the list."""
    job_id = f"{queue}:{name}.tif:1"
    db.hset(job_id, mapping={"status": "new", "input_file_name": f"uploads/{name}.tif", **fields})
    db.lpush(queue, job_id)
    return job_id


def claimed(queue: JobQueue) -> Job:
    """Claim a job that must be there."""
    job = queue.claim()
    assert job is not None
    return job


def give_up(db: Any, queue: JobQueue, name: str = "a", **fields: str) -> str:
    """Submit a job and make it a dead letter."""
    job_id = submit(db, name, queue.name, original_name=f"{name}.tif", **fields)
    reason = f"Traceback\n  of {name}\nValueError: {name} is odd"
    queue.complete(claimed(queue), {"status": "failed", "reason": reason}, is_dead=True)
    return job_id


def counted_runs(db: Any, job_id: str, queue: str = "predict") -> int:
    """Runs of a job that count against ``MAX_ATTEMPTS``."""
    attempts, forgiven = (db.hget(f"redis-consumer:{kind}:{queue}", job_id) for kind in ("attempts", "forgiven"))
    return int(attempts or 0) - int(forgiven or 0)
