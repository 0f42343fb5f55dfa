"""Runs one job from its claim to its end: the base class of all consumers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from redis_consumer import machine, wanted
from redis_consumer.consumers import defaults
from redis_consumer.consumers.claimed_job import UNSERVED, ClaimedJob, Outcome
from redis_consumer.consumers.fan_out import Child, check_phase, method_of_phase
from redis_consumer.consumers.options import (
    NO_OPTIONS,
    ConsumerOptions,
    as_texts,
    is_per_job,
    options_for,
    read_variables,
    secrets_of,
)
from redis_consumer.consumers.telemetry import JobTelemetry
from redis_consumer.errors import InvalidJob, LeaseLost, RedisUnavailable, reason_of
from redis_consumer.job import Job, JobStatus, OrphanedResult, misspelt_fields, unknown_field
from redis_consumer.provenance.record import Provenance, RunSetup
from redis_consumer.queue import JobQueue, timestamp, upkeep
from redis_consumer.queue.child_jobs import NEXT_PHASE, ChildJobs
from redis_consumer.storage import transfer
from redis_consumer.storage.keys import discard_record
from redis_consumer.text import shown_name


class Consumer:
    """A consumer of one queue. Subclasses implement `_consume` and can override every method.

    An instance runs one job at a time. Use one instance per thread.

    Args:
        redis_client: a `RedisClient`, or any client with redis-py's commands that decodes replies.
        storage_client: a `Storage`, or an object with its ``download`` and ``upload``.
        queue: name of the list to take jobs from.
        final_status: written at success.
        failed_status: written at failure.
        name: name of the worker; the default is ``HOSTNAME``.

    Attributes:
        redis: the client; commands are its attributes. A result that a plug-in writes with it, and not with
            `update_key`, is not protected against a second run of the same job.
        storage: the bucket.
        queue: the queue's name in lower case.
        processing_queue: the list in Redis that holds the running job.
        job: the running job, None between jobs.
        on_update: called after each write of progress; the supervisor watches it.
        provenance: collects the record of the running job, which is uploaded together with its result.
    """

    #: Options of the consumer, see `redis_consumer.consumers.options`. A plug-in declares its own in a class of this
    #: name.
    Options: ClassVar[type[ConsumerOptions]] = ConsumerOptions

    def __init__(
        self,
        redis_client: Any,
        storage_client: Any,
        queue: str,
        final_status: str = "done",
        failed_status: str = "failed",
        name: str | None = None,
    ) -> None:
        self.redis = redis_client
        self.storage = storage_client
        self.queue = str(queue).lower()
        self.final_status = final_status
        self.failed_status = failed_status
        self.finished_statuses = {final_status, failed_status}
        self.name = name or defaults.current().hostname
        self.hostname = self.name
        self.output_dir = defaults.output_dir()
        self.logger = logging.getLogger(f"{type(self).__module__}.{type(self).__name__}")
        self.job_queue = JobQueue(redis_client, self.queue, self.name, defaults.queue_options())
        self.processing_queue = self.job_queue.processing
        self.on_update: Callable[[], None] | None = None
        self._variables = read_variables(self.Options)
        self._child_jobs: Callable[[JobQueue, Job], ChildJobs] = ChildJobs
        self._hold(None)

    def _hold(self, job: Job | None) -> None:
        """Set the running job; None after its end. Nothing else changes the state of a run."""
        self.job = job
        self.provenance = Provenance(self, job, self._run_setup)
        self._claimed: ClaimedJob | None = None
        # Key and fields of the running job: consumers of 2020 read and assign them.
        self._redis_hash: str | None = None
        self._redis_values: Mapping[str, str] = {}
        if job is None:
            return
        transfer.recorded.set(self.provenance.transfers)
        self._redis_hash, self._redis_values = job.id, dict(job.fields)
        self._claimed = ClaimedJob(
            self.job_queue,
            job,
            telemetry=JobTelemetry(job, self.queue, type(self).__name__, self.logger),
            provenance=self.provenance,
            # Looked up at each write, because plug-ins can replace it on the instance.
            write=lambda key, fields: self.update_key(key, fields),
            child_jobs=self._child_jobs,
        )

    def _run_setup(self) -> RunSetup:
        """Return the options and settings of the run for its record."""
        if self.Options is ConsumerOptions:
            return defaults.run_setup({}, [])
        return defaults.run_setup(as_texts(self.options), secrets_of(self.options))

    def _running(self) -> ClaimedJob:
        """Return the running job.

        Raises:
            ValueError: no job is running.
        """
        if self._claimed is None or self._claimed.is_settled:
            raise ValueError(f"{type(self).__name__}: runs no job at the moment; only a running one has children")
        return self._claimed

    def _job_of(self, redis_hash: str) -> Job:
        """Give the running job; for scripts that call `_consume` without a claim, the job that Redis has."""
        return self.job or Job(redis_hash, self.redis.hgetall(redis_hash))

    def _input_name(self, redis_hash: str) -> str:
        """Give the name of a job's input in lower case, to see what kind of file it is."""
        if self.job is not None and self.job.id == redis_hash:
            return self.job.get("input_file_name").lower()
        return str(self.redis.hget(redis_hash, "input_file_name") or "").lower()

    def _download_file(self, job: Job, key: str, folder: Path) -> Path:
        """Download the file of an image, and the other files of an OME-TIFF of several files beside it."""
        from redis_consumer.images.vendors.ome_files import other_files  # most consumers read no images

        path = Path(self.storage.download(key, folder))
        if others := other_files(path, shown_name(job.original_name), job.field_of_view):
            self.storage.download_beside(key, others, path.parent)
        return path

    def _consume(self, redis_hash: str) -> str:
        """Do the work of one job and return its status. This is the only method that a plug-in must implement.

        Args:
            redis_hash: the key of the job's hash.

        Returns:
            `final_status` or `failed_status`. Any other status returns the job to its queue.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method _consume(redis_hash)")

    @property
    def options(self) -> Any:
        """Options of the running job, an instance of `Options`.

        Raises:
            InvalidJob: a field of the job is wrong or missing.
        """
        if self.Options is ConsumerOptions:
            return NO_OPTIONS
        return options_for(self.Options, self._variables, self.job or Job(""))

    def is_valid_hash(self, redis_hash: str | None) -> bool:  # noqa: ARG002 - subclasses look at it
        """Return whether this consumer can process a job. If not, the job ends ``failed``."""
        return True

    def consume(self) -> None:
        """Take one job and run it to its end. Wait up to ``EMPTY_QUEUE_TIMEOUT`` seconds for a job.

        For scripts with their own loop. A worker also handles signals and outages.
        """
        self.purge_processing_queue()
        try:
            job = self.job_queue.claim(defaults.current().empty_queue_timeout)
        except RedisUnavailable:
            self.redis.ping()  # waits until Redis is back
            return
        if job is None:
            return
        renewal = upkeep.Renewal(self.job_queue, job)
        try:
            outcome = self.run(job)
        finally:
            renewal.stop()
        if outcome is Outcome.GIVEN_BACK:
            time.sleep(defaults.current().do_nothing_timeout)

    def run(self, job: Job) -> Outcome:
        """Run a claimed job and settle it: complete, fail or give back, exactly one of these."""
        self._hold(job)
        claimed = self._running()
        try:
            with claimed.telemetry:
                return claimed.run(partial(self._work, job), partial(self._fail, job), self.finished_statuses)
        finally:
            claimed.error = None  # its traceback keeps the memory of the run alive
            transfer.recorded.set(None)
            self._hold(None)

    def _work(self, job: Job) -> str:
        machine.look()
        self._running().losses = machine.losses()
        self.logger.info("Started job %s", job.id)
        _ = self.options  # a job with a wrong option ends before any work
        self._warn_of_fields(job)
        if not self.is_valid_hash(job.id):
            name = job.get("original_name") or job.get("input_file_name")
            raise InvalidJob(
                f"{name or job.id}: not a file for queue {self.queue!r}; submit it to a queue that takes this type",
                job_id=job.id,
            )
        if job.get("progress", "0") != "0" and not job.get(NEXT_PHASE) and job.status != JobStatus.WAITING:
            self.update_key(job.id, {"progress": 0})  # an earlier run had reached this
        with wanted.asking(self.check_wanted):
            method = method_of_phase(self, job) if job.get(NEXT_PHASE) else self._consume
            return method(job.id)

    def _warn_of_fields(self, job: Job) -> None:
        """Report fields that may be misspelt in the log and in the job's field ``warning``."""
        options = [name for name in self.Options.model_fields if is_per_job(self.Options, name)]
        problems = [unknown_field(*pair) for pair in misspelt_fields(job.fields, options).items()]
        self._running().warnings += problems
        if problems and job.get("warning") != "; ".join(problems):
            self.logger.warning("Job %s: %s", job.id, "; ".join(problems))
            self.update_key(job.id, {"warning": "; ".join(problems)})
        elif UNSERVED in job.get("warning"):  # its child jobs have found a worker since
            self.update_key(job.id, {"warning": ""})

    def _fail(self, job: Job, error: Exception) -> str:
        self._handle_error(error, job.id)
        return self.failed_status

    def _handle_error(self, err: Exception, redis_hash: str) -> None:
        """Write a job's failure: a readable ``reason``, whose last line is ``ErrorType: what is wrong``.

        A job that failed because of a bug is also listed as a dead letter, so that it can be retried after the fix.
        """
        if self._claimed is not None:
            self._claimed.error = err
            self._claimed.telemetry.note_error(err)
        self.update_key(redis_hash, {"status": self.failed_status, "reason": reason_of(err)})

    def update_key(self, redis_hash: str, data: Mapping[str, Any] | None = None) -> None:
        """Write fields of a job, with ``updated_at`` and ``updated_by``.

        Fields of the running job are written only while this worker holds the job. A final ``status`` also ends the
        claim, in the same step.

        Raises:
            ValueError: `data` is no dictionary.
            LeaseLost: another worker has the job; nothing was written.
            JobCancelled: the job was cancelled; nothing was written.
            MachineUnavailable: the job would fail because this machine fails; nothing was written.
        """
        if data is not None and not isinstance(data, Mapping):
            raise ValueError(f"update_key: data is a {type(data).__name__}, wanted a dictionary of fields")
        fields = dict(data or {})
        claimed = self._claimed
        if claimed is None or redis_hash != claimed.job.id or claimed.is_settled:
            self.redis.hset(redis_hash, mapping=self.job_queue.stamp(fields))
        elif fields.get("status") in self.finished_statuses:
            is_success = fields["status"] == self.final_status
            if is_success:
                fields.update(self.provenance.closing_fields(fields))
            claimed.complete(fields, is_success=is_success)
        else:
            claimed.update(fields)
            if self.on_update is not None:
                self.on_update()

    def report_progress(self, done: int, total: int) -> None:
        """Write the progress of the running job in percent. It writes at most once a second, so it can be called often.

        The progress never decreases within one run.

        Raises:
            JobCancelled, LeaseLost: as `update_key`.
        """
        if self._claimed is not None:
            self._claimed.report_progress(done, total)

    def check_wanted(self) -> None:
        """Raise an error if the running job was cancelled or lost. It asks Redis at most once a second, so it can be
        called often.

        Raises:
            JobCancelled, LeaseLost: as `update_key`.
        """
        if self._claimed is not None:
            self._claimed.check_wanted()

    def fan_out(
        self, children: Iterable[Child], *, then: str, fields: Mapping[str, Any] | None = None, share: int = 100
    ) -> str:
        """Divide the running job into children and let it wait for them. It occupies no worker while it waits.

        No child is pushed before the last one is known. A repeated run makes the same children.

        Args:
            children: the children in order; can be a generator, which runs while earlier children are uploaded.
            then: name of a method with the mark `second_phase`. It continues the job when all children have ended,
                successfully or not, and gets them from `child_jobs`. Without children, it runs at once.
            fields: short texts to write to the job, for the second phase.
            share: percentage of the job's progress that the children account for. The second phase reports the rest.

        Returns:
            The status to return from `_consume`. The claim has ended, so no more fields can be written.

        Raises:
            LeaseLost, JobCancelled: as `update_key`; nothing was pushed.
            ValueError: `then` is not the name of a marked method.
        """
        claimed = self._running()
        check_phase(self, then)
        # Making the children can add fields to a dictionary that is empty now.
        given = {} if fields is None else fields
        return claimed.fan_out(children, then=then, storage=self.storage, fields=given, share=share)

    def child_jobs(self) -> Iterator[Job]:
        """Return the children of the running job in order, with their current fields. A child whose hash is gone has no
        fields.
        """
        return self._running().children()

    def _clean_up(self) -> None:
        """Remove objects of runs whose result doesn't count from the bucket. A worker calls it from time to time."""
        for orphan in upkeep.orphaned_results(self.job_queue):
            self.discard(orphan)
            discard_record(self.storage, orphan)
            upkeep.forget_orphaned_result(self.job_queue, orphan)

    def discard(self, orphan: OrphanedResult) -> None:
        """Remove the objects of one such run. A consumer that uploads other objects overrides this to remove them."""

    def _rest(self) -> None:
        """Return unused memory to the system. A worker calls it when no job waits, and from time to time."""
        machine.return_freed()

    def _warm_up(self) -> None:
        """Load what the first job would have to wait for. If something is unavailable, the job tries again."""

    def prepare(self) -> None:
        """Prepare everything that every job needs, before the first claim.

        Raises:
            SettingsError: a setting is wrong; the worker doesn't start.
        """
        if hasattr(self.storage, "prepare"):
            self.storage.prepare()

    def _check_dependencies(self) -> None:
        """Raise an error if Redis or the bucket doesn't respond. A worker that gave a job back waits until this
        succeeds.

        Raises:
            ConsumerError: the service that doesn't respond.
        """
        self.redis.ping()
        if hasattr(self.storage, "check"):
            self.storage.check()

    def close(self) -> None:
        """Close the connections of the consumer."""
        if hasattr(self.redis, "close"):
            self.redis.close()

    def get_redis_hash(self) -> str | None:
        """Take the next job without waiting and return its key; None if no job waits.

        For scripts that call `_consume` themselves. The job is running until its final status is written.
        """
        if self._claimed is not None:
            self._claimed.stop_renewal()
        self.purge_processing_queue()
        job = self.job_queue.claim()
        self._hold(job)
        if job is None:
            return None
        self._running().start_renewal()
        return job.id

    def get_current_timestamp(self) -> str:
        """Return the current time in UTC, as ISO 8601 with its zone."""
        return timestamp()

    def purge_processing_queue(self) -> None:
        """Return stranded jobs to the queue: those whose lease ran out, and entries that have had none for 5 s.

        Running jobs are never touched, also those of other slots with the same name.
        """
        self.job_queue.renew()
        upkeep.sweep(self.job_queue, every_s=defaults.current().sweep_interval / 2)

    def _put_back_hash(self, redis_hash: str) -> None:
        """Return the job taken by `get_redis_hash` to the end of its queue."""
        claimed = self._claimed
        try:
            if claimed is not None and claimed.job.id == redis_hash:
                claimed.give_back()
            else:
                self.job_queue.give_back(Job(redis_hash))
        except LeaseLost:
            self.logger.error("Job %s isn't ours in %s; nothing to put back", redis_hash, self.processing_queue)
