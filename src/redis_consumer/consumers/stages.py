"""Writes the stages of a job, and how long each took."""

from __future__ import annotations

import time
from typing import Any

from redis_consumer.consumers.serving import TensorFlowServingConsumer
from redis_consumer.job import Job, JobStatus

#: The order of statuses. A job never returns to an earlier one.
_ORDER = list(JobStatus)


class Stages:
    """Writes a job's status at the start of each stage, together with the time that the stage before took.

    If an image is processed in groups of frames, the time of a stage is that of all groups. The job is predicting until
    its last group is predicted.
    """

    def __init__(self, consumer: TensorFlowServingConsumer, job: Job) -> None:
        self.consumer = consumer
        self.job = job
        self.started = self.began = time.monotonic()
        self._reached = JobStatus.NEW
        self._spent_s: dict[str, float] = {}
        self._groups = 1
        self._groups_left = 0

    def begin(self, status: JobStatus, *, ended: str | None = None, **fields: Any) -> None:
        """Start a stage, unless the job has passed it. `ended` names the field for the seconds of the stage before."""
        is_early = status is JobStatus.POST_PROCESSING and self._groups_left > 0
        if is_early or _ORDER.index(status) <= _ORDER.index(self._reached):
            if self._groups > 1:
                self._time(ended)
            return
        self._reached = status
        if ended == "prediction_time":
            fields["predict_retries"] = 0 if self.consumer._claimed is None else self.consumer._claimed.retries
        self.consumer.update_key(self.job.id, {**self._time(ended), "status": status.value, **fields})

    def begin_group(self, number: int, groups: int) -> None:
        """Start a group of frames, from 0."""
        if groups > 1 and number:
            self._time("postprocess_time")
        self._groups, self._groups_left = groups, groups - number - 1

    def finish(self, **fields: Any) -> None:
        """End the job with its result."""
        total_s = time.monotonic() - self.started
        done = {"status": self.consumer.final_status, "total_jobs": 1, "total_time": f"{total_s:.6f}"}
        upload = self._time("upload_time")
        times = {name: f"{spent_s:.6f}" for name, spent_s in self._spent_s.items()} if self._groups > 1 else upload
        self.consumer.update_key(self.job.id, {**times, **done, **fields})

    def _time(self, ended: str | None) -> dict[str, str]:
        now = time.monotonic()
        took_s, self.began = now - self.began, now
        if ended is None:
            return {}
        self._spent_s[ended] = self._spent_s.get(ended, 0.0) + took_s
        return {ended: f"{self._spent_s[ended]:.6f}"}
