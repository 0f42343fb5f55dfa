"""Runs one job from its claim to its end: the base class of all consumers."""

from __future__ import annotations

import contextlib
import logging
import time
from enum import Enum

from redis_consumer import machine, wanted
from redis_consumer.consumers import defaults
from redis_consumer.consumers.fan_out import method_of
from redis_consumer.consumers.options import is_per_job
from redis_consumer.consumers.reasons import describe, reason_of
from redis_consumer.consumers.renewal import Renewal
from redis_consumer.consumers.results import discard_record, shown_name
from redis_consumer.consumers.running import RunningJob
from redis_consumer.errors import (
    ConsumerError,
    InvalidJob,
    JobCancelled,
    LeaseLost,
    OutOfResources,
    RedisUnavailable,
    RetryableError,
    SettingsError,
)
from redis_consumer.job import Job, JobStatus, OrphanedResult, misspelt_fields, unknown_field
from redis_consumer.queue import timestamp, upkeep
from redis_consumer.queue.child_jobs import NEXT_PHASE


class Outcome(str, Enum):
    """How the claim of a job ended."""

    SETTLED = "settled"
    GIVEN_BACK = "given back"
    LOST = "lost"


class Interrupted(BaseException):
    """The worker stops and can't wait for the running job any longer; the job goes back as the next in line."""


