"""Runs jobs and their children in one process, without workers, leases or scripts in Redis."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from redis_consumer.consumers.base import Consumer
from redis_consumer.consumers.claimed_job import Outcome
from redis_consumer.errors import JobCancelled, LeaseLost, PermanentError
from redis_consumer.job import FINAL_STATUSES, Job, JobStatus
from redis_consumer.queue import JobQueue, timestamp
from redis_consumer.queue.child_jobs import NEXT_PHASE, ChildJobs

#: Levels of children below a job. A consumer that divides each of its parts again would never end.
MOST_LEVELS = 16


class JobHashes:
    """The hashes of jobs in this process, instead of in Redis.

    Attributes:
        on_write: called with the job after each write to a hash that exists.
    """

    def __init__(self, on_write: Callable[[Job], None] | None = None) -> None:
        self.on_write = on_write
        self._hashes: dict[str, dict[str, str]] = {}

    def __getattr__(self, name: str) -> Any:
        raise PermanentError(
            f"redis.{name}: this run has no Redis, only hashes of jobs; a consumer that needs more of it can't run so"
        )

    def hset(
        self, key: str, field: str | None = None, value: Any = None, mapping: Mapping[str, Any] | None = None
    ) -> int:
        """Write fields of a job."""
        given = {**({} if field is None else {field: value}), **(mapping or {})}
        is_told = key in self._hashes and self.on_write is not None
        self._hashes.setdefault(key, {}).update({name: str(text) for name, text in given.items()})
        if is_told and self.on_write is not None:
            self.on_write(Job(key, self.hgetall(key)))
        return len(given)

    def hget(self, key: str, field: str) -> str | None:
        """Read a field of a job."""
        return self._hashes.get(key, {}).get(field)

    def hgetall(self, key: str) -> dict[str, str]:
        """Read all fields of a job."""
        return dict(self._hashes.get(key, {}))

    def delete(self, *keys: str) -> int:
        """Remove jobs."""
        return sum(self._hashes.pop(key, None) is not None for key in keys)

    def ping(self) -> bool:
        """Return at once."""
        return True

    def close(self) -> None:
        """Do nothing. The hashes end with this object."""


class LocalJobs:
    """The jobs of one process: their queues, holders, parents and children.

    Args:
        redis: the client of the consumers; it holds the hashes of the jobs.
        consumer_for: returns the consumer for a job and the queue from which it was claimed, prepared by `seat`.

    Attributes:
        attempts: number of the last run of each job.
        outcomes: how the last run of each job ended, in the order of their first runs.
        last_error: why the last job was given back.
    """

    def __init__(self, redis: Any, consumer_for: Callable[[Job, str], Consumer]) -> None:
        self.redis = redis
        self.attempts: dict[str, int] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.last_error = ""
        self._consumer_for = consumer_for
        self._waiting: deque[str] = deque()
        self._queues: dict[str, str] = {}
        self._holders: dict[str, int] = {}
        self._cancelled: set[str] = set()
        self._parents: dict[str, str] = {}
        self._children: dict[str, list[str]] = {}

    def seat(self, consumer: Consumer) -> Consumer:
        """Make a consumer claim its jobs here. It must have been made with the same `redis`."""
        consumer.job_queue = LocalQueue(self, consumer.queue, consumer.name)
        consumer._child_jobs = LocalChildJobs
        return consumer

    def submit(self, queue: str, job_id: str, *, attempt: int = 0) -> None:
        """Put a job into a queue. Its hash must exist.

        Args:
            queue: name of the queue.
            job_id: key of the job.
            attempt: number of the run before the next one.
        """
        self._queues[job_id], self.attempts[job_id] = queue, attempt
        self._waiting.append(job_id)

    def clear(self) -> None:
        """Remove all waiting jobs and all outcomes."""
        self._waiting.clear()
        self.outcomes.clear()

    def run(self) -> bool:
        """Run the waiting jobs and their children, one after another.

        Returns:
            Whether all of them were settled. The run stops at the first job that isn't.

        Raises:
            PermanentError: children have children, more than `MOST_LEVELS` deep.
        """
        while self._waiting:
            queue = self._queues[self._waiting[0]]
            job = self.claim(queue)
            if job is None:
                continue
            outcome = self._consumer_for(job, queue).run(job)
            self.outcomes[job.id] = outcome
            if outcome is not Outcome.SETTLED:
                return False
        return True

    def claim(self, queue: str) -> Job | None:
        """Take the next job of a queue; None if none waits."""
        job_id = next((each for each in self._waiting if self._queues[each] == queue), None)
        if job_id is None:
            return None
        self._waiting.remove(job_id)
        if len(list(self._line(job_id))) > MOST_LEVELS:
            raise PermanentError(
                f"job {job_id}: is a child of children, {MOST_LEVELS} deep; a consumer divides its own parts"
            )
        if self._is_cancelled(job_id):
            reason = f"JobCancelled: job {job_id}: its parent job was cancelled"
            self.redis.hset(job_id, mapping={"status": JobStatus.FAILED.value, "reason": reason})
            self.end(job_id)
            return None
        self.attempts[job_id] = self._holders[job_id] = self.attempts[job_id] + 1
        return Job(job_id, self.redis.hgetall(job_id), self.attempts[job_id])

    def check(self, job: Job, *, may_be_cancelled: bool = False) -> None:
        """Raise an error if a run no longer holds its job.

        Raises:
            LeaseLost: it doesn't.
            JobCancelled: the job, or a parent of it, was cancelled.
        """
        if self._holders.get(job.id) != job.attempt:
            raise LeaseLost(f"job {job.id}: attempt {job.attempt} holds it no longer", job_id=job.id)
        if not may_be_cancelled and self._is_cancelled(job.id):
            raise JobCancelled(f"job {job.id}: cancelled; submit it again if it was a mistake", job_id=job.id)

    def _is_cancelled(self, job_id: str) -> bool:
        return any(each in self._cancelled for each in self._line(job_id))

    def _line(self, job_id: str) -> Iterator[str]:
        """Yield a job, its parent, the parent of that, and so on."""
        line: str | None = job_id
        while line is not None:
            yield line
            line = self._parents.get(line)

    def cancel(self, job_id: str) -> None:
        """Cancel a job and its children. They end at their next write."""
        self._cancelled.add(job_id)

    def take_away(self, job_id: str) -> None:
        """Hand a job to another worker, as after the end of its lease."""
        self._holders[job_id] += 1

    def give_back(self, job: Job, *, is_next: bool, error: str) -> None:
        """Put a job back into its queue."""
        del self._holders[job.id]
        self.last_error = error
        (self._waiting.appendleft if is_next else self._waiting.append)(job.id)

    def end(self, job_id: str) -> None:
        """End the claim of a job. After the last child, the parent continues."""
        self._holders.pop(job_id, None)
        self._cancelled.discard(job_id)
        parent = self._parents.get(job_id)
        if parent is not None:
            self._wake(parent)

    def divide(self, parent: str, children: Sequence[str]) -> None:
        """Put children into their queues, and let their parent wait for all of them."""
        self._holders.pop(parent, None)
        self._children[parent] = list(children)
        for child in children:
            self._parents[child] = parent
            self.submit(child.partition(":")[0], child)
        self._wake(parent)

    def children_of(self, job_id: str) -> Iterator[Job]:
        """Return the children of a job in order."""
        return (Job(child, self.redis.hgetall(child)) for child in self._children.get(job_id, ()))

    def _wake(self, parent: str) -> None:
        if all(child.status in FINAL_STATUSES for child in self.children_of(parent)):
            self._waiting.appendleft(parent)


class LocalQueue(JobQueue):
    """One of the queues of `LocalJobs`."""

    def __init__(self, jobs: LocalJobs, name: str, worker: str) -> None:
        super().__init__(jobs.redis, name, worker)
        self.jobs = jobs

    def claim(self, timeout_s: float = 0.0) -> Job | None:  # noqa: ARG002 - no one else brings a job
        """Take the next job of this queue."""
        return self.jobs.claim(self.name)

    def update(self, job: Job, fields: Mapping[str, Any]) -> None:
        """Write fields of the running job."""
        self.jobs.check(job)
        self.redis.hset(job.id, mapping=self.stamp(fields))

    def complete(
        self,
        job: Job,
        fields: Mapping[str, Any],
        *,
        is_success: bool = False,
        is_dead: bool = False,  # noqa: ARG002 - no one retries it
        is_last: bool = False,  # noqa: ARG002 - nothing is saved by it
    ) -> None:
        """Write the last fields of the running job."""
        self.jobs.check(job, may_be_cancelled=not is_success)
        finished = {"finished_at": timestamp()} if is_success else {}
        self.redis.hset(job.id, mapping=self.stamp({**finished, **fields}))
        self.jobs.end(job.id)

    def give_back(self, job: Job, *, is_next: bool = False, is_crash: bool = False, error: str = "") -> None:
        """Return the running job to its queue."""
        self.jobs.check(job, may_be_cancelled=True)
        self.jobs.give_back(job, is_next=is_next or is_crash, error=error)

    def renew(self, jobs: Iterable[Job] = (), activity: str = "") -> list[str]:  # noqa: ARG002 - no lease ends
        """Do nothing, because no job can be lost."""
        return []


class LocalChildJobs(ChildJobs):
    """The children of a job of `LocalJobs`."""

    def __init__(self, queue: JobQueue, parent: Job) -> None:
        super().__init__(queue, parent)
        self._jobs: LocalJobs = queue.jobs  # type: ignore[attr-defined]
        self._keys: list[str] = []

    def write_children(self, children: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
        """Write hashes of children that aren't in their queues yet."""
        self._jobs.check(self.parent)
        for key, fields in children:
            self.queue.redis.delete(key)
            self.queue.redis.hset(key, mapping=self.queue.stamp({**fields, "parent": self.parent.id}))
            self._keys.append(key)

    def unserved(self, queues: Iterable[str]) -> list[str]:  # noqa: ARG002
        """Return no queue, because the jobs of all queues run here."""
        return []

    def fan_out(self, then: str, fields: Mapping[str, Any], *, share: int = 100) -> None:  # noqa: ARG002
        """Make the parent wait for the children."""
        keys = {"children": ",".join(self._keys), "total_jobs": len(self._keys), "progress": 0}
        waiting = {"status": JobStatus.WAITING.value, NEXT_PHASE: then}
        self.queue.update(self.parent, {**keys, **fields, **waiting})
        self._jobs.divide(self.parent.id, self._keys)

    def adopt(self, then: str, fields: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Refuse children that an older worker has pushed.

        Raises:
            PermanentError: always.
        """
        raise PermanentError(f"job {self.parent.id}: its children are an older worker's; submit it again")

    def children(self) -> Iterator[Job]:
        """Return all children in order."""
        return self._jobs.children_of(self.parent.id)
