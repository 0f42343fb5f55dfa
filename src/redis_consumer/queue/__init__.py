"""The queue of jobs in Redis: claims, leases, results, child jobs, upkeep and administration."""

from __future__ import annotations

from redis_consumer.queue.job_queue import OUTAGES_ALLOWED, JobQueue, timestamp

__all__ = ["OUTAGES_ALLOWED", "JobQueue", "timestamp"]
