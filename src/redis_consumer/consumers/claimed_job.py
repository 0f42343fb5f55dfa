"""Holds the state of one claimed job, and writes its fields."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

from redis_consumer import machine
from redis_consumer.consumers.fan_out import Child, write_children
from redis_consumer.consumers.telemetry import JobTelemetry
from redis_consumer.errors import (
    ConsumerError,
    JobCancelled,
    LeaseLost,
    OutOfResources,
    RedisUnavailable,
    RetryableError,
    SettingsError,
    describe,
)
from redis_consumer.job import Job, JobStatus
from redis_consumer.provenance.record import Provenance
from redis_consumer.queue import JobQueue
from redis_consumer.queue.child_jobs import ChildJobs
from redis_consumer.queue.upkeep import Renewal, note_orphaned_result
from redis_consumer.storage.keys import zip_name
from redis_consumer.text import shown_name

#: Shortest time between two reports of a job's progress, or two checks whether it was cancelled, in seconds.
PROGRESS_S = 1.0
#: Beginning of the warning that child jobs have to wait for a worker.
UNSERVED = "no worker serves queue"
#: The order of statuses. A job never returns to an earlier one.
_ORDER = list(JobStatus)


class Outcome(str, Enum):
    """How the claim of a job ended."""

    SETTLED = "settled"
    GIVEN_BACK = "given back"
    LOST = "lost"


class Interrupted(BaseException):
    """The worker stops and can't wait for the running job. The job returns to the front of its queue."""


