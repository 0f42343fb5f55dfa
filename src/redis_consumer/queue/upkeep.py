"""Registers workers, renews leases, returns jobs of dead workers, and lists results that no job names."""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime, timedelta, timezone

from redis_consumer.errors import RedisUnavailable
from redis_consumer.job import Job, OrphanedResult
from redis_consumer.logs import job_context
from redis_consumer.options import WorkerLimits
from redis_consumer.queue.job_queue import ORPHANED_RESULT_S, JobQueue, milliseconds

logger = logging.getLogger(__name__)

#: Seconds after which an entry without a lease counts as stranded: a claim takes milliseconds.
ORPHAN_S = 5.0
#: Jobs returned by one sweep at most, so that it never blocks Redis for long.
SWEEP_LIMIT = 500
#: Children that one sweep checks.
CHILDREN_LIMIT = 1000
ORPHANED_RESULTS_LIMIT = 100
#: Minutes for which the number of completed jobs is kept.
RATES_MIN = 60


def register(queue: JobQueue) -> float:
    """Register the worker's name. Return 0, or for how many seconds another worker still holds it."""
    return int(queue.run("register", queue.worker, milliseconds(queue.options.lease_s), queue.token)) / 1000


def unregister(queue: JobQueue) -> None:
    """Free the worker's name, so that another worker can start under it at once."""
    # If this process was frozen, another one may hold the name by now.
    if (queue.redis.hget(queue.key("registrations"), queue.worker) or "").partition(" ")[0] == queue.token:
        queue.redis.zrem(queue.key("workers"), queue.worker)
        queue.redis.hdel(queue.key("registrations"), queue.worker)
        queue.redis.hdel(queue.key("activities"), queue.worker)


def sweep(queue: JobQueue, *, every_s: float = WorkerLimits.sweep_s) -> list[str]:
    """Return jobs whose lease ran out, and entries without a lease, to their queue.

    Parents learn of children that ended unreported: by a worker that doesn't support child jobs, or by expiry. If the
    clock may have been set, workers first get time to renew: `JobQueue.has_doubts` then says that more jobs may be
    returned `JobQueue.doubt_s` later.

    Args:
        queue: the queue.
        every_s: seconds for which no other sweep of this queue does anything.

    Returns:
        Keys of the returned jobs.
    """
    first_minute = (datetime.now(timezone.utc) - timedelta(minutes=RATES_MIN)).isoformat()[:16]
    times_ms = (milliseconds(every_s), milliseconds(ORPHAN_S))
    limits = (
        SWEEP_LIMIT,
        CHILDREN_LIMIT,
        first_minute,
        milliseconds(queue.options.lease_s),
        queue.options.result_ttl_s,
    )
    doubts, *reply = queue.run("sweep", *times_ms, *limits)
    queue.has_doubts = doubts > 0
    for job_id, processing, attempt in zip(reply[::3], reply[1::3], reply[2::3], strict=True):
        worker = processing.removeprefix(f"processing-{queue.name}:")
        with job_context(job_id=job_id, attempt=int(attempt) if attempt else None, queue=queue.name):
            logger.warning("Swept job %s back to queue %s: its worker %s is gone", job_id, queue.name, worker)
    return list(reply[::3])


def note_orphaned_result(queue: JobQueue, job: Job) -> None:
    """Note that a run which lost its job may have uploaded an object."""
    due_ms = round((time.time() + ORPHANED_RESULT_S) * 1000)
    queue.redis.zadd(queue.key("leftovers"), {f"{job.attempt} {job.id}": due_ms})


def orphaned_results(queue: JobQueue) -> list[OrphanedResult]:
    """Return runs whose objects can be removed now. Each is given again after some minutes, until it is forgotten."""
    reply = queue.run("orphaned_results", ORPHANED_RESULTS_LIMIT, milliseconds(ORPHANED_RESULT_S))
    runs = zip(*(reply[number::4] for number in range(4)), strict=True)
    return [
        OrphanedResult(Job(job_id, attempt=int(attempt)), visible, record) for attempt, job_id, visible, record in runs
    ]


def forget_orphaned_result(queue: JobQueue, orphan: OrphanedResult) -> None:
    """Note that the objects of a run are removed."""
    queue.redis.zrem(queue.key("leftovers"), f"{orphan.job.attempt} {orphan.job.id}")


class Renewal:
    """Renews one job's lease in a thread until it is stopped.

    Native code that blocks the interpreter for longer than a lease stops the renewal. The supervisor has no such limit.
    """

    def __init__(self, queue: JobQueue, job: Job) -> None:
        self._queue = queue
        self._job = job
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"renewal of {job.id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the renewal, because the job is settled."""
        self._is_over.set()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            self._renew()
        finally:
            if hasattr(self._queue.redis, "end_thread"):
                self._queue.redis.end_thread()

    def _renew(self) -> None:
        while not self._is_over.wait(self._queue.options.lease_s / 3):
            try:
                if self._queue.renew([self._job]):
                    return
            except RedisUnavailable as error:
                with job_context(job_id=self._job.id, attempt=self._job.attempt, queue=self._queue.name):
                    logger.warning("Could not renew the lease of job %s: %s", self._job.id, error)
