"""What is told of one run of a job: metrics, spans and the context of its log lines, opened and closed here."""

from __future__ import annotations

import contextlib
import re
import time
from types import TracebackType

from redis_consumer import __version__, metrics
from redis_consumer.errors import ConsumerError
from redis_consumer.job import Job
from redis_consumer.logs import job_context

#: What a status must look like to count as a stage: ``predicting``, not ``retry-predicting - 1 - UNAVAILABLE``.
_STAGE = re.compile(r"[a-z]{1,20}(-[a-z]{1,20}){0,3}")
#: Stages that are told apart; a plug-in that makes up ever new ones must not make up ever new metrics.
MAX_STAGES = 30

_stages: set[str] = set()


class Account:
    """Tells of a run for as long as its ``with`` block lasts.

    Args:
        job: what is run.
        queue: where it was taken from.
        consumer: name of the class that runs it.
    """

    def __init__(self, job: Job, queue: str, consumer: str) -> None:
        self.job = job
        self.queue = queue
        self.consumer = consumer
        self._status = ""
        self._stage = ""
        self._contexts = contextlib.ExitStack()

    def __enter__(self) -> Account:
        metrics.ATTEMPTS.add(self.queue)
        self._contexts.enter_context(
            job_context(job_id=self.job.id, attempt=self.job.attempt, queue=self.queue, consumer=self.consumer)
        )
        self._started = self._stage_started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_stage()
        # Without a word, Redis was away at its end, and others will run it; or a plug-in ends the slot.
        without_word = "lost" if error is None or isinstance(error, ConsumerError) else "crashed"
        metrics.JOBS.add(self.queue, self.consumer, self._status or without_word)
        metrics.JOB_SECONDS.observe(self.queue, self.consumer, seconds=time.monotonic() - self._started)
        self._contexts.close()

    def begin_stage(self, status: str) -> None:
        """Note that the job has this status now: a stage begins, the one before is over."""
        if status == self._stage or not _STAGE.fullmatch(status):
            return
        self._end_stage()
        if status in _stages or len(_stages) < MAX_STAGES:
            _stages.add(status)
            self._stage = status

    def end(self, how: str) -> None:
        """Note how the run ended, one of `metrics.JOB_STATUSES`; what is said last holds."""
        self._status = how

    def _end_stage(self) -> None:
        now = time.monotonic()
        if self._stage:
            metrics.STAGE_SECONDS.observe(self.consumer, self._stage, seconds=now - self._stage_started)
        self._stage, self._stage_started = "", now


def announce(queue: str, consumer: str) -> None:
    """Let the counts of a consumer be there, as 0, before its first job: else the first one of a kind shows no rise."""
    metrics.INFO.set(__version__, queue, consumer, to=1.0)
    metrics.ATTEMPTS.add(queue, amount=0)
    for status in metrics.JOB_STATUSES:
        metrics.JOBS.add(queue, consumer, status, amount=0)