class ClaimedJob:
    """A job from its claim to its end. It holds all state of one run.

    Args:
        queue: the queue that the job was claimed from.
        job: the claimed job.
        telemetry: reports the run.
        provenance: collects the record of the run.
        write: writes fields of a job by its key: `Consumer.update_key`, which plug-ins may override.
        child_jobs: makes the object for the child jobs of a job.

    Attributes:
        is_settled: whether the claim has ended.
        error: the error with which the job will fail; None otherwise.
        losses: how often files of running jobs had been lost when the run began, see `machine.losses`.
        retries: number of repeated calls of the model server.
        part: number of the part of the input that is processed now, from 0, and the number of parts.
        warnings: what the job's field ``warning`` says.
        noted: fields that the run has found out, see `Stages.note`.
    """

    def __init__(
        self,
        queue: JobQueue,
        job: Job,
        *,
        telemetry: JobTelemetry,
        provenance: Provenance,
        write: Callable[[str, Mapping[str, Any]], None],
        child_jobs: Callable[[JobQueue, Job], ChildJobs] = ChildJobs,
    ) -> None:
        self.queue = queue
        self.job = job
        self.telemetry = telemetry
        self.provenance = provenance
        self.is_settled = False
        self.error: Exception | None = None
        self.losses = machine.losses()
        self.retries = 0
        self.part = (0, 1)
        self.warnings: list[str] = []
        self.noted: dict[str, str] = {}
        self._write = write
        self._child_jobs = child_jobs
        self._renewal: Renewal | None = None
        self._percent = 0
        self._look_at = time.monotonic() + PROGRESS_S
        self._zips = 0
        self._is_last_write = False

    def run(self, work: Callable[[], str], fail: Callable[[Exception], str], finished: Collection[str]) -> Outcome:
        """Run the job and end its claim: complete, fail or give back, exactly one of these.

        Args:
            work: does the job and returns its status.
            fail: writes why the job failed and returns its status.
            finished: statuses that end the job; after any other, the job goes back to its queue.
        """
        log, job, started = self.telemetry.logger, self.job, time.monotonic()
        try:
            try:
                outcome = self._settle(work(), finished)
            except (LeaseLost, RetryableError, SettingsError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever a plug-in raises ends its job, not the worker
                self.check_fault(error)
                self.check_shortage(error)
                outcome = self._settle(fail(error), finished)
        except LeaseLost as error:
            with contextlib.suppress(RedisUnavailable):
                note_orphaned_result(self.queue, job)
            return self._lose(error)
        except (RetryableError, SettingsError) as error:
            # A wrong setting, such as a changed key, isn't caused by the job. Every other job would fail too.
            log.warning("Gave back job %s: %s", job.id, describe(error))
            return self._return(error=describe(error))
        except OutOfResources as error:
            log.warning("Gave back job %s, the attempt counts: %s", job.id, describe(error))
            return self._return(is_crash=True, error=describe(error))
        except Interrupted:
            log.warning("Gave back job %s: the worker stops", job.id)
            self._return(is_next=True)
            raise
        self.telemetry.log_end(time.monotonic() - started, self.error)
        return outcome

    def _settle(self, status: str, finished: Collection[str]) -> Outcome:
        if self.is_settled:
            return Outcome.SETTLED
        if not isinstance(status, str):
            raise TypeError(f"_consume returned {status!r}; it must return a status, such as self.final_status")
        if status not in finished:
            return self._return()
        self._is_last_write = True
        self._write(self.job.id, {"status": status})
        return Outcome.SETTLED

    def _return(self, *, is_next: bool = False, is_crash: bool = False, error: str = "") -> Outcome:
        try:
            self.give_back(is_next=is_next, is_crash=is_crash, error=error)
        except LeaseLost as lost:
            return self._lose(lost)
        self.telemetry.end("given_back")
        return Outcome.GIVEN_BACK

    def _lose(self, error: LeaseLost) -> Outcome:
        self.telemetry.logger.warning("Lost job %s: %s", self.job.id, error)
        self.telemetry.end("lost")
        return Outcome.LOST

    def update(self, fields: Mapping[str, Any]) -> None:
        """Write fields if this worker still holds the job.

        Raises:
            LeaseLost, JobCancelled: as `JobQueue.update`.
        """
        self.queue.update(self.job, fields)
        if "status" in fields:
            self.telemetry.begin_stage(str(fields["status"]))
        self.provenance.note_fields(fields)

    def complete(self, fields: Mapping[str, Any], *, is_success: bool) -> None:
        """Write the last fields, including a final ``status``, and end the claim.

        Raises:
            LeaseLost, JobCancelled: as `JobQueue.complete`.
            MachineUnavailable: the job would fail because this machine fails; nothing was written.
        """
        if not is_success and not isinstance(self.error, JobCancelled):
            # No job fails on a machine that fails, even if a plug-in has caught the error.
            machine.check(losses_before=self.losses)
        is_dead = not is_success and self._is_bug
        self.queue.complete(self.job, fields, is_success=is_success, is_dead=is_dead, is_last=self._is_last_write)
        self._end("done" if is_success else "dead" if is_dead else "failed")

    @property
    def _is_bug(self) -> bool:
        return self.error is not None and not isinstance(self.error, ConsumerError)

    def give_back(self, *, is_next: bool = False, is_crash: bool = False, error: str = "") -> None:
        """Return the job to its queue, see `JobQueue.give_back`.

        Raises:
            LeaseLost: this worker no longer holds the job; nothing was pushed.
        """
        self.stop_renewal()
        self.queue.give_back(self.job, is_next=is_next, is_crash=is_crash, error=error)

    def report_progress(self, done: int, total: int) -> None:
        """Write the progress of the job, see `Consumer.report_progress`."""
        self._percent = min(max(self._percent, 100 * done // total), 100)
        self._look({"progress": self._percent})

    def check_wanted(self) -> None:
        """Raise an error if the job was cancelled or lost, see `Consumer.check_wanted`."""
        self._look({})

    def _look(self, fields: Mapping[str, Any]) -> None:
        now = time.monotonic()
        if not self.is_settled and now >= self._look_at:
            self._look_at = now + PROGRESS_S
            self._write(self.job.id, fields)

    def fan_out(
        self, children: Iterable[Child], *, then: str, storage: Any, fields: Mapping[str, Any], share: int
    ) -> str:
        """Divide the job into children and end the claim, see `Consumer.fan_out`.

        Args:
            children: as for `Consumer.fan_out`.
            then: name of the method that continues the job.
            storage: the bucket for the inputs of the children.
            fields: as for `Consumer.fan_out`.
            share: as for `Consumer.fan_out`.
        """
        child_jobs = self._child_jobs(self.queue, self.job)
        queues: set[str] = set()
        took = write_children(child_jobs, _noting_queues(children, queues), storage, self.check_wanted)
        unserved = ", ".join(child_jobs.unserved(sorted(queues)))
        if unserved:
            self.warnings.append(f"{UNSERVED} {unserved} now; the job waits until one starts")
            took["warning"] = "; ".join(self.warnings)
        child_jobs.fan_out(then, {**self.provenance.input_fields(), **took, **fields}, share=share)
        return self._wait()

    def adopt(self, then: str) -> str:
        """Let the job wait for the children of its field ``children``, which an older worker has pushed."""
        self._child_jobs(self.queue, self.job).adopt(then, {})
        return self._wait()

    def children(self) -> Iterator[Job]:
        """Return the children of the job with their current fields, and note them for its record."""
        return map(self.provenance.noted_child, self._child_jobs(self.queue, self.job).children())

    def _wait(self) -> str:
        self._end("waiting")
        return JobStatus.WAITING.value

    def _end(self, how: str) -> None:
        self.is_settled = True
        self.telemetry.end(how)
        self.stop_renewal()

    def note_model(self, name: str, describe: Callable[[], dict[str, Any]]) -> None:
        """Note that a model was called. `describe` is called once, when the record of the result is written."""
        self.telemetry.tell(model=name)
        self.provenance.note_model(name, describe)

    def next_zip_name(self) -> str:
        """Name the next zip of this run."""
        self._zips += 1
        return zip_name(self.job, self._zips - 1)

    def check_fault(self, error: Exception) -> None:
        """Raise an error if the machine of this worker caused an error, so that the job doesn't fail because of it.

        Raises:
            MachineUnavailable: what is wrong with the machine.
        """
        if isinstance(error, JobCancelled):
            return
        fault = machine.fault_of(error, losses_before=self.losses)
        if fault is not None:
            raise fault from error

    def check_shortage(self, error: Exception) -> None:
        """Raise an error if the job needs more memory or disk than there is.

        Raises:
            OutOfResources: which of the two.
        """
        if isinstance(error, JobCancelled):
            return
        shortage = machine.shortage_of(error, shown_name(self.job.get("original_name") or self.job.id))
        try:
            if shortage is not None:
                raise shortage from error
        finally:
            # Otherwise the error and this frame would refer to each other, and keep files open that use disk space.
            del shortage

    def start_renewal(self) -> None:
        """Renew the lease until the claim ends."""
        self._renewal = Renewal(self.queue, self.job)

    def stop_renewal(self) -> None:
        """Stop renewing the lease."""
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.stop()


def _noting_queues(children: Iterable[Child], queues: set[str]) -> Iterator[Child]:
    for child in children:
        queues.add(child.queue)
        yield child


class Stages:
    """Writes a job's status at the start of each stage, together with the time that the stage before took.

    If an image is processed in groups of frames, the time of a stage is that of all groups. The job is predicting until
    its last group is predicted.

    Args:
        job: the running job.
        write: writes fields of a job by its key.
        final_status: written at success.
        claimed: the run; None if a script runs the job without a claim.
    """

    def __init__(
        self, job: Job, write: Callable[[str, Mapping[str, Any]], None], final_status: str, claimed: ClaimedJob | None
    ) -> None:
        self._job = job
        self._write = write
        self._final_status = final_status
        self._claimed = claimed
        self.started = self.began = time.monotonic()
        self._reached = JobStatus.NEW
        self._spent_s: dict[str, float] = {}
        self._groups = 1
        self._groups_left = 0
        self._noted: dict[str, Any] = {}

    def note(self, fields: Mapping[str, Any]) -> None:
        """Write fields together with those of the next stage, or of the job's end."""
        self._noted.update(fields)

    def begin(self, status: JobStatus, *, ended: str | None = None, **fields: Any) -> None:
        """Start a stage, unless the job has passed it. `ended` names the field for the seconds of the stage before."""
        later = (JobStatus.POST_PROCESSING, JobStatus.SAVING_RESULTS)
        is_early = status in later and self._groups_left > 0
        if is_early or _ORDER.index(status) <= _ORDER.index(self._reached):
            if self._groups > 1:
                self._time(ended)
            return
        self._reached = status
        if ended == "prediction_time":
            fields["predict_retries"] = 0 if self._claimed is None else self._claimed.retries
        self._write_noted({**self._time(ended), "status": status.value, **fields})

    def begin_group(self, number: int, groups: int) -> None:
        """Start a group of frames, from 0."""
        if groups > 1 and number:
            self._time("postprocess_time")
        self._groups, self._groups_left = groups, groups - number - 1

    def finish(self, **fields: Any) -> None:
        """End the job with its result."""
        total_s = time.monotonic() - self.started
        done = {"status": self._final_status, "total_jobs": 1, "total_time": f"{total_s:.6f}"}
        upload = self._time("upload_time")
        times = {name: f"{spent_s:.6f}" for name, spent_s in self._spent_s.items()} if self._groups > 1 else upload
        self._write_noted({**times, **done, **fields})

    def _write_noted(self, fields: Mapping[str, Any]) -> None:
        noted, self._noted = self._noted, {}
        self._write(self._job.id, {**noted, **fields})

    def _time(self, ended: str | None) -> dict[str, str]:
        now = time.monotonic()
        took_s, self.began = now - self.began, now
        if ended is None:
            return {}
        self._spent_s[ended] = self._spent_s.get(ended, 0.0) + took_s
        return {ended: f"{self._spent_s[ended]:.6f}"}
