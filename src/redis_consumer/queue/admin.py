"""Cancels jobs, retries or drops dead letters, and removes jobs that have ended."""

from __future__ import annotations

from redis_consumer.queue.job_queue import JobQueue, timestamp


def cancel(queue: JobQueue, job_id: str) -> str:
    """End a job that no one wants any more, and its children.

    Returns:
        ``cancelled`` (it waited), ``stopping`` (it runs until its next step), ``final`` (it has its result
        already) or ``gone`` (there is no such job).
    """
    reason = f"JobCancelled: job {job_id}: cancelled; submit it again if it was a mistake"
    limits = (queue.options.child_expire_s, queue.options.result_ttl_s)
    return str(queue.run("cancel", job_id, timestamp(), queue.worker, reason, *limits))


def dead_letters(queue: JobQueue, limit: int = -1) -> list[str]:
    """Return the keys of jobs that failed for a reason other than their input, the latest first."""
    return [str(job_id) for job_id in queue.redis.lrange(queue.key("dead"), 0, limit if limit < 0 else limit - 1)]


def retry(queue: JobQueue, job_id: str) -> bool:
    """Return a dead letter to its queue with all its attempts. Return False if it isn't a dead letter."""
    return str(queue.run("retry", job_id, timestamp(), queue.worker)) == "ok"


def drop(queue: JobQueue, job_id: str) -> bool:
    """Remove a job from the dead letters; it stays failed. Return False if it isn't a dead letter."""
    if not queue.redis.lrem(queue.key("dead"), -1, job_id):
        return False
    for kind in ("attempts", "forgiven"):
        queue.redis.hdel(queue.key(kind), job_id)
    return True


def forget(queue: JobQueue, job_id: str, updated_at: str) -> bool:
    """Remove the hash and the dead letter of an ended job. Return False if it has changed since `updated_at`."""
    return str(queue.run("forget", job_id, updated_at)) == "ok"
