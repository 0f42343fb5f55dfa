"""Runs a job in this process alone, without Redis, queue or other workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from redis_consumer.consumers.base import Consumer
from redis_consumer.errors import PermanentError, RetryableError
from redis_consumer.job import Job, JobStatus
from redis_consumer.queue import JobQueue
from redis_consumer.queue.child_jobs import NEXT_PHASE, ChildJobs

#: Children of children of a job, and so on: a consumer that divides what it made of a job would never come to an end.
MOST_LEVELS = 16

OnWrite = Callable[[Job], None]
"""Told of a job after each write to its hash, with all of its fields."""


class Desk:
    """The hashes of the jobs that run in this process; it stands in for a `RedisClient`.

    Attributes:
        families: keys of the children by the key of their parent.
        on_write: told of each write.
    """

    def __init__(self, on_write: OnWrite | None = None) -> None:
        self.families: dict[str, list[str]] = {}
        self.on_write = on_write
        self._hashes: dict[str, dict[str, str]] = {}

    def __getattr__(self, name: str) -> Any:
        raise PermanentError(
            f"redis.{name}: this run has no Redis, only hashes of jobs; a consumer that needs more of it can't run so"
        )

    def put(self, job: Job) -> None:
        """Lay down a job."""
        self._hashes[job.id] = dict(job.fields)

    def job(self, key: str, attempt: int = 1) -> Job:
        """A job as it is now."""
        return Job(key, self._hashes.get(key, {}), attempt)

    def hset(
        self, key: str, field: str | None = None, value: Any = None, mapping: Mapping[str, Any] | None = None
    ) -> int:
        """Write fields of a job."""
        given = {**({} if field is None else {field: value}), **(mapping or {})}
        self._hashes.setdefault(key, {}).update({name: str(text) for name, text in given.items()})
        if self.on_write is not None:
            self.on_write(self.job(key))
        return len(given)

    def hget(self, key: str, field: str) -> str | None:
        """Read a field of a job."""
        return self._hashes.get(key, {}).get(field)

    def hgetall(self, key: str) -> dict[str, str]:
        """Read all fields of a job."""
        return dict(self._hashes.get(key, {}))

    def ping(self) -> bool:
        """Nothing is ever away."""
        return True

    def close(self) -> None:
        """Keep the hashes; they end with this object."""


class DeskQueue(JobQueue):
    """Settles jobs on a desk. There is nobody else, so no lease is ever lost."""

    def update(self, job: Job, fields: Mapping[str, Any]) -> None:
        """Write fields of the running job."""
        self.redis.hset(job.id, mapping=self.stamp(fields))

    def complete(
        self,
        job: Job,
        fields: Mapping[str, Any],
        *,
        is_success: bool = False,  # noqa: ARG002 - nobody can have cancelled it
        is_dead: bool = False,  # noqa: ARG002 - nobody retries it
        is_last: bool = False,  # noqa: ARG002 - there is no next one
    ) -> None:
        """Write the last fields of the running job."""
        self.update(job, fields)

    def give_back(self, job: Job, *, is_next: bool = False, is_crash: bool = False, error: str = "") -> None:  # noqa: ARG002
        """There is nobody to give a job back to.

        Raises:
            RetryableError: a service is unavailable; the text names it.
        """
        raise RetryableError(error or f"job {job.id}: was put back; it can't end here", job_id=job.id)


class DeskChildJobs(ChildJobs):
    """The children of a job on a desk."""

    def write_children(self, children: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Lay down children."""
        for key, fields in children:
            self.queue.redis.put(Job(key, self.queue.stamp(fields)))
        self._lay([key for key, _ in children])

    def fan_out(self, then: str, fields: Mapping[str, Any], *, share: int = 100) -> None:  # noqa: ARG002
        """Let the parent wait."""
        self._lay([])
        waiting = {"total_jobs": self._written, "status": JobStatus.WAITING.value, NEXT_PHASE: then}
        self.queue.update(self.parent, {**fields, **waiting})

    def adopt(self, then: str, fields: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Children that an older worker has pushed aren't here.

        Raises:
            PermanentError: always.
        """
        raise PermanentError(f"job {self.parent.id}: its children are an older worker's; submit it again")

    def children(self) -> Iterator[Job]:
        """Give all children in order."""
        return map(self.queue.redis.job, self._desk()[self.parent.id])

    def _lay(self, keys: list[str]) -> None:
        """Let children follow those of this phase; those of an earlier one have ended."""
        before = self._desk()[self.parent.id] if self._written else []
        self._desk()[self.parent.id] = [*before, *keys]
        self._written += len(keys)

    def _desk(self) -> dict[str, list[str]]:
        families: dict[str, list[str]] = self.queue.redis.families
        return families


def seat(consumer: Consumer, desk: Desk) -> Consumer:
    """Let a consumer, made with `desk` as its Redis, work there alone."""
    consumer.job_queue = DeskQueue(desk, consumer.queue, consumer.name)
    consumer._child_jobs = DeskChildJobs
    return consumer


def run_to_its_end(job: Job, desk: Desk, consumer_for: Callable[[Job], Consumer]) -> Job:
    """Run a job, and the children that it is divided into, one after the other.

    Args:
        job: what to run; it is laid on the desk.
        desk: where consumers were seated.
        consumer_for: asked before each run, for the job and for its children.

    Returns:
        The job with its last fields.

    Raises:
        PermanentError: children have children more than `MOST_LEVELS` deep.
        RetryableError: an external service is unavailable.
        SettingsError: a setting is wrong.
    """
    return _run(job, desk, consumer_for, MOST_LEVELS)


def _run(job: Job, desk: Desk, consumer_for: Callable[[Job], Consumer], levels: int) -> Job:
    if not levels:
        raise PermanentError(
            f"job {job.id}: is a child of children, {MOST_LEVELS} deep; a consumer divides its own parts"
        )
    desk.put(job)
    consumer_for(job).run(job)
    while desk.job(job.id).status == JobStatus.WAITING:
        for key in desk.families[job.id]:
            _run(desk.job(key), desk, consumer_for, levels - 1)
        consumer_for(job).run(desk.job(job.id, job.attempt))
    return desk.job(job.id, job.attempt)