class Consumer(RunningJob):
    """A consumer of one queue. Subclasses implement `_consume` and may override every method by name.

    An instance runs one job at a time; use one instance a thread.

    Args:
        redis_client: a `RedisClient`, or any client with redis-py's commands that decodes replies.
        storage_client: a `Storage`, or an object with its ``download`` and ``upload``.
        queue: name of the list to take jobs from.
        final_status: written at success.
        failed_status: written at failure.
        name: name of the worker, ``HOSTNAME`` by default.

    Attributes:
        redis: the client; commands are its attributes. A result that a plug-in writes by it instead of `update_key`
            isn't protected against a second run of the same job.
        storage: the bucket.
        queue: the queue's name in lower case.
        processing_queue: the list in Redis that holds the running job.
        job: the running job, None between jobs.
        on_update: called after each write of progress; the supervisor watches it.
        provenance: takes notes of the running job; they are written as an object beside its result.
    """

    def is_valid_hash(self, redis_hash: str | None) -> bool:  # noqa: ARG002 - subclasses look at it
        """Say whether this consumer can work on a job; one that it can't ends ``failed``."""
        return True

    def consume(self) -> None:
        """Take one job and run it to its end; wait up to ``EMPTY_QUEUE_TIMEOUT`` seconds for one.

        For scripts that loop on it themselves. `Worker` does more: it handles signals and outages.
        """
        self.purge_processing_queue()
        try:
            job = self.job_queue.claim(float(defaults.get("EMPTY_QUEUE_TIMEOUT")))
        except RedisUnavailable:
            self.redis.ping()  # waits until Redis is back
            return
        if job is None:
            return
        renewal = Renewal(self.job_queue, job)
        try:
            outcome = self.run(job)
        finally:
            renewal.stop()
        if outcome is Outcome.GIVEN_BACK:
            time.sleep(float(defaults.get("DO_NOTHING_TIMEOUT")))

    def run(self, job: Job) -> Outcome:
        """Run a claimed job and settle it: complete, fail or give back, exactly one of these."""
        self._open(job)
        self.provenance.begin(job)
        try:
            with self._account.of(job):
                outcome = self._run(job)
                if outcome is not Outcome.SETTLED:
                    self._account.end(outcome.name.lower())
                return outcome
        finally:
            self.provenance.end()
            self.job = None

    def _run(self, job: Job) -> Outcome:
        started = time.monotonic()
        try:
            try:
                outcome = self._settle(job, self._work(job))
            except (LeaseLost, RetryableError, SettingsError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever a plug-in raises ends its job, not the worker
                self._check_fault(error)
                self._check_shortage(error, job)
                self._handle_error(error, job.id)
                outcome = self._settle(job, self.failed_status)
        except LeaseLost as error:
            self.logger.warning("Lost job %s: %s", job.id, error)
            with contextlib.suppress(RedisUnavailable):
                upkeep.note_orphaned_result(self.job_queue, job)
            return Outcome.LOST
        except (RetryableError, SettingsError) as error:
            # A wrong setting, such as a key that was changed, isn't caused by the job: every other would fail as well.
            self.logger.warning("Gave back job %s: %s", job.id, describe(error))
            return self._give_back(job, error=describe(error))
        except OutOfResources as error:
            self.logger.warning("Gave back job %s, the attempt counts: %s", job.id, describe(error))
            return self._give_back(job, is_crash=True, error=describe(error))
        except Interrupted:
            self.logger.warning("Gave back job %s: the worker stops", job.id)
            self._account.end(self._give_back(job, is_next=True).name.lower())
            raise
        self._log_end(job, time.monotonic() - started)
        return outcome

    def _log_end(self, job: Job, seconds: float) -> None:
        """Log how a job ended, once: done, failed (with the error), waiting for its children, or given back."""
        how, error = self._account.ending, self._error
        text, level, trace = how, logging.INFO, None
        if how == "failed" and error is not None:
            is_known = isinstance(error, ConsumerError)
            text = f"failed: {describe(error)}" if is_known else f"failed by a bug: {describe(error)}"
            level, trace = (logging.WARNING, None) if is_known else (logging.ERROR, error)
        self.logger.log(level, "Ended job %s after %.3f s: %s", job.id, seconds, text, exc_info=trace)

    def _check_fault(self, error: Exception) -> None:
        """Raise where the machine of this worker is to blame for an error: then no job fails for it."""
        if isinstance(error, JobCancelled):
            return
        fault = machine.fault_of(error, losses_before=self._losses)
        if fault is not None:
            raise fault from error

    @staticmethod
    def _check_shortage(error: Exception, job: Job) -> None:
        """Raise where the job needs more memory or disk than there is."""
        if isinstance(error, JobCancelled):
            return
        shortage = machine.shortage_of(error, shown_name(job.get("original_name") or job.id))
        try:
            if shortage is not None:
                raise shortage from error
        finally:
            # Else it and this frame would hold each other, and with them open files that take room.
            del shortage

    def _work(self, job: Job) -> str:
        machine.look()
        self._losses = machine.losses()
        self.logger.info("Started job %s", job.id)
        _ = self.options  # a job with a wrong one ends before any work
        self._warn_of_fields(job)
        if not self.is_valid_hash(job.id):
            name = job.get("original_name") or job.get("input_file_name")
            raise InvalidJob(
                f"{name or job.id}: not a file for queue {self.queue!r}; submit it to a queue that takes this type",
                job_id=job.id,
            )
        if job.get("progress", "0") != "0" and not job.get(NEXT_PHASE) and job.status != JobStatus.WAITING:
            self.update_key(job.id, {"progress": 0})  # an earlier run got so far
        with wanted.asking(self.check_wanted):
            return method_of(self, job)(job.id)

    def _warn_of_fields(self, job: Job) -> None:
        """Say in the log, and in the job's field ``warning``, which fields may be misspelt."""
        options = [name for name in self.Options.model_fields if is_per_job(self.Options, name)]
        problems = [unknown_field(*pair) for pair in misspelt_fields(job.fields, options).items()]
        if problems and job.get("warning") != "; ".join(problems):
            self.logger.warning("Job %s: %s", job.id, "; ".join(problems))
            self.update_key(job.id, {"warning": "; ".join(problems)})

    def _settle(self, job: Job, status: str) -> Outcome:
        if self._is_settled:
            return Outcome.SETTLED
        if not isinstance(status, str):
            raise TypeError(f"_consume returned {status!r}; it must return a status, such as self.final_status")
        if status not in self.finished_statuses:
            outcome = self._give_back(job)
            self._account.end(outcome.name.lower())
            return outcome
        self._is_over = True
        self.update_key(job.id, {"status": status})
        return Outcome.SETTLED

    def _give_back(self, job: Job, *, is_next: bool = False, is_crash: bool = False, error: str = "") -> Outcome:
        try:
            self.job_queue.give_back(job, is_next=is_next, is_crash=is_crash, error=error)
        except LeaseLost as error:
            self.logger.warning("Lost job %s: %s", job.id, error)
            return Outcome.LOST
        return Outcome.GIVEN_BACK

    def _handle_error(self, err: Exception, redis_hash: str) -> None:
        """Write a job's failure: a readable ``reason``, whose last line is ``ErrorType: what is wrong``.

        A job that failed by a bug is listed among the dead letters as well, to be retried once that is fixed.
        """
        self._error = err
        self._account.note_error(err)
        self._is_bug = not isinstance(err, ConsumerError)
        self.update_key(redis_hash, {"status": self.failed_status, "reason": reason_of(err)})

    def clean_up(self) -> None:
        """Remove from the bucket what runs uploaded whose result doesn't count; a worker calls it now and then."""
        for orphan in upkeep.orphaned_results(self.job_queue):
            self.discard(orphan)
            discard_record(self.storage, orphan)
            upkeep.forget_orphaned_result(self.job_queue, orphan)

    def discard(self, orphan: OrphanedResult) -> None:
        """Remove the objects of one such run; a consumer with objects of its own removes them here."""

    def rest(self) -> None:
        """Give back memory that the last jobs needed; a worker calls it as soon as no job waits, and now and then."""
        from redis_consumer.serving.memory import return_freed

        return_freed()

    def warm_up(self) -> None:
        """Load before the first job what it would have to wait for; what can't be had now is tried again by the job."""

    def prepare(self) -> None:
        """Make ready what every job needs, before the first claim.

        Raises:
            SettingsError: a setting is wrong; the worker doesn't start.
        """
        if hasattr(self.storage, "prepare"):
            self.storage.prepare()

    def check_dependencies(self) -> None:
        """Raise where Redis or the bucket doesn't answer now; a worker that gave a job back waits for it.

        Raises:
            ConsumerError: which one it is.
        """
        self.redis.ping()
        if hasattr(self.storage, "check"):
            self.storage.check()

    def close(self) -> None:
        """Give back what the consumer holds."""
        if hasattr(self.redis, "close"):
            self.redis.close()

    def get_redis_hash(self) -> str | None:
        """Take the next job without waiting and return its key, None where there is none.

        For scripts that run `_consume` themselves; the job is running until its final status is written.
        """
        self._end_renewal()
        self.purge_processing_queue()
        job = self.job_queue.claim()
        self._open(job)
        if job is None:
            return None
        self.provenance.begin(job)
        self._renewal = Renewal(self.job_queue, job)
        return job.id

    def get_current_timestamp(self) -> str:
        """Now in UTC, ISO 8601 with zone."""
        return timestamp()

    def purge_processing_queue(self) -> None:
        """Return stranded jobs to the queue: those whose lease ran out, and entries that have had none for 5 s.

        Running jobs, those of other slots under the same name too, are never touched.
        """
        self.job_queue.renew()
        upkeep.sweep(self.job_queue, every_s=float(defaults.get("SWEEP_INTERVAL")) / 2)

    def _put_back_hash(self, redis_hash: str) -> None:
        """Return the job taken by `get_redis_hash` to the end of its queue."""
        job = self.job if self.job is not None and self.job.id == redis_hash else Job(redis_hash)
        self._end_renewal()
        try:
            self.job_queue.give_back(job)
        except LeaseLost:
            self.logger.error("Job %s isn't ours in %s; nothing to put back", redis_hash, self.processing_queue)
