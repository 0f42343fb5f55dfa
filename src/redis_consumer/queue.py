"""Who has which job: every state change of a job in Redis, one script each.

The lists and hashes are those of the contract (sections 1.1 to 1.4), so that foreign producers, workers, the
janitor and the autoscaler see what they always saw.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

from redis_consumer.errors import LeaseLost
from redis_consumer.job import Job
from redis_consumer.redis import Script

logger = logging.getLogger(__name__)


def timestamp() -> str:
    """Now in UTC with its zone, as every neighbour parses it (contract, section 1.3)."""
    return datetime.now(timezone.utc).isoformat()


class JobQueue:
    """The queue of one type of event, as one worker sees it.

    Args:
        redis: a `RedisClient`, or any client with redis-py's commands that decodes replies.
        name: the list that producers push to; lower-cased.
        worker: name of this worker, unique among the living ones, without a colon.
    """

    def __init__(self, redis: Any, name: str, worker: str) -> None:
        self.redis = redis
        self.name = name.lower()
        self.worker = worker
        self.processing = f"processing-{self.name}:{worker}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, worker={self.worker!r})"

    def claim(self, timeout_s: float = 0.0) -> Job | None:
        """Take the job that waits longest; wait up to `timeout_s` for one, 0 for a look only.

        Keys that can't be run, since their hash is gone, is no hash or has its result already, are dropped with a
        log line.

        Raises:
            RedisUnavailable: no reply. A job may have been taken all the same: call `recover` before the next claim.
        """
        if timeout_s > 0:
            job_id = self.redis.blmove(self.name, self.processing, timeout_s, src="RIGHT", dest="LEFT")
        else:
            job_id = self.redis.lmove(self.name, self.processing, src="RIGHT", dest="LEFT")
        return None if job_id is None else self._open(job_id)

    def _open(self, job_id: str) -> Job | None:
        outcome, *values = self._run("claim", [self.processing, job_id], [job_id, timestamp(), self.worker])
        if outcome == "claimed":
            return Job(job_id, dict(zip(values[::2], values[1::2], strict=True)))
        what = {
            "gone": "its hash is gone (expired or deleted)",
            "no hash": f"the key holds a {' '.join(values)}, not a hash",
            "final": f"it is {' '.join(values)} already",
        }[outcome]
        logger.warning("Dropped job %s from queue %s: %s", job_id, self.name, what)
        return None

    def update(self, job: Job, fields: Mapping[str, Any]) -> None:
        """Write fields of a running job, with ``updated_at`` and ``updated_by``.

        Raises:
            LeaseLost: the job isn't ours any more; nothing was written.
        """
        if not self._run("update", [self.processing, job.id], [job.id, *_flat(self.stamp(fields))]):
            raise self._lost(job)

    def complete(self, job: Job, fields: Mapping[str, Any]) -> None:
        """Settle a job: write its last fields, a final ``status`` among them, and end the claim.

        Raises:
            LeaseLost: the job isn't ours any more; nothing was written.
        """
        stamped = self.stamp(fields)
        arguments = [job.id, stamped["updated_at"], *_flat(stamped)]
        if not self._run("complete", [self.processing, job.id], arguments):
            raise self._lost(job)

    def give_back(self, job: Job, *, is_next: bool = False) -> None:
        """Return a job to its queue, unsettled: to the end of the line, or as the next one to be taken.

        Raises:
            LeaseLost: the job isn't ours any more; nothing was pushed.
        """
        where = "next" if is_next else "last"
        if not self._run("give_back", [self.processing, self.name], [job.id, where]):
            raise self._lost(job)

    def recover(self) -> int:
        """Return what this worker's processing list holds to the queue, as next in line; say how many jobs.

        Only while this worker runs no job: at its start, and after a claim whose reply was lost.
        """
        count = 0
        while self.redis.lmove(self.processing, self.name, src="LEFT", dest="RIGHT") is not None:
            count += 1
        if count:
            logger.warning("Returned %d stranded job(s) from %s to queue %s", count, self.processing, self.name)
        return count

    def stamp(self, fields: Mapping[str, Any]) -> dict[str, str]:
        """Turn values into the texts that Redis holds (None becomes empty) and say when and by whom."""
        texts = {name: "" if value is None else str(value) for name, value in fields.items()}
        return {**texts, "updated_at": timestamp(), "updated_by": self.worker}

    def _lost(self, job: Job) -> LeaseLost:
        return LeaseLost(
            f"job {job.id}: no longer in {self.processing}, or its hash is gone; its result is dropped",
            job_id=job.id,
            attempt=job.attempt,
        )

    def _run(self, name: str, keys: list[str], arguments: list[str]) -> Any:
        return _script(name).run(self.redis, keys, arguments)


def _flat(fields: Mapping[str, str]) -> list[str]:
    return [text for pair in fields.items() for text in pair]


@cache
def _script(name: str) -> Script:
    return Script(Path(__file__).parent / "lua" / f"{name}.lua")
