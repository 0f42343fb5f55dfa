"""Reports each run of a job: its metrics, its spans and the context of its log lines."""

from __future__ import annotations

import logging
import re
import time
from types import TracebackType

from redis_consumer import __version__, metrics, traces
from redis_consumer.errors import ConsumerError, JobCancelled, describe
from redis_consumer.job import Job
from redis_consumer.logs import job_fields
from redis_consumer.metrics import recording
from redis_consumer.text import cut, in_utf8

#: Form of a status that counts as a stage: ``predicting``, not ``retry-predicting - 1 - UNAVAILABLE``.
_STAGE = re.compile(r"[a-z]{1,20}(-[a-z]{1,20}){0,3}")
#: Number of stages with their own metrics. A plug-in that uses more and more names must not create more and more
#: metrics.
MAX_STAGES = 30

#: How a run ended, in the words of users. Other outcomes are shown unchanged.
_ENDINGS = {"dead": "failed", "cancelled": "failed"}

_stages: set[str] = set()


class JobTelemetry:
    """Reports one run of a job during its ``with`` block.

    Args:
        job: the claimed job.
        queue: name of the queue that it was claimed from.
        consumer: name of the class that runs it.
        logger: where the lines about the run are logged.
    """

    def __init__(self, job: Job, queue: str, consumer: str, logger: logging.Logger) -> None:
        self.job = job
        self.queue = queue
        self.consumer = consumer
        self.logger = logger
        self._is_open = self._is_cancelled = False
        self._status = self._stage = ""
        self._started = self._stage_started = 0.0
        self._spans: traces.RunSpans | None = None

    def __enter__(self) -> None:
        job = self.job
        self._log_token = job_fields.set(
            {"job_id": job.id, "attempt": job.attempt, "queue": self.queue, "consumer": self.consumer}
        )
        self._spans = self._begun_spans(job) if traces.tracer is not None else None
        self._is_open = True
        if recording.counts_as:
            if metrics.mend():
                announce(self.queue, self.consumer)
            metrics.ATTEMPTS.add(self.queue)
        self._started = time.monotonic()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_stage()
        # Without a status, Redis was unavailable at the end and another run follows, or a plug-in ended the slot.
        status = self._status or ("lost" if error is None or isinstance(error, ConsumerError) else "crashed")
        if self._spans is not None:
            self._spans.end(status)
        if recording.counts_as:
            metrics.JOBS.add(self.queue, self.consumer, status)
            metrics.JOB_SECONDS.observe(self.queue, self.consumer, seconds=time.monotonic() - self._started)
        self._is_open = False
        job_fields.reset(self._log_token)

    def begin_stage(self, status: str) -> None:
        """Note the status of the job. It starts a stage and ends the one before."""
        if not self._is_open or status == self._stage or not _STAGE.fullmatch(status):
            return
        self._end_stage()
        if status in _stages or len(_stages) < MAX_STAGES:
            _stages.add(status)
            self._stage = status
            if self._spans is not None:
                self._spans.begin_stage(status)

    def note_error(self, error: Exception) -> None:
        """Note why the run will end as failed."""
        self._is_cancelled = isinstance(error, JobCancelled)
        self.tell(reason=describe(error))

    def end(self, how: str) -> None:
        """Note how the run ended, one of `metrics.JOB_STATUSES`. The last call counts."""
        self._status = "cancelled" if how == "failed" and self._is_cancelled else how

    def log_end(self, seconds: float, error: Exception | None) -> None:
        """Log how the job ended: done, failed, waiting for its children, or given back.

        Args:
            seconds: how long it ran.
            error: the error by which it failed, if it did.
        """
        how = _ENDINGS.get(self._status, self._status.replace("_", " "))
        text, level, trace = how, logging.INFO, None
        if how == "failed" and error is not None:
            is_known = isinstance(error, ConsumerError)
            text = f"failed: {describe(error)}" if is_known else f"failed by a bug: {describe(error)}"
            level, trace = (logging.WARNING, None) if is_known else (logging.ERROR, error)
        self.logger.log(level, "Ended job %s after %.3f s: %s", self.job.id, seconds, text, exc_info=trace)

    def tell(self, **attributes: str) -> None:
        """Add attributes to the run's span."""
        if self._is_open and self._spans is not None:
            self._spans.tell({f"job.{name}": in_utf8(cut(text)) for name, text in attributes.items()})

    def _begun_spans(self, job: Job) -> traces.RunSpans:
        texts = {"job.id": job.id, "job.queue": self.queue, "job.consumer": self.consumer}
        attributes = {name: in_utf8(cut(text)) for name, text in texts.items()}
        return traces.RunSpans(f"job {self.queue}", job.fields, {**attributes, "job.attempt": job.attempt})

    def _end_stage(self) -> None:
        now = time.monotonic()
        if self._spans is not None:
            self._spans.end_stage()
        if self._stage and recording.counts_as:
            metrics.STAGE_SECONDS.observe(self.consumer, self._stage, seconds=now - self._stage_started)
        self._stage, self._stage_started = "", now


def announce(queue: str, consumer: str) -> None:
    """Create the counters of a consumer with 0 before its first job. Otherwise, the first increase would not be
    visible.
    """
    metrics.INFO.set(__version__, queue, consumer, to=1.0)
    metrics.ATTEMPTS.add(queue, amount=0)
    for status in metrics.JOB_STATUSES:
        metrics.JOBS.add(queue, consumer, status, amount=0)
