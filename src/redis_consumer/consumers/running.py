"""Gives access to the running job: write its fields, report its progress, divide it into children."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

from redis_consumer import machine
from redis_consumer.consumers import defaults
from redis_consumer.consumers.account import Account
from redis_consumer.consumers.fan_out import Child, run_fan_out
from redis_consumer.consumers.options import NO_OPTIONS, ConsumerOptions, options_for, read_variables
from redis_consumer.consumers.provenance import Provenance
from redis_consumer.consumers.renewal import Renewal
from redis_consumer.errors import JobCancelled
from redis_consumer.job import Job, JobStatus
from redis_consumer.queue import JobQueue
from redis_consumer.queue.child_jobs import ChildJobs

#: Seconds between two reports of a job's progress, or looks whether it is wanted, at least.
PROGRESS_S = 1.0


class RunningJob:
    """The part of a consumer that its own methods, and plug-ins, call while a job runs.

    Arguments and attributes are those of `redis_consumer.consumers.Consumer`, which runs the job.
    """

    #: Its options, see `redis_consumer.consumers.options`; a plug-in declares a class of this name with theirs.
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
        self.name = name or defaults.get("HOSTNAME")
        self.hostname = self.name
        self.output_dir = defaults.get("OUTPUT_DIR")
        self.logger = logging.getLogger(f"{type(self).__module__}.{type(self).__name__}")
        self.job_queue = JobQueue(
            redis_client,
            self.queue,
            self.name,
            lease_s=float(defaults.get("LEASE_TIMEOUT")),
            max_attempts=int(defaults.get("MAX_ATTEMPTS")),
            replicas=int(defaults.get("REDIS_WAIT_REPLICAS")),
            child_expire_s=int(defaults.get("EXPIRE_TIME")),
            result_ttl_s=int(defaults.get("RESULT_TTL")),
        )
        self.processing_queue = self.job_queue.processing
        self.job: Job | None = None
        self.on_update: Callable[[], None] | None = None
        self.provenance = Provenance(self)
        self._variables = read_variables(self.Options)
        self._is_settled = False
        self._is_bug = False
        self._is_over = False
        self._error: Exception | None = None
        self._losses = machine.losses()
        self._account = Account(self.queue, type(self).__name__)
        self._renewal: Renewal | None = None
        self._percent = 0
        self._look_at = 0.0

    def _consume(self, redis_hash: str) -> str:
        """Do the work of one job and return its status; the only method that a plug-in must implement.

        Args:
            redis_hash: the key of the job's hash.

        Returns:
            `final_status` or `failed_status`; any other status puts the job back into its queue.
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

    def _open(self, job: Job | None) -> None:
        self.job, self._is_settled, self._is_bug, self._is_over = job, False, False, False
        self._error, self._losses = None, machine.losses()
        self._percent, self._look_at = 0, time.monotonic() + PROGRESS_S

    def _end_renewal(self) -> None:
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.stop()

    def update_key(self, redis_hash: str, data: Mapping[str, Any] | None = None) -> None:
        """Write fields of a job, with ``updated_at`` and ``updated_by``.

        For the running job the write happens only while the job is still ours, and one with a final ``status``
        ends the claim together with it.

        Raises:
            ValueError: `data` is no dictionary.
            LeaseLost: somebody else has the job by now; nothing was written.
            JobCancelled: nobody wants the job any more; nothing was written.
            MachineUnavailable: the job is to fail, but no job can be done on this machine; nothing was written.
        """
        if data is not None and not isinstance(data, Mapping):
            raise ValueError(f"update_key: data is a {type(data).__name__}, wanted a dictionary of fields")
        fields = dict(data or {})
        job = self.job
        if job is None or redis_hash != job.id or self._is_settled:
            self.redis.hset(redis_hash, mapping=self.job_queue.stamp(fields))
        elif fields.get("status") in self.finished_statuses:
            is_success = fields["status"] == self.final_status
            if is_success:
                fields.update(self.provenance.closing_fields(fields))
            elif not isinstance(self._error, JobCancelled):
                # No job is to fail where none can be done, also where a plug-in has caught the error.
                machine.check(losses_before=self._losses)
            self.job_queue.complete(job, fields, is_success=is_success, is_dead=self._is_bug, is_last=self._is_over)
            self._is_settled = True
            self._account.end("done" if is_success else "dead" if self._is_bug else "failed")
            self._end_renewal()
        else:
            self.job_queue.update(job, fields)
            if "status" in fields:
                self._account.begin_stage(str(fields["status"]))
            self.provenance.note_fields(fields)
            if self.on_update is not None:
                self.on_update()

    def report_progress(self, done: int, total: int) -> None:
        """Write how much of the running job is done, in percent; at most once a second, so it can be called often.

        What is shown never falls in one run.

        Raises:
            JobCancelled, LeaseLost: as `update_key`.
        """
        self._percent = min(max(self._percent, 100 * done // total), 100)
        self._look({"progress": self._percent})

    def check_wanted(self) -> None:
        """Continue only if the running job is still wanted and ours; asks once a second at most, so call it often.

        Raises:
            JobCancelled, LeaseLost: as `update_key`.
        """
        self._look({})

    def _look(self, fields: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if self.job is not None and not self._is_settled and now >= self._look_at:
            self._look_at = now + PROGRESS_S
            self.update_key(self.job.id, fields)

    def fan_out(
        self, children: Iterable[Child], *, then: str, fields: Mapping[str, Any] | None = None, share: int = 100
    ) -> str:
        """Divide the running job into children; it waits for them, and no worker is held meanwhile.

        Nothing is pushed before the last child is known. A run that is repeated makes the same children.

        Args:
            children: in order; may be made one by one, while earlier ones are uploaded.
            then: method, marked by `second_phase`, that goes on with the job once all of them have ended, in whatever
                way; `child_jobs` gives them there. At once where there are none.
            fields: what to write to the job; short texts that the second phase needs.
            share: percent of the job's progress that the children stand for; the rest is the second phase's to report.

        Returns:
            The status to return from `_consume`; the claim has ended, so nothing more can be written.

        Raises:
            LeaseLost, JobCancelled: as `update_key`; nothing was pushed.
            ValueError: no method of the name `then` is marked.
        """
        job = self._claimed()
        run_fan_out(self, job, children, then=then, fields=fields, share=share)
        return self._end_phase()

    def adopt(self, *, then: str) -> str:
        """Let the running job wait for the children of its field ``children``, which an older worker has pushed."""
        self._family(self._claimed()).adopt(then, {})
        return self._end_phase()

    def child_jobs(self) -> Iterator[Job]:
        """Give the children of the running job as they are now, in order; without fields those that are gone."""
        return map(self.provenance.noted_child, self._family(self._claimed()).children())

    def _family(self, parent: Job) -> ChildJobs:
        return ChildJobs(self.job_queue, parent)

    def _claimed(self) -> Job:
        if self.job is None or self._is_settled:
            raise ValueError(f"{type(self).__name__}: runs no job at the moment; only a running one has children")
        return self.job

    def _end_phase(self) -> str:
        self._is_settled = True
        self._account.end("waiting")
        self._end_renewal()
        return JobStatus.WAITING.value
