"""Returns the jobs of slots that died, and tries again while Redis is unavailable."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from redis_consumer.errors import ConsumerError, LeaseLost
from redis_consumer.job import Job
from redis_consumer.logs import job_context
from redis_consumer.queue import JobQueue
from redis_consumer.supervisor.limits import timeout_reason

logger = logging.getLogger(__name__)

#: Seconds between two tries: by far shorter than a lease, whose end would return the job as well.
AGAIN_S = 0.25


@dataclass(frozen=True)
class Return:
    """A job whose slot died.

    Attributes:
        queue: of the job.
        job: the job.
        cause: why the slot ended.
        consumer: name of the class that ran it, None where it isn't known.
        is_crash: whether the attempt counts.
        is_late: whether it took too long; a job that does so again fails.
    """

    queue: JobQueue
    job: Job
    cause: str
    consumer: str | None
    is_crash: bool
    is_late: bool = False


class Returns:
    """Returns jobs at once, and those that Redis didn't take some moments later."""

    def __init__(self) -> None:
        self._left: list[Return] = []
        self._again_at = 0.0

    def give(self, returned: Return) -> None:
        """Return a job."""
        if not self._is_over(returned):
            self._left.append(returned)
            self._again_at = time.monotonic() + AGAIN_S
        job, consumer = returned.job, returned.consumer
        # Last: a log on a slow disk must not delay a job.
        with job_context(job_id=job.id, attempt=job.attempt, queue=returned.queue.name, consumer=consumer):
            logger.error("Job %s: its slot ended in attempt %d: %s", job.id, job.attempt, returned.cause)

    def again(self) -> float:
        """Try those again that are left, where it is time for it; give the moment of the next try."""
        if self._left and time.monotonic() >= self._again_at:
            self._left = [each for each in self._left if not self._is_over(each)]
            self._again_at = time.monotonic() + AGAIN_S
        return self._again_at if self._left else float("inf")

    def _is_over(self, returned: Return) -> bool:
        job, consumer = returned.job, returned.consumer
        with job_context(job_id=job.id, attempt=job.attempt, queue=returned.queue.name, consumer=consumer):
            try:
                _return(returned)
            except LeaseLost:
                logger.info("Job %s was settled or taken before", job.id)
            except ConsumerError as error:
                logger.debug("Job %s is returned later: %s", job.id, error)
                return False
        return True


def _return(returned: Return) -> None:
    queue, job, cause = returned.queue, returned.job, returned.cause
    if not returned.is_late:
        queue.give_back(job, is_next=not returned.is_crash, is_crash=returned.is_crash, error=cause)
    elif not queue.give_back_late(job, cause):
        queue.complete(job, {"status": "failed", "reason": timeout_reason(job, cause)}, is_dead=True)
