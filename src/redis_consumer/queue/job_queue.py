"""Claims and settles jobs in Redis, with one script (``lua/``) for each change of state.

The lists and hashes are those of the contract (sections 1.1 to 1.4). Producers, workers, the janitor and the autoscaler
of other software use the same ones. `redis_consumer.queue.scripts` lists the package's own keys.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from redis_consumer.errors import JobCancelled, LeaseLost, RedisUnavailable
from redis_consumer.job import Job
from redis_consumer.logs import job_context
from redis_consumer.options import QueueOptions
from redis_consumer.queue.scripts import Call, flat, own_key, run_script, run_together, text_of
from redis_consumer.redis import MAX_BLOCK_S
from redis_consumer.text import MAX_TEXT, cut

logger = logging.getLogger(__name__)

#: Number of outages of a job while others succeed, after which its attempts count.
OUTAGES_ALLOWED = 3
#: Seconds after which the objects of runs without a visible result are removed. A late run may still upload.
ORPHANED_RESULT_S = 600.0
#: Seconds within which a replica must confirm.
CONFIRM_S = 1.0


def timestamp() -> str:
    """Return the current time in UTC with its zone, in the format that every neighbour parses (contract, section
    1.3).
    """
    return datetime.now(timezone.utc).isoformat()


class JobQueue:
    """The queue of one kind of job, for one worker.

    Args:
        redis: a `RedisClient`, or any client with redis-py's commands that decodes replies.
        name: the list that producers push to; lower-cased.
        worker: name of this worker, unique among running workers, without a colon.
        options: times and limits of its jobs; None for the defaults.
    """

    def __init__(self, redis: Any, name: str, worker: str, options: QueueOptions | None = None) -> None:
        self.redis = redis
        self.name = name.lower()
        self.worker = worker
        self.options = options or QueueOptions()
        self.processing = f"processing-{self.name}:{worker}"
        #: Whether settling a job also takes the next one, if the caller has finished with the job.
        self.is_chained = False
        #: Whether the last sweep found leases that may not have ended; see `upkeep.sweep`.
        self.has_doubts = False
        #: Distinguishes this process from another one with the same name.
        self.token = uuid.uuid4().hex
        self._seems_empty = False
        self._claimed: list[Any] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, worker={self.worker!r})"

    @property
    def doubt_s(self) -> float:
        """Seconds within which a running worker renews its leases."""
        return 0.4 * self.options.lease_s

    def key(self, kind: str) -> str:
        """Return the name of one of the package's keys for this queue."""
        return own_key(kind, self.name)

    def claim(self, timeout_s: float = 0.0) -> Job | None:
        """Take the oldest waiting job. Wait up to `timeout_s` seconds for one (10 s at most); 0 doesn't wait.

        Some keys are dropped with a log line: the hash is gone, is not a hash or already has a result, or the job runs
        elsewhere. A job without an attempt left is also dropped and becomes a dead letter.

        Raises:
            RedisUnavailable: no reply. If a job was taken nevertheless, a sweep returns it.
        """
        job_id = ""
        if self._claimed is None and self._seems_empty and timeout_s > 0:
            wait_s = min(timeout_s, MAX_BLOCK_S)
            self._seems_empty = False  # otherwise a Redis that lost its data would not know our list, see claim.lua
            job_id = self.redis.blmove(self.name, self.processing, wait_s, src="RIGHT", dest="LEFT")
            if job_id == "":
                self.redis.lrem(self.processing, 1, "")  # pushed by other software; no job has this key
            if not job_id:
                return None
        reply, self._claimed = self._claimed or run_script(self.redis, self._claim_of(job_id)), None
        self._seems_empty = reply[0] == "empty"
        if self._seems_empty and timeout_s > 0:
            return self.claim(timeout_s)
        return self._opened(reply)

    def release(self) -> None:
        """Return a job that was taken at the end of the last one, but not returned by `claim`; see `is_chained`."""
        job, self._claimed = self._opened(self._claimed or ["empty"]), None
        if job is not None:
            self.give_back(job, is_next=True)

    def _opened(self, reply: list[Any]) -> Job | None:
        """Read the reply of the claim script; None if there is no job that can be run."""
        outcome, *values = reply
        if outcome == "claimed":
            attempt, job_id, *texts = values
            return Job(job_id, dict(zip(texts[::2], texts[1::2], strict=True)), int(attempt))
        if outcome != "empty":
            self._note_dropped(outcome, values)
        return None

    def _claim_of(self, moved: str = "", at: str = "") -> Call:
        limits = (
            milliseconds(self.options.lease_s),
            self.options.max_attempts,
            milliseconds(ORPHANED_RESULT_S),
            self.options.result_ttl_s,
        )
        return Call("claim", self.name, [moved, self.worker, at or timestamp(), *limits])

    def _note_dropped(self, outcome: str, values: list[Any]) -> None:
        job_id, *details = values
        what = {
            "gone": "its hash is gone (expired or deleted)",
            "no hash": "the key holds a {}, not a hash",
            "final": "it is {} already",
            "held": "it runs in {}",
            "dead": "it became a dead letter after {} attempts",
            "waits": "it waits for its children",
            "too large": "it failed, {}",
            "unwanted": "its parent job was cancelled, or is gone",
        }[outcome]
        with job_context(job_id=job_id, queue=self.name):
            logger.warning("Dropped job %s from queue %s: %s", job_id, self.name, what.format(*details))

    def update(self, job: Job, fields: Mapping[str, Any]) -> None:
        """Write fields of a running job, with ``updated_at`` and ``updated_by``.

        Raises:
            LeaseLost: this worker no longer holds the job; nothing was written.
            JobCancelled: the job was cancelled; nothing was written.
        """
        self.run_for(job, "update", *flat(self.stamp(fields)))

    def complete(
        self,
        job: Job,
        fields: Mapping[str, Any],
        *,
        is_success: bool = False,
        is_dead: bool = False,
        is_last: bool = False,
    ) -> None:
        """Settle a job: write its last fields, including a final ``status``, and end the claim.

        Args:
            job: the running job.
            fields: what to write.
            is_success: whether it has a result. A cancelled job has none, and must fail.
            is_dead: whether to list it among the dead letters, which can be retried.
            is_last: whether the caller has finished with the job. With `is_chained`, the next job is then taken in the
                same round trip, and `claim` returns it.

        Raises:
            LeaseLost: this worker no longer holds the job; nothing was written.
            JobCancelled: the job was cancelled; nothing was written, and this worker still holds it.
        """
        stamped = self.stamp(fields)
        if is_success:
            stamped.setdefault("finished_at", stamped["updated_at"])
        outcome = "done" if is_success else "dead" if is_dead else "failed"
        limits = (milliseconds(ORPHANED_RESULT_S), self.options.child_expire_s, self.options.result_ttl_s)
        call = self._call_for(job, "complete", outcome, stamped["updated_at"], *limits, *flat(stamped))
        if self.options.replicas:
            self._complete_confirmed(call, job)
        elif is_last and self.is_chained and self._claimed is None:
            reply, self._claimed = run_together(self.redis, [call, self._claim_of(at=stamped["updated_at"])])
            check_reply(reply, job)
        else:
            check_reply(run_script(self.redis, call), job)

    def _complete_confirmed(self, call: Call, job: Job) -> None:
        reply, confirmed = run_together(self.redis, [call], ("WAIT", self.options.replicas, milliseconds(CONFIRM_S)))
        check_reply(reply, job)
        if int(confirmed) < self.options.replicas:
            what = "Result of job %s is on %d of %d replicas: a failover now would undo it, and run the job again"
            logger.warning(what, job.id, confirmed, self.options.replicas)

    def give_back(self, job: Job, *, is_next: bool = False, is_crash: bool = False, error: str = "") -> None:
        """Return a job to the back of its queue, after an outage.

        The attempt is not counted, unless other jobs succeed between the outages of a job.

        Args:
            job: the running job.
            is_next: return it to the front, because this worker stops; the attempt is not counted.
            is_crash: return it to the front, because its process died; the attempt is counted.
            error: the problem on one line, for the reason of a dead letter.

        Raises:
            LeaseLost: this worker no longer holds the job; nothing was pushed.
        """
        how = "crashed" if is_crash else "next" if is_next else "last"
        self.run_for(job, "give_back", how, OUTAGES_ALLOWED, error)

    def give_back_late(self, job: Job, error: str) -> bool:
        """Return a job that took too long, like after a crash.

        Returns:
            False if it took too long too often. This worker then still holds it, and must settle it as failed.
        """
        return self.run_for(job, "give_back", "late", OUTAGES_ALLOWED, error) == "ok"

    def note_recovery(self) -> None:
        """Note that a service that was unavailable responds to this worker again."""
        self.redis.incr(self.key("recovered"))

    def renew(self, jobs: Iterable[Job] = (), activity: str = "") -> list[str]:
        """Extend the leases of running jobs and this worker's registration. Return the jobs that were lost.

        Args:
            jobs: the running jobs.
            activity: what the worker does, as JSON; empty to leave what it published before.
        """
        runs = [text for job in jobs for text in (job.id, job.attempt)]
        lease_ms = milliseconds(self.options.lease_s)
        return list(self.run("renew", self.worker, lease_ms, timestamp(), self.token, activity, *runs))

    def has_work(self, names: Sequence[str]) -> bool:
        """Return whether jobs wait in one of these queues. For several queues, running jobs that can create jobs count
        too.
        """
        for name in names:
            if self.redis.llen(name):
                return True
            if len(names) > 1 and self.redis.exists(own_key("holders", name), own_key("waiting", name)):
                return True
        return False

    def stamp(self, fields: Mapping[str, Any]) -> dict[str, str]:
        """Convert values to texts (None becomes empty), and add the time and the worker."""
        texts = {name: text_of(value) for name, value in fields.items()}
        if "reason" in texts:  # an error of a plug-in, which may contain the whole job
            texts["reason"] = cut(texts["reason"], MAX_TEXT)
        return {**texts, "updated_at": timestamp(), "updated_by": self.worker}

    def run(self, script: str, *arguments: str | int) -> Any:
        """Run a script of ``lua/`` on this queue."""
        return run_script(self.redis, Call(script, self.name, arguments))

    def run_for(self, job: Job, script: str, *arguments: str | int) -> str:
        """Run a script that only the holder of a job may run, and return its reply.

        Raises:
            LeaseLost, JobCancelled, RedisUnavailable: see `check_reply`.
        """
        return check_reply(run_script(self.redis, self._call_for(job, script, *arguments)), job)

    def _call_for(self, job: Job, script: str, *arguments: str | int) -> Call:
        return Call(script, self.name, [job.id, job.attempt, self.worker, *arguments])


def check_reply(reply: str, job: Job) -> str:
    """Raise the error that a script's reply stands for. Return any other reply.

    Raises:
        LeaseLost: ``lost``: this attempt no longer holds the job.
        JobCancelled: ``cancelled``: the job or its parent was cancelled.
        RedisUnavailable: ``missing children``: Redis lost what was written before.
    """
    if reply == "lost":
        raise LeaseLost(
            f"job {job.id}: attempt {job.attempt} holds it no longer, or its hash is gone; its result is dropped",
            job_id=job.id,
            attempt=job.attempt,
        )
    if reply == "cancelled":
        raise JobCancelled(f"job {job.id}: cancelled; submit it again if it was a mistake", job_id=job.id)
    if reply == "missing children":
        raise RedisUnavailable(
            f"job {job.id}: children that were written before are missing, as after a failover of Redis; the job runs "
            "again",
            job_id=job.id,
        )
    return reply


def milliseconds(seconds: float) -> int:
    """Return seconds as milliseconds, for scripts."""
    return round(seconds * 1000)
