"""Renews the lease of a job where no supervisor does: in scripts that run consumers by themselves."""

from __future__ import annotations

import logging
import threading

from redis_consumer.errors import RedisUnavailable
from redis_consumer.job import Job
from redis_consumer.logs import job_context
from redis_consumer.queue import JobQueue

logger = logging.getLogger(__name__)


class Renewal:
    """Renews one job's lease in a thread until it is stopped.

    Native code that holds the interpreter for longer than a lease stalls it; the supervisor has no such limit.
    """

    def __init__(self, queue: JobQueue, job: Job) -> None:
        self._queue = queue
        self._job = job
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"renewal of {job.id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Renew no more; the job is settled."""
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
